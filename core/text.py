"""Text of users, data and models is only shown: a terminal obeys nothing in it.

Whatever a command prints goes through `say`, and whatever a module logs through `log_of`; tables and bars are in
`core.terminal`, figures in `reporting.drawing`, pages in `reporting.page`, CSV files in `core.csv_files`.
"""

import contextlib
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from typing import IO, Any

_records: IO[str] | None = None
"""Where records go while everything else that is said goes elsewhere."""

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, changes of the writing direction, halves of characters (file names that are not
UTF-8)."""


def visible(text: str, keep: str = "") -> str:
    r"""Writes characters that a terminal would obey, or could not write, as escapes of Python.

    Args:
        text: from anywhere.
        keep: such characters that stay, as a line break where lines are meant.

    >>> print(visible("a\x1b[2J\nb"))
    a\x1b[2J\nb
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def say(*lines: str, err: bool = False) -> None:
    """Prints lines for the user at once; each stays one line.

    Args:
        lines: any text.
        err: print to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for line in lines:
        text = visible(line).encode(encoding, "backslashreplace").decode(encoding)
        print(text, file=stream, flush=True)  # the one place that prints


@contextlib.contextmanager
def divert(*, records: bool = False) -> Iterator[None]:
    """Keeps standard output free for records, or of everything.

    Args:
        records: what is said goes to standard error, and `say_record` writes to standard output; false: nothing that is
            said is shown, but for errors and warnings.
    """
    global _records
    before, _records = _records, sys.stdout if records else None
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(sys.stderr if records else nothing):  # noqa: PTH123 - no path
            yield
    finally:
        _records = before


def say_record(value: Mapping[str, Any]) -> None:
    """Prints a JSON object as one line at once; what is no number becomes null, as JSON has none."""
    plain = {key: _finite(item) for key, item in value.items()}
    print(json.dumps(plain, ensure_ascii=True, allow_nan=False), file=_records or sys.stdout, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say_json(value: Any, indent: int | None = None) -> None:
    """Prints a value as JSON, which reads back the same."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    say(*_OBEYED.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text).split("\n"))


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Makes every message visible, arguments included."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Logs a message of one line."""
        if self.isEnabledFor(level):
            text = str(msg) % _arguments(args) if args else str(msg)
            super().log(level, "%s", visible(text), **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Names the caller's line, not this module's."""
        return msg, {"stacklevel": 2, **kwargs}


def log_of(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of a module."""
    return _Log(logging.getLogger(name), {})


def _arguments(args: tuple[object, ...]) -> Any:
    """Arguments of a message as `logging` takes them: a mapping alone fills named places."""
    return args[0] if len(args) == 1 and isinstance(args[0], Mapping) else args
