"""What tests of pages share: the demo page on loopback, and a browser."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from commands.serving.app import build_app
from commands.serving.server import listen

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def served_page(models: Any) -> Iterator[str]:
    """Serves the demo page of loaded models; gives its address."""
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(build_app(models, page=True), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def chromium(sync_api: Any) -> Iterator[Any]:
    """The browser of the system, without a window."""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()
