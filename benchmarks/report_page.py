"""Size of a run's report in MB, and seconds until Chromium has loaded it: ``python benchmarks/report_page.py RUN``.

The goal is under 15 MB and 2 seconds for 500 images. By default the report shows as many images as ``report`` does,
however many were evaluated; with ``--images 500`` it shows 500. The page is written anew, into a temporary folder.
Every load has a browser context of its own, with an empty cache; it ends with the event ``load``, which waits for all
images of the page. The seconds are those of ``page.goto``, by the clock.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands.report import IMAGES, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def load_seconds(browser: Browser, path: Path) -> float:
    """Seconds until a page is loaded."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(path.as_uri(), wait_until="load")
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def main() -> None:
    """Writes the report, loads it and prints both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--images", type=int, default=IMAGES, help="images that the page shows")
    parser.add_argument("--loads", type=int, default=5, help="loads, after one that is not counted")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        raise SystemExit("error: there is no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        path = write_report(options.run, Path(folder).resolve() / "report.html", images=options.images)
        shown = path.read_text("utf-8").count('<div class="card"')
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        load_seconds(browser, path)
        found = [load_seconds(browser, path) for _ in range(options.loads)]
        browser.close()
        size = path.stat().st_size / 1e6
    times = f"median {statistics.median(found):.2f} s, {min(found):.2f} to {max(found):.2f} s"
    print(
        f"{shown} images, {size:.2f} MB; load: {times} of {options.loads}; load of the machine {os.getloadavg()[0]:.1f}"
    )
    print(time.strftime("%Y-%m-%d"))


if __name__ == "__main__":
    main()
