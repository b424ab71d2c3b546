"""Files on the loopback interface, with ranges, broken connections and refusals."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes with ranges; `cuts` are the bytes after which answers break off, one per answer."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.codes: list[int] = []
        self.ranges = True
        self.length = True
        self.tag = '"one"'
        self.requests: list[str | None] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        data = server.files.get(self.path.lstrip("/"))
        code = server.codes.pop(0) if server.codes else 200 if data is not None else 404
        if code != 200 or data is None:
            self.send_error(code)
            return
        changed = self.headers.get("If-Range") not in (None, server.tag)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges and not changed else 0
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, *args):
        pass


@contextmanager
def serving_files() -> Iterator[Server]:
    """A server of no files yet, until the block ends."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
