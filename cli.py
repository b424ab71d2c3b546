"""Command line of the project: ``python cli.py COMMAND ...``. Nothing heavy is imported before it is needed."""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from commands.names import COMMANDS, TRAINER_COMMANDS
from core.processes import end_with
from core.text import say


def usage() -> str:
    """Lists the commands, one line each."""
    lines = [f"  {name:<10}{text}" for name, text in {**TRAINER_COMMANDS, **COMMANDS}.items()]
    return "\n".join(
        ["usage: python cli.py COMMAND [options]", "", *lines, "", "python cli.py COMMAND --help shows its options."]
    )


def run(args: Sequence[str]) -> int:
    """Finds the command and runs it; returns its exit code."""
    if not args or args[0] in ("-h", "--help", "help"):
        say(*usage().splitlines())
        return 0
    command, rest = args[0], list(args[1:])
    if command.startswith("-"):
        return fail(f"'{command}' stands before the command; options follow it: python cli.py fit {command} ...")
    if command in TRAINER_COMMANDS:
        return int(load("commands.trainer.train").main([command, *rest]))
    if command in COMMANDS:
        return int(load(f"commands.{command}").main(rest))
    close = difflib.get_close_matches(command, [*TRAINER_COMMANDS, *COMMANDS], 1)
    hint = f"did you mean '{close[0]}'?" if close else "python cli.py --help lists them"
    return fail(f"there is no command '{command}': {hint}")


def load(name: str) -> ModuleType:
    """Imports the module of a command."""
    from core.collection import lasting

    with lasting():
        return importlib.import_module(name)


def fail(message: str, code: int = 1) -> int:
    """Prints an error in one line and returns the exit code."""
    say("error: " + re.sub(r"\s*\n\s*", " ", message.strip()), err=True)
    return code


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; a user's mistake gives one line and an exit code that is not 0.

    Set CAPTION_DEBUG=1 to see the traceback behind an error.
    """
    # OpenMP threads spin while they wait: on busy cores that makes a step over ten times slower, and sleeping at once
    # makes one on idle cores half as slow again. A short spin costs neither; read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from core.errors import Interrupted, user_message
    from core.startup import defer

    defer()

    try:
        return run(sys.argv[1:] if args is None else args)
    except Interrupted as stop:
        say(stop.message, err=True)
        return stop.code
    except KeyboardInterrupt as stop:
        return fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:  # the reader, such as "head", has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # for the flush at exit
        return 141
    except Exception as error:
        message = user_message(error)
        if message is None or os.environ.get("CAPTION_DEBUG"):
            raise
        return fail(message)


if __name__ == "__main__":
    end_with(main)
