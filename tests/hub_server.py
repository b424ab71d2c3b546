"""The Hugging Face hub on the loopback interface: repositories of files, with what its protocol says of them."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".bin", ".safetensors", ".pth")


class Hub(http.server.ThreadingHTTPServer):
    """Serves ``/REPOSITORY/resolve/REVISION/FILE`` as the hub does, and any other path as a plain file.

    Attributes:
        root: folder of the repositories.
        cut: names of files whose transfer breaks off in the middle.
        wrong: names of files that are sent with other content than their digest says.
        asked: paths of all requests.
        tokens: those who may read, and whether they may write.
        private: repositories that only those with a token may read.
        large: uploads of large files, by their SHA-256.
        commits: names of the files of each commit, those that it removed with a minus before them.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.cut: set[str] = set()
        self.wrong: set[str] = set()
        self.asked: list[str] = []
        self.tokens: dict[str, bool] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.commits: list[list[str]] = []

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
        if found := re.fullmatch(r"api/(?:models|(datasets))/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self.describe("/".join(filter(None, found.groups())))
        elif found := re.fullmatch(r"api/(datasets/[^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            self.show_folder(found[1], found[2])
        else:
            self.send(path, body)

    def send(self, path: str, body: bool) -> None:
        """A file of a repository, or any other."""
        repository, resolve, rest = path.partition("/resolve/")
        name = rest.partition("/")[2] if resolve else path
        if repository in self.server.private and self.token not in self.server.tokens:
            self.refuse(401, "RepoNotFound")
            return
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
        large = file.suffix in LARGE
        # large files are called by their SHA-256, others by that of git
        digest = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
        if file.name in self.server.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), min(int(last or len(content)), len(content) - 1)
        partial = bool(start or last)
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(end + 1 - start if partial else len(content)))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        content = content[: end + 1]
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

    # what uploads ask for: repository, upload modes, large files (LFS), commit

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def describe(self, repository: str) -> None:
        folder = self.server.root / repository
        if not folder.is_dir() or (repository in self.server.private and self.token not in self.server.tokens):
            self.refuse(404 if self.token in self.server.tokens else 401, "RepoNotFound")
            return
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        files = [{"rfilename": name} for name in names]
        private = repository in self.server.private
        name = repository.removeprefix("datasets/")
        self.reply({"id": name, "sha": COMMIT, "private": private, "tags": [], "siblings": files})

    def show_folder(self, repository: str, inside: str) -> None:
        """What is in a folder of a data set, or in it and all folders inside."""
        folder = self.server.root / repository / inside
        if not folder.is_dir():
            self.refuse(404, "EntryNotFound" if (self.server.root / repository).is_dir() else "RepoNotFound")
            return
        deep = "recursive=true" in self.path.lower()
        paths = sorted(folder.rglob("*") if deep else folder.iterdir())
        self.reply([self.entry(repository, path) for path in paths])

    def entry(self, repository: str, path: Path) -> dict:
        """What the hub says of a file or folder."""
        size = path.stat().st_size if path.is_file() else 0
        name, oid = str(path.relative_to(self.server.root / repository)), hashlib.sha1(str(path).encode()).hexdigest()
        return {"type": "file" if path.is_file() else "directory", "oid": oid, "size": size, "path": name}

    def say_paths(self, repository: str, body: bytes) -> None:
        """What the hub says of some files and folders of a data set."""
        if not (self.server.root / repository).is_dir():
            self.refuse(404, "RepoNotFound")
            return
        form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        names = parse_qs(body.decode()).get("paths", []) if form else json.loads(body)["paths"]
        paths = [self.server.root / repository / name for name in names]
        self.reply([self.entry(repository, path) for path in paths if path.exists()])

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        self.server.asked.append(f"POST {path}")
        if found := re.fullmatch(r"api/(datasets/[^/]+/[^/]+)/paths-info/[^/]+", path):
            self.say_paths(found[1], body)
        elif not self.server.tokens.get(self.token, False):
            self.refuse(403 if self.token in self.server.tokens else 401, "")
        elif path == "api/repos/create":
            self.create(json.loads(body))
        elif path == "api/validate-yaml":
            good = json.loads(body)["content"].startswith("---\n")
            self.reply({"errors": [] if good else [{"message": "no metadata"}]}, 200 if good else 400)
        elif found := re.fullmatch(r"api/models/([^/]+/[^/]+)/preupload/main", path):
            self.say_modes(found[1], json.loads(body)["files"])
        elif re.fullmatch(r"[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            self.take_large(json.loads(body)["objects"])
        elif found := re.fullmatch(r"api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.refuse(404, "")

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        self.server.asked.append(f"PUT {self.path.lstrip('/')}")
        if hashlib.sha256(content).hexdigest() != digest:
            self.refuse(400, "")
            return
        self.server.large[digest] = content
        self.reply({})

    def create(self, asked: dict) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        folder = self.server.root / repository
        if folder.is_dir():
            self.reply(
                {"error": "You already created this model repo", "url": f"{self.server.address}/{repository}"}, 409
            )
            return
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repository)
        self.reply({"url": f"{self.server.address}/{repository}"})

    def say_modes(self, repository: str, files: list[dict]) -> None:
        if not (self.server.root / repository).is_dir():
            self.refuse(404, "RepoNotFound")
            return
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if Path(file["path"]).suffix in LARGE else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in files
        ]
        self.reply({"files": modes, "commitOid": COMMIT})

    def take_large(self, objects: list[dict]) -> None:
        """An address for each that is not known by its digest."""
        known = self.server.large
        address = f"{self.server.address}/large/"
        actions = [
            {} if one["oid"] in known else {"actions": {"upload": {"href": address + one["oid"]}}} for one in objects
        ]
        answers = [{"oid": one["oid"], "size": one["size"], **more} for one, more in zip(objects, actions, strict=True)]
        self.reply({"transfer": "basic", "objects": answers})

    def commit(self, repository: str, lines: list[dict]) -> None:
        """Writes the files of a commit, all or none."""
        written: dict[str, bytes | None] = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                written[value["path"]] = None
            elif line["key"] == "file":
                written[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] in self.server.large:
                written[value["path"]] = self.server.large[value["oid"]]
            else:
                self.reply({"error": "the large file was never uploaded"}, 400)
                return
        folder = self.server.root / repository
        for name, content in written.items():
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_bytes(content)
        self.server.commits.append([name if content is not None else f"-{name}" for name, content in written.items()])
        self.reply(
            {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.address}/{repository}/commit/{COMMIT}"}
        )

    def reply(self, value: dict, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

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
