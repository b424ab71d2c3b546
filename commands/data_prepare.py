"""``data prepare``: brings the files of a data set into its folder, and says where the others can be had."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.arguments import Parser
from commands.data_sets import data_class, data_sets
from core.errors import DataError, UserError, command
from core.text import say

if TYPE_CHECKING:
    from datamodules.readers.obtaining import Part
    from datamodules.readers.unpacking import Progress

_NOWHERE = Path(os.devnull)


def prepare(name: str, args: list[str]) -> int:
    """Takes what is missing from archives that lie in the folder, fetches what has an address, says where the rest is.

    Returns:
        0; 1 when a part is missing that training needs.

    Raises:
        UserError: the data set is the user's own.
        DataError: a download fails, or an archive is broken.
    """
    cls = data_class(name)
    names = cls.parts(_NOWHERE)
    if not names:
        others = ", ".join(other for other in data_sets() if data_class(other).parts(_NOWHERE))
        raise UserError(
            f"only {others} can be prepared; check the files of {name} with: {command('data', 'check', name)}"
        )
    options = _parser(name, names).parse_args(args)
    root: Path = options.root
    if options.table:
        say(*cls.from_table(options.table, root))
    wanted = options.parts or [part for part in names if names[part].is_needed]
    failed = _bring(cls, wanted, options)
    parts = {part: found for part, found in cls.parts(root).items() if options.parts is None or part in wanted}
    for part, found in parts.items():
        optional = "" if found.is_needed else f" and not needed; --parts {part} fetches it"
        say(f"{part}: {found.found}" if found.found else f"{part}: missing{optional}. {found.way}")
    if failed is not None:
        raise failed
    if any(not part.found and (part.is_needed or options.parts) for part in parts.values()):
        return 1
    say(f"{name} is in '{root}'; check every image with: {command('data', 'check', name, '--root', root)}")
    return 0


def _parser(name: str, parts: "Mapping[str, Part]") -> Parser:
    """The flags of the command."""
    parser = Parser(f"cli.py data prepare {name}")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    sizes = [
        f"{part}: {found.archive.size / 1e9:.2g} GB" if found.archive else f"{part}: by hand"
        for part, found in parts.items()
    ]
    parser.add_argument("--parts", nargs="+", choices=list(parts), help=f"which parts ({', '.join(sizes)})")
    parser.add_argument(
        "--archives", nargs="+", type=Path, default=[], help="files got by hand; those that lie in the root count too"
    )
    parser.add_argument("--table", help="Parquet of the hub (id, local file or folder) that is turned into files")
    parser.add_argument("--list", action="store_true", help="say what is there and what is missing, fetch nothing")
    variable = f"CAPTION_{name.upper()}_URL"
    parser.add_argument(
        "--base_url", default=os.environ.get(variable), help=f"mirror with the same paths, also ${variable}"
    )
    parser.add_argument("--keep_archives", action="store_true", help="keep what was fetched and unpacked")
    return parser


def _bring(cls: Any, wanted: Sequence[str], options: Any) -> DataError | None:
    """Unpacks and fetches the wanted parts that are missing.

    Returns:
        The first error of a server; the others have been asked nevertheless.
    """
    from datamodules.readers import download
    from datamodules.readers.obtaining import adopt

    root, failed = options.root, None
    parts = {name: part for name, part in cls.parts(root).items() if name in wanted}
    if options.list:
        return None
    with _progress_of_files() as progress:
        lines = adopt(parts, root, options.archives, progress)
        parts = {name: part for name, part in cls.parts(root).items() if name in wanted} if lines else parts
        archives = [part.archive for part in parts.values() if part.archive is not None and not part.found]
        root.mkdir(parents=True, exist_ok=True)
        download.check_free_space(root, archives, options.keep_archives)
        for server in dict.fromkeys(archive.server for archive in archives):
            own = [archive for archive in archives if archive.server == server]
            try:
                lines += download.prepare(
                    root, own, options.base_url, keep_archives=options.keep_archives, progress=progress
                )
            except DataError as error:
                failed = failed or error
    say(*lines)
    return failed


@contextmanager
def _progress_of_files() -> "Iterator[Progress]":
    """Shows bars for downloads and unpacking, on standard error."""
    from core.terminal import task_bar

    bar = task_bar()
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bar.start()  # with nothing to do nothing is drawn
            tasks[what] = bar.add_task(what, total=total or None)
        bar.update(tasks[what], completed=done, total=total or None)

    try:
        yield show
    finally:
        if tasks:
            bar.stop()
