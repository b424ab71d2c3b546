"""Errors that a user can fix: the command line prints them as one line, without a traceback."""

import errno
import shlex

_LONGEST = 1500
"""Characters of a message."""


class UserError(ValueError):
    """A wrong value, file or setting. The message names it, says what was expected and the way out."""

    def __str__(self) -> str:
        """The message in one line, the middle of a very long one left out: it may repeat what a damaged file holds."""
        text = super().__str__().replace("\n", " ")
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 + 5 :]}"


class DataError(UserError):
    """Something is wrong with the files of a data set. The message names the file and the record."""


class Interrupted(BaseException):  # like KeyboardInterrupt, nobody may take it for an error
    """A signal ended the work before it was done.

    Args:
        number: number of the signal.
        message: what was saved, and how to resume; may come later.
    """

    def __init__(self, number: int, *, message: str = "") -> None:
        super().__init__(message)
        self.number, self.message = number, message

    @property
    def code(self) -> int:
        """Exit code of the process, as shells give it."""
        return 128 + self.number


def command(*words: object) -> str:
    """A command of this program, to be copied into a shell.

    >>> command("resume", "runs/one")
    'python cli.py resume runs/one'
    """
    return f"python cli.py {shlex.join(map(str, words))}"


def user_message(error: BaseException) -> str | None:
    """What an error says to a user, found among its causes too, since libraries wrap what is raised in their hooks.

    Returns:
        The message; None when the error is nobody's mistake but ours.

    >>> user_message(OSError(28, "No space left on device"))
    'the disk is full (No space left on device): free some space; files written before are intact'
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            text = ValueError.__str__(cause)
            if "Original Traceback" not in text:
                return str(cause)
            # raised in a loader process, whose whole traceback became the message
            return str(UserError(text.rpartition(f"{type(cause).__name__}: ")[2]))
        if isinstance(cause, OSError) and cause.errno:
            where = f"'{cause.filename}': " if cause.filename else ""
            full = "the disk is full ({}): free some space; files written before are intact"
            return where + (full if cause.errno == errno.ENOSPC else "{}").format(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return None
