"""What the commands' own options have in common: one-line errors, dashes like underscores."""

import argparse
from typing import NoReturn

from core.errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports a wrong option in one line instead of the whole usage; takes no abbreviations."""

    def __init__(self, prog: str, *, description: str | None = None) -> None:
        super().__init__(prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises the message as the user's error."""
        raise UserError(f"{message} (python {self.prog} --help lists the options)")


def comma_list(text: str) -> tuple[str, ...]:
    """The parts of a list with commas.

    >>> comma_list("a,b")
    ('a', 'b')
    """
    return tuple(part for part in text.split(",") if part)


def positive(text: str) -> int:
    """A whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found '{text}'")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0 on.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found '{text}'")
    return int(text)


def dashed(arg: str) -> str:
    """Lets ``--num_captions`` mean ``--num-captions``; values are left as they are.

    >>> dashed("--per_image=my_file.csv")
    '--per-image=my_file.csv'
    """
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value if arg.startswith("--") else arg
