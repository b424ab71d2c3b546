"""The Hugging Face hub on the loopback interface: repositories of files, with what its protocol says of them."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``/REPOSITORY/resolve/REVISION/FILE`` as the hub does, and any other path as a plain file.

    Attributes:
        root: folder of the repositories.
        cut: names of files whose transfer breaks off in the middle.
        wrong: names of files that are sent with other content than their digest says.
        asked: paths of all requests.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.cut: set[str] = set()
        self.wrong: set[str] = set()
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        self.server.asked.append(f"{self.command} {path}")
        repository, resolve, rest = path.partition("/resolve/")
        name = rest.partition("/")[2] if resolve else path
        file = self.server.root / repository / name if resolve else self.server.root / name
        if not file.is_file():
            known = resolve and (self.server.root / repository).is_dir()
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        large = file.suffix in (".bin", ".safetensors", ".pth")
        # large files are called by their SHA-256, others by that of git
        digest = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
        if file.name in self.server.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if "Range" in self.headers else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if resolve:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{digest}"')
            if large:
                self.send_header("X-Linked-ETag", f'"{digest}"')
                self.send_header("X-Linked-Size", str(len(content)))
        self.end_headers()
        if not body:
            return
        if file.name in self.server.cut:
            self.wfile.write(content[start : start + max(1, (len(content) - start) // 2)])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def log_message(self, *args):
        pass


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """The hub of a folder, until the block ends."""
    with Hub(root) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
