"""The web application: a JSON API, its schema, health and metrics, and the page of ``demo``."""

import itertools
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware

from commands.serving.batching import Batcher, BusyError
from commands.serving.limits import UploadLimit
from commands.serving.messages import CaptionAnswer, Health, LabelAnswer, ModelFacts, Problem
from commands.serving.meters import Meters
from commands.serving.models import Answer, Decoding, Input, Labelling, Models
from core.errors import DataError, UserError
from datamodules.readers.images import WAYS_OUT, open_image
from lightning_modules import LoadedCaptioner
from networks.generation.settings import DecodingSettings
from reporting.page import render_demo

_MOST = 32
"""Beams and captions that one request may ask for."""
_LONGEST_TEXT = 10_000
_DECODED_AT_ONCE = 4
"""Images that are decoded at the same time: each may be as large as the pixel limit."""
_SECURITY = {
    # the page is one file: it loads nothing, and only shows images that it holds or was given
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server accepts.

    Attributes:
        max_upload: bytes of a request.
        max_batch: images of a batch.
        max_wait: seconds that a request waits for others to share its batch.
        max_waiting: requests that may wait.
        hosts: names under which the server answers, against pages of others that point their name to this machine;
            "*" is any.
    """

    max_upload: int = 20 << 20
    max_batch: int = 16
    max_wait: float = 0.01
    max_waiting: int = 256
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")


class Choices:
    """How captions are to be decoded, as fields of a form."""

    def __init__(
        self,
        *,
        beams: Annotated[int | None, Form(ge=1, le=_MOST, description="null: as the run's configuration says")] = None,
        num_captions: Annotated[int, Form(ge=1, le=_MOST)] = 1,
        sample: Annotated[bool, Form(description="sample instead of searching")] = False,
        top_p: Annotated[float, Form(gt=0, le=1, description="with sample")] = 0.9,
        temperature: Annotated[float, Form(gt=0, le=10, description="with sample")] = 1.0,
        seed: Annotated[int, Form(ge=0, lt=2**63, description="with sample")] = 0,
        attention: Annotated[bool, Form(description="return the attention at each word of the best caption")] = False,
        emotion: Annotated[
            str | None, Form(max_length=_LONGEST_TEXT, description="see `emotions` of the model")
        ] = None,
    ) -> None:
        self._choose = partial(
            LoadedCaptioner.decoding,
            beams=beams,
            num_captions=num_captions,
            sample=sample,
            top_p=top_p,
            temperature=temperature,
        )
        self.seed = seed if sample else None
        self.attention = attention
        self.emotion = emotion or None

    def settings(self, captioner: LoadedCaptioner) -> DecodingSettings:
        """The settings of a captioner with these choices over them.

        Raises:
            UserError: two values contradict each other.
        """
        return self._choose(captioner)


class Service:
    """Answers requests with models, batch by batch.

    Args:
        models: what is served.
        limits: what is accepted.
    """

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits, self.meters = models, limits, Meters()
        self.batcher: Batcher[Input, Answer] = Batcher(
            models.answer,
            max_batch=limits.max_batch,
            max_wait=limits.max_wait,
            max_waiting=limits.max_waiting,
            observe=self.meters.batch,
        )
        self.meters.watch_queue(lambda: self.batcher.waiting)
        self._numbers = itertools.count()
        self._decoders = threading.BoundedSemaphore(_DECODED_AT_ONCE)

    def caption(self, image: UploadFile, model: str | None, choices: Choices) -> CaptionAnswer:
        """Captions one uploaded image.

        Raises:
            UserError: no such captioner, not an image, or a wrong setting.
        """
        name, captioner = self.models.captioner(model)
        if choices.attention and not captioner.module.captioner.attends:
            raise UserError(f"'{name}' has no attention to show: its method is {captioner.module.method}")
        if choices.emotion is not None:
            captioner.module.label_number(choices.emotion)
        alone = None if choices.seed is None else next(self._numbers)
        key = Decoding(
            model=name,
            settings=choices.settings(captioner),
            attention=choices.attention,
            emotion=choices.emotion,
            seed=choices.seed,
            alone=alone,
        )
        answer = self.batcher.submit(key, Input(image=self._decode(image, captioner.transform.min_side)))
        assert isinstance(answer, CaptionAnswer)
        return answer

    def label(self, image: UploadFile | None, text: str | None, model: str | None) -> LabelAnswer:
        """Labels one uploaded image, a caption, or both, as the model needs.

        Raises:
            UserError: no such classifier, not an image, or an input is missing.
        """
        name, classifier = self.models.classifier(model)
        if classifier.reads_images and image is None:
            raise UserError(f"'{name}' reads images: send one as the field 'image'")
        if classifier.reads_text and not text:
            raise UserError(f"'{name}' reads captions: send one as the field 'text'")
        wanted = image if classifier.reads_images else None
        opened = None if wanted is None else self._decode(wanted, classifier.transform.min_side)
        answer = self.batcher.submit(Labelling(name), Input(image=opened, text=text))
        assert isinstance(answer, LabelAnswer)
        return answer

    def _decode(self, upload: UploadFile, min_side: int) -> Image.Image:
        with self._decoders:
            try:
                return open_image(upload.file, name="the upload", min_side=min_side)
            except DataError as error:
                raise UserError(str(error).removesuffix(f"; {WAYS_OUT}")) from error


def build_app(models: Models, limits: Limits | None = None, *, page: bool = False) -> FastAPI:
    """The application.

    Args:
        models: what is served.
        limits: what is accepted.
        page: show the page of ``demo`` at ``/``.
    """
    limits = limits or Limits()
    service = Service(models, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        del app
        yield
        service.batcher.close()

    # the interactive documentation of FastAPI would be loaded from other machines
    app = FastAPI(title="Captioners", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(UploadLimit, max_bytes=limits.max_upload)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(limits.hosts))
    _add_errors(app)
    _add_watching(app, service)
    _add_api(app, service)
    _add_state(app, service)
    if page:
        _add_page(app, service)
    return app


def _add_errors(app: FastAPI) -> None:
    """A mistake of the user is one line; what goes wrong inside is not told."""

    @app.exception_handler(UserError)
    def refuse(request: Request, error: UserError) -> JSONResponse:
        del request
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(BusyError)
    def busy(request: Request, error: BusyError) -> JSONResponse:
        del request
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


def _add_watching(app: FastAPI, service: Service) -> None:
    """Counts and times requests, and sets the headers of every answer."""

    @app.middleware("http")
    async def watch(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        with service.meters.request(request) as seen:
            response = await answer(request)
            seen.status = response.status_code
        response.headers.update(_SECURITY)
        return response


def _add_api(app: FastAPI, service: Service) -> None:
    refused: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": text}
        for code, text in ((413, "the upload is too large"), (422, "a wrong value"), (503, "too many requests wait"))
    }

    # plain functions: FastAPI runs them in threads, where they may wait
    @app.post("/v1/caption", responses=refused)
    def caption(
        image: Annotated[UploadFile, File(description="JPEG, PNG or another format of Pillow")],
        choices: Annotated[Choices, Depends()],
        model: Annotated[str | None, Form(description="null: the first captioner")] = None,
    ) -> CaptionAnswer:
        """Captions an image."""
        return service.caption(image, model, choices)

    @app.post("/v1/label", responses=refused)
    def label(
        image: Annotated[UploadFile | None, File(description="null for a model that reads only captions")] = None,
        text: Annotated[
            str | None, Form(max_length=_LONGEST_TEXT, description="caption, for a model that reads one")
        ] = None,
        model: Annotated[str | None, Form(description="null: the first classifier")] = None,
    ) -> LabelAnswer:
        """Labels an image, a caption, or both, as the model needs."""
        return service.label(image, text, model)

    @app.get("/v1/models")
    def models() -> list[ModelFacts]:
        """The models that are served."""
        return service.models.facts()


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    def health() -> Health:
        """Answers when the server can."""
        if not service.batcher.alive:
            raise HTTPException(503, "the thread of the model has ended")
        return Health(status="ok", models=list(service.models.loaded))

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Counts and times in the text format of Prometheus."""
        return Response(service.meters.text(), media_type=service.meters.media_type)


def _add_page(app: FastAPI, service: Service) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> HTMLResponse:
        facts = [one.model_dump() for one in service.models.facts()]
        return HTMLResponse(render_demo(facts, max_upload=service.limits.max_upload, most=_MOST))

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(status_code=204)
