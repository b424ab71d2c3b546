"""Uploads are bounded while they arrive, not after they have filled the disk."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UploadLimit:
    """ASGI middleware: a request whose body is larger than allowed is refused with 413.

    Args:
        app: the application.
        max_bytes: of a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the bytes that come in; the length that the header claims is not trusted to be right."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"the upload is larger than {self.max_bytes / 2**20:g} MB")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)
