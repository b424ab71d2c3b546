"""Options of ``demo`` and ``serve``, and the server under both."""

import argparse
import errno
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from commands.arguments import Parser, dashed, positive
from core.errors import UserError
from core.text import say, visible

_LOCAL = ("127.0.0.1", "localhost", "::1")


def server_parser(prog: str, description: str | None, port: int) -> Parser:
    """Options that both commands have; dashes and underscores mean the same.

    Args:
        prog: how the command is called.
        description: description of the command.
        port: default of the port.
    """
    parser = Parser(prog, description=description)
    add = parser.add_argument
    add("--ckpt", required=True, nargs="+", metavar="RUN", help="run folders or checkpoints, one or several")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; other machines reach only addresses that are not local",
    )
    add("--port", type=int, default=port, help="port to listen on; 0: a free one")
    add("--allow-host", action="append", default=[], metavar="NAME", help="further name under which the server answers")
    add("--batch-size", type=positive, default=16, help="images per batch")
    add("--max-wait-ms", type=float, default=10.0, help="time that a request waits for others to share its batch")
    add("--max-upload-mb", type=float, default=20.0, help="size of an upload at most, in megabytes")
    return parser


def run_server(parser: Parser, args: Sequence[str], *, page: bool) -> int:
    """Loads the models and serves them until it is stopped.

    Args:
        parser: see `server_parser`.
        args: arguments of the command line.
        page: whether the page of ``demo`` is shown.

    Raises:
        UserError: a run cannot be loaded, the port is taken, or a package is missing.
    """
    options = parser.parse_args([dashed(arg) for arg in args])
    _check(options)
    try:
        import uvicorn

        from commands.serving.app import Limits, build_app
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package '{error.name}' is missing: python -m pip install -e '.[serve]' installs it"
        ) from error
    from commands.images import choose_device
    from commands.serving.models import load_models

    listening = listen(options.host, options.port)
    with listening:
        models = load_models(named(options.ckpt), choose_device(options.device))
        limits = Limits(
            max_upload=int(options.max_upload_mb * 2**20),
            max_batch=options.batch_size,
            max_wait=options.max_wait_ms / 1000,
            hosts=(*_names_of(options.host), *options.allow_host),
        )
        app = build_app(models, limits, page=page)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        say(f"serving {', '.join(models.loaded)} on {address(options.host, listening)} (Ctrl+C stops)")
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _check(options: argparse.Namespace) -> None:
    for name, lowest in (("max_wait_ms", 0.0), ("max_upload_mb", 0.001)):
        value = getattr(options, name)
        if not lowest <= value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g}: expected {lowest:g} or more")
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port {options.port}: expected 0 to 65535")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port that is taken is found before a model is loaded.

    Raises:
        UserError: the port is taken, or the address is not one of this machine.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--host {host}: this address is not known here; expected an address such as 127.0.0.1"
        ) from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port {port} is in use: stop the other program, or give another port (0: a free one)"
            ) from error
        raise UserError(
            f"--host {host} --port {port}: {error.strerror}; expected an address of this machine"
        ) from error
    return listening


def address(host: str, listening: socket.socket) -> str:
    """Where a browser finds the server."""
    port = listening.getsockname()[1]
    shown = (
        "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    )
    return f"http://{shown}:{port}"


def _names_of(host: str) -> tuple[str, ...]:
    """Names that a request may address; on a public address any, since machines have many names."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host in _LOCAL
    return (host, "127.0.0.1", "localhost", "[::1]") if local else ("*",)


def named(runs: Sequence[str]) -> dict[str, str]:
    """A name for each run, and its path: the end of the path, without the folders above, which are nobody's business.

    >>> named(["runs/rnn/one", "runs/dual/one", "runs/dual/one/checkpoints/last.ckpt", "model.ckpt"])
    {'rnn/one': 'runs/rnn/one', 'dual/one': 'runs/dual/one', 'dual/one (last)': 'runs/dual/one/checkpoints/last.ckpt', \
'model': 'model.ckpt'}
    """
    from commands.comparison.results import short_names

    folders = [_folder(Path(run)) for run in runs]
    unique = list(dict.fromkeys(folders))
    short = dict(zip(unique, short_names(unique), strict=True))
    found: dict[str, str] = {}
    for run, folder in zip(runs, folders, strict=True):
        last = "" if folder == Path(run) or Path(run).stem in (folder.name, "best") else f" ({Path(run).stem})"
        found.setdefault(visible(short[folder] + last), run)
    return found


def _folder(run: Path) -> Path:
    if run.suffix != ".ckpt":
        return run
    return run.parent.parent if run.parent.name == "checkpoints" else run.with_suffix("")
