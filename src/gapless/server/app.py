"""The web service of one collection: a JSON API and a page.

    uvicorn.run(create_app(Searcher.open("collections/x")))

Queries are private: they come in the body of a request, never in its address, and are not logged. Uploads stay in
memory and are dropped after the answer. Images are looked up by the key of their row; no path or address from a request
is opened.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files as package_files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gapless import __version__
from gapless.core.errors import DataRefused, GaplessError, UsageError, did_you_mean
from gapless.images.pixels import ImageRefused
from gapless.pages.page import render_page
from gapless.search.collection import Collection, Condition, Hit
from gapless.search.overview import Overview
from gapless.search.searcher import Searcher, asked_with, weighted_mean
from gapless.server.batching import Batcher, TooBusy
from gapless.server.guard import LOCAL_HOSTS, Guard, refusal
from gapless.server.schemas import MAX_HITS, Answer, CutWords, Description, Failure, FoundRow, Health, Label, Query
from gapless.server.upload import MAX_QUERY, MAX_UPLOAD, decode_upload, read_upload

IMAGE_SEARCH = "/api/search/image"
UPLOADS_AT_ONCE = 32
DECODED_AT_ONCE = 2  # a large image takes hundreds of megabytes while it is decoded
NEAR_LABELS = 3  # shown beside the search box; further ones are folded, so that results fit on a phone
MAX_VALUES = 200  # of a label, in the description
STATIC = {
    "base.css": ("gapless.pages", "templates", "text/css"),
    "style.css": ("gapless.server", "static", "text/css"),
    "page.js": ("gapless.server", "static", "text/javascript"),
    "map.js": ("gapless.server", "static", "text/javascript"),
    "icon.svg": ("gapless.server", "static", "image/svg+xml"),
}
REFUSALS: dict[int | str, dict[str, Any]] = {400: {"model": Failure}, 413: {"model": Failure}, 429: {"model": Failure}}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "query": {"type": "string", "description": 'a Query as JSON, such as {"k": 5}'},
                    },
                }
            }
        },
    }
}


def create_app(searcher: Searcher, hosts: Iterable[str] = (), max_upload: int = MAX_UPLOAD) -> FastAPI:
    """The service.

    Args:
        searcher: the collection and its model, loaded once.
        hosts: further host names that browsers may call it by.
        max_upload: bytes of the largest image.
    """
    service = Service(searcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.batcher.close()

    app = FastAPI(
        title="gapless",
        version=__version__,
        description="Cross-modal search. For research use, not for diagnosis.",
        docs_url=None,  # FastAPI's own pages load scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.add_middleware(
        Guard,
        hosts=frozenset({*LOCAL_HOSTS, *(host.lower() for host in hosts)}),
        max_bodies={IMAGE_SEARCH: max_upload + MAX_QUERY},
    )
    add_refusals(app)
    add_page(app, service, max_upload)

    @app.get("/healthz")
    def healthz() -> Health:
        return Health(status="ok", rows=searcher.collection.count(), version=__version__)

    @app.get("/api/collection")
    def description() -> Description:
        return service.description()

    @app.post("/api/search", responses=REFUSALS)
    async def search(query: Query) -> Answer:
        return await service.answer(query, None)

    @app.post(IMAGE_SEARCH, responses=REFUSALS, openapi_extra=UPLOAD_BODY)
    async def search_with_image(request: Request) -> Answer:
        async with service.upload():
            content, query = await read_upload(request)
            asked = Query.model_validate_json(query)
            async with service.decoding:
                pixels = await run_in_threadpool(decode_upload, content)
        return await service.answer(asked, pixels)

    @app.get("/api/thumbnail", responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": Failure}})
    def thumbnail(row: str) -> Response:
        content = searcher.collection.thumbnail_of(row)
        if content is None:
            raise HTTPException(404, "this row has no picture")
        return Response(content, media_type="image/jpeg")

    @app.get("/api/map", responses={400: {"model": Failure}})
    def map_of_collection() -> dict[str, Any]:
        return service.overview.map()

    return app


class Service:
    """State that the routes share: the collection, the queue of its model, the map."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.collection: Collection = searcher.collection
        self.batcher = Batcher(searcher.encode)
        self.overview = Overview(searcher.collection)
        self.decoding = asyncio.Semaphore(DECODED_AT_ONCE)
        self._uploads = 0

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[None]:
        """Limits the number of uploads at a time, because each is held in memory."""
        if self._uploads >= UPLOADS_AT_ONCE:
            raise TooBusy("too many images are being uploaded; try again in a moment")
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    async def answer(self, query: Query, image: np.ndarray | None) -> Answer:
        start = time.perf_counter()
        query.check_inputs(image is not None)
        condition = self.collection.condition(query.modality, query.condition, query.labels)  # before the model works
        vector, asked = await self.vector(query, image)
        hits = await run_in_threadpool(self.hits, query, vector, asked, condition)
        cut = None if query.text is None else await run_in_threadpool(self.searcher.cut, query.text)
        elapsed = 1000 * (time.perf_counter() - start)
        return Answer(
            hits=[FoundRow.of(hit) for hit in hits],
            cut=None if cut is None else CutWords(tokens=cut.tokens, read=cut.read),
            milliseconds=round(elapsed, 2),
        )

    async def vector(self, query: Query, image: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        """[dim] unit norm, and what was asked with, modality -> its share; empty where that is not known."""
        if query.vector is not None:
            return unit_vector(query.vector), {}
        if query.like is not None:
            vector = await run_in_threadpool(self.collection.vector_of, query.like)
            if vector is None:
                raise HTTPException(404, "there is no such row in the collection")
            return vector, {query.like.rpartition("/")[2]: 1.0}
        parts = self.searcher.parts(query.text, image, query.image_weight)
        waiting = [asyncio.wrap_future(self.batcher.submit(part.modality, part.raw)) for part in parts]
        try:
            return weighted_mean(await asyncio.gather(*waiting), parts), asked_with(parts)
        except DataRefused as error:  # the query's data, not the collection's
            raise UsageError(str(error)) from None

    def hits(self, query: Query, vector: np.ndarray, asked: dict[str, float], condition: Condition) -> list[Hit]:
        """The nearest rows; for a query by row ("more like this") without that row."""
        hits = self.collection.search(
            vector,
            k=query.k + (query.like is not None),
            where=condition,
            words=query.text if query.hybrid else None,
            balanced=None if query.raw else asked,
        )
        return [hit for hit in hits if hit.row != query.like][: query.k]

    def fields_with_kinds(self) -> list[str]:
        """The fields that a filter can use, as the page lists them."""
        kinds = {column: self.collection.label_kind(name) for name, column in self.collection.info["labels"].items()}
        fields = self.collection.fields.items()
        return [f"{name} (numbers)" if kinds.get(column) == "number" else name for name, column in fields]

    def description(self) -> Description:
        info = self.collection.info
        kinds = {name: self.collection.label_kind(name) for name in info["labels"]}
        return Description(
            rows=self.collection.count(),
            modalities=info["modalities"],
            balanced=len(info["modalities"]) > 1 and self.collection.balance() is not None,
            labels={
                name: Label(values=values[:MAX_VALUES], num_values=len(values), kind=kinds[name])
                for name, values in self.collection.label_values().items()
            },
            queries=self.searcher.query_modalities,
            fields=list(self.collection.fields),
            embedding_dim=info["embedding_dim"],
            fingerprint=info["model"]["fingerprint"],
        )


def unit_vector(values: list[float]) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    largest = np.abs(vector).max(initial=0.0)
    if largest == 0:
        raise UsageError("a query vector has a length of 0, or no numbers")
    vector = vector / largest  # extreme numbers would overflow the norm
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def add_page(app: FastAPI, service: Service, max_upload: int) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        collection = service.description()
        return render_page(
            "gapless.server",
            "search.html",
            collection=collection,
            labels=[(name, label.model_dump()) for name, label in collection.labels.items() if label.values],
            near_labels=NEAR_LABELS,
            fields=service.fields_with_kinds(),
            name=service.collection.uri.rstrip("/").rpartition("/")[2],
            max_upload=max_upload,
            max_hits=MAX_HITS,
            version=__version__,
        )

    contents = {
        name: ((package_files(package) / folder / name).read_bytes(), media_type)
        for name, (package, folder, media_type) in STATIC.items()
    }

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in contents:
            raise HTTPException(404, "there is no such file")
        content, media_type = contents[name]
        return Response(content, media_type=media_type)


def sentence_of(error: Any) -> str:
    """pydantic's error about a query as one sentence."""
    parts = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return "the request is no JSON"
    if parts[:1] == ["labels"]:  # further parts name the branches of a union
        return f"{'.'.join(parts[:2])[:100]}: a label and its value are text, or the value a number"
    field = ".".join(parts)[:100]
    if error["type"] == "extra_forbidden":
        meant = did_you_mean(field, Query.model_fields)
        return f"{field}: no field of a query (it takes {', '.join(Query.model_fields)}){meant}"
    if error["type"] == "string_unicode":
        return f"{field}: it holds half of a surrogate pair, which is no character"
    return f"{field or 'the request'}: {error['msg']}"


def add_refusals(app: FastAPI) -> None:
    """Every refusal is JSON with one sentence."""

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = refusal(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def of_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError | ValidationError)
        return refusal(400, sentence_of(error.errors()[0]))

    @app.exception_handler(GaplessError)
    async def of_gapless(_: Request, error: Exception) -> Response:
        status = 429 if isinstance(error, TooBusy) else 400
        if isinstance(error, DataRefused) and not isinstance(error, ImageRefused):
            status = 503  # the collection is damaged or out of reach
        return refusal(status, str(error))
