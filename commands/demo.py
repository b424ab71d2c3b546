"""``demo --ckpt RUN``: a local page on which trained models caption and label images, side by side.

Drop an image: every model answers, with several captions, sampling, and the attention at each word where there is one.
The page also has the HTTP API of ``serve``.
"""

from collections.abc import Sequence

from commands.arguments import Parser
from commands.serving.server import run_server, server_parser


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    return server_parser("cli.py demo", __doc__.split("\n\n")[0] if __doc__ else None, 7860)


def main(args: Sequence[str]) -> int:
    """Shows the page until it is stopped.

    Raises:
        UserError: see `run_server`.
    """
    return run_server(build_parser(), args, page=True)
