"""The parser of the training commands: a wrong option is one line."""

import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from commands.trainer.speed import precision_hint
from core.errors import UserError


class OneLineParser(LightningArgumentParser):
    """Reports a wrong option in one line, and takes no abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """See jsonargparse, which writes a ``null`` for an object inside an object as ``None`` when it goes deeper."""
        deeper = isinstance(args, list) and len(args) == 1 and args[0].endswith("=None")
        return super().parse_args([args[0].removesuffix("None") + "null"] if deeper else args, *rest, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the message as the user's error."""
        if "the following arguments are required" in message and re.search(r"\b(model|data)\b", message):
            raise UserError(
                "there is no model and data to work with: train with --config experiments/NAME.yaml; test, validate "
                "and predict find the configuration of --ckpt_path RUN, but not that of a checkpoint outside of its run"
            ) from ex
        if hint := precision_hint(message):
            raise UserError(hint) from ex
        raise UserError(f"{tidy(message)} (python cli.py COMMAND --help lists the options)") from ex


_LITERAL = re.compile(r"Expected a typing\.Literal\[(.*?)\]")
_CLASS = re.compile(r"Expected a <class '(\w+)'>")
_UNION = re.compile(r"(\S+): Does not validate against any of the Union subtypes .*?Errors: - (.*)")


def tidy(message: str) -> str:
    """Cuts jsonargparse's report of every alternative that it tried down to the one that was meant.

    >>> tidy('Parser key "model": Does not validate against any of the Union subtypes Subtypes: [...] Errors: '
    ...      "- Option 'lrr' is not accepted - Expected a <class 'NoneType'> Given value type: ...")
    "model: Option 'lrr' is not accepted"
    """
    message = re.sub(r'Parser key "([^"]+)":', r"\1:", " ".join(message.split()))
    message = message.replace("(python cli.py COMMAND --help lists the options)", "").strip()
    found = _UNION.match(message)
    if found:
        reasons = [reason for reason in found[2].split(" - ") if not reason.startswith("Expected a <class 'NoneType'>")]
        message = f"{found[1]}: {reasons[0] if reasons else found[2]}".strip()
    return _CLASS.sub(r"expected \1", _LITERAL.sub(r"expected one of \1", message))
