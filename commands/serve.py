"""``serve --ckpt RUN``: trained models behind an HTTP API that answers in JSON, batch by batch.

``POST /v1/caption`` and ``/v1/label`` take an image as a form field, ``/openapi.json`` is the schema, ``/health`` and
``/metrics`` are for those who watch over it.
"""

from collections.abc import Sequence

from commands.arguments import Parser
from commands.serving.server import run_server, server_parser


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    return server_parser("cli.py serve", __doc__.split("\n\n")[0] if __doc__ else None, 8000)


def main(args: Sequence[str]) -> int:
    """Serves the models until it is stopped.

    Raises:
        UserError: see `run_server`.
    """
    return run_server(build_parser(), args, page=False)
