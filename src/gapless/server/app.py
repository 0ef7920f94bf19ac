"""The web service of one collection: a JSON API and a page.

    uvicorn.run(create_app(Searcher.open("collections/x")))

Queries are private: they come in the body of a request, never in its address, and are not logged. Uploads stay in
memory and are dropped after the answer. Pictures are looked up by the key of their row; no path or address from a
request is opened.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files as package_files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from gapless import __version__
from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.base import FILES
from gapless.pages.page import render_page
from gapless.search.collection import Collection, Condition, Hit
from gapless.search.overview import Overview
from gapless.search.searcher import Part, Searcher, asked_with, weighted_mean
from gapless.server.batching import Batcher, TooBusy
from gapless.server.describe import description_of, fields_with_kinds, script_facts
from gapless.server.guard import LOCAL_HOSTS, Guard
from gapless.server.inputs import named_refusal, prepared_input, request_source
from gapless.server.prometheus import Figures, add_metrics
from gapless.server.refusals import REFUSALS, add_refusals
from gapless.server.schemas import Answer, Case, CutWords, Description, Failure, FoundRow, Health, Query
from gapless.server.selected import add_selection
from gapless.server.upload import MAX_QUERY, MAX_UPLOAD, Upload, read_upload
from gapless.server.words import dictionaries, dictionaries_script, named, said, text_of

UPLOAD_SEARCH, IMAGE_SEARCH = "/api/search/upload", "/api/search/image"  # the second is the older name of the first
UPLOADS_AT_ONCE = 32
DECODED_AT_ONCE = 2  # a large file takes hundreds of megabytes while it is decoded
NEAR_LABELS = 3  # shown beside the search box; further ones are folded, so that results fit on a phone
SCRIPTS = (  # in this order
    "common.js",
    "dictionaries.js",
    "words.js",
    "theme.js",
    "selection.js",
    "cards.js",
    "case.js",
    "parts.js",
    "address.js",
    "page.js",
    "keys.js",
    "map.js",
    "lasso.js",
)
STATIC = {
    "base.css": ("gapless.pages", "templates", "text/css"),
    "style.css": ("gapless.server", "static", "text/css"),
    **dict.fromkeys(
        (name for name in SCRIPTS if name != "dictionaries.js"), ("gapless.server", "static", "text/javascript")
    ),
    "icon.svg": ("gapless.server", "static", "image/svg+xml"),
}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "a file for each modality, in a part that is named as it, such as image or ecg; "
                    "several parts of the name of a volume are the slices of a series",
                    "properties": {
                        "query": {"type": "string", "description": 'a Query as JSON, such as {"k": 5}'},
                    },
                    "additionalProperties": {"type": "string", "format": "binary"},
                    "minProperties": 1,
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
        max_upload: bytes of the files of a query, all together.
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
        max_bodies=dict.fromkeys((UPLOAD_SEARCH, IMAGE_SEARCH), max_upload + MAX_QUERY),
    )
    add_metrics(app, service.figures, service.collection, service.batcher)  # the guard's refusals count, so after it
    add_refusals(app)
    add_page(app, service, max_upload)

    @app.get("/healthz")
    def healthz() -> Health:
        return Health(status="ok", rows=searcher.collection.count(), version=__version__)

    @app.get("/api/collection")
    def description() -> Description:
        return description_of(searcher)

    @app.post("/api/search", responses=REFUSALS)
    async def search(query: Query) -> Answer:
        return await service.answer(query, {})

    @app.post(UPLOAD_SEARCH, responses=REFUSALS, openapi_extra=UPLOAD_BODY)
    @app.post(IMAGE_SEARCH, responses=REFUSALS, openapi_extra=UPLOAD_BODY)
    async def search_with_files(request: Request) -> Answer:
        async with service.upload():
            files, query = await read_upload(request)
            return await service.answer(Query.model_validate_json(query), files)

    @app.get("/api/case", responses={404: {"model": Failure}})
    def case(id: str) -> Case:
        return service.case(id)

    @app.get("/api/thumbnail", responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": Failure}})
    def thumbnail(row: str) -> Response:
        content = searcher.collection.thumbnail_of(row)
        if content is None:
            raise HTTPException(404, "this row has no picture")
        return Response(content, media_type="image/jpeg")

    @app.get("/api/map", responses={400: {"model": Failure}})
    def map_of_collection() -> dict[str, Any]:
        return service.overview.map()

    add_selection(app, searcher, service.overview)
    return app


class Service:
    """State that the routes share: the collection, the queue of its model, the map."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.collection: Collection = searcher.collection
        self.batcher = Batcher(searcher.encode_prepared)
        self.overview = Overview(searcher.collection)
        self.figures = Figures()
        self.decoding = asyncio.Semaphore(DECODED_AT_ONCE)
        self._uploads = 0

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[None]:
        """Limits the number of uploads at a time, because each is held in memory."""
        if self._uploads >= UPLOADS_AT_ONCE:
            raise TooBusy("too many files are being uploaded; try again in a moment")
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    async def answer(self, query: Query, files: Mapping[str, Upload]) -> Answer:
        start = time.perf_counter()
        query.check_inputs(bool(files))
        condition = self.collection.condition(query.modality, query.condition, query.labels)  # before the model works
        given = self.sources(query, files)
        words = self.searcher.hybrid_words(query.text, given) if query.hybrid else None
        parts = self.parts(query, given)
        vector, asked = await self.vector(query, parts)
        hits, cut = await run_in_threadpool(
            lambda: (self.hits(query, vector, asked, condition, words), self.searcher.cut_of(parts))
        )
        elapsed = 1000 * (time.perf_counter() - start)
        self.figures.answered(query.asks_by(bool(files)))
        return Answer(
            hits=[FoundRow.of(hit) for hit in hits],
            cut=None if cut is None else CutWords(tokens=cut.tokens, read=cut.read),
            milliseconds=round(elapsed, 2),
        )

    async def vector(self, query: Query, parts: Sequence[Part]) -> tuple[np.ndarray, dict[str, float]]:
        """[dim] unit norm, and what was asked with, modality -> its share; empty where that is not known."""
        if query.vector is not None:
            return unit_vector(query.vector), {}
        if query.like is not None:
            vector = await run_in_threadpool(self.collection.vector_of, query.like)
            if vector is None:
                raise HTTPException(404, "there is no such row in the collection")
            return vector, {query.like.rpartition("/")[2]: 1.0}
        rows = await asyncio.gather(*(self.encoded(part, len(parts)) for part in parts))
        return weighted_mean(rows, parts), asked_with(parts)

    def sources(self, query: Query, files: Mapping[str, Upload]) -> dict[str, Any]:
        """Modality -> what the parts and files of a request give for it.

        Raises:
            UsageError: a modality that is given twice, or a source that its kind does not take from a request.
        """
        if twice := sorted(set(query.parts) & set(files)):
            raise UsageError(f"{twice[0]} is given twice, as a file and among the parts")
        model = self.searcher.model
        return {
            name: request_source(name, model.preprocessor(name), value) if name in model.modalities else value
            for name, value in {**query.parts, **files}.items()
        }

    def parts(self, query: Query, given: Mapping[str, Any]) -> list[Part]:
        """The parts of a query, each checked by its kind; nothing is decoded yet. None for `vector` and `like`.

        Args:
            given: what `sources` gives.

        Raises:
            UsageError: an unknown modality, one that is given twice, or a source that its kind does not take.
        """
        if query.vector is not None or query.like is not None:
            return []
        others = {name: value for name, value in given.items() if name != "image"}
        weights = query.weights or None
        image, share = given.get("image"), query.image_weight
        return self.searcher.parts_of(query.text, image, share, query=others, weights=weights)

    async def encoded(self, part: Part, count: int) -> np.ndarray:
        """[dim] of one of `count` parts."""
        kind = self.searcher.model.preprocessor(part.modality)
        try:
            if kind.manifest_form == FILES:
                async with self.decoding:  # the queue then holds prepared inputs, which are small
                    prepared = await run_in_threadpool(prepared_input, kind, part.raw)
            else:
                prepared = prepared_input(kind, part.raw)
            return await asyncio.wrap_future(self.batcher.submit(part.modality, prepared))
        except DataRefused as error:  # the query's data, not the collection's
            raise UsageError(str(error)) from None
        except UsageError as error:
            raise named_refusal(part.modality, error, count) from None

    def hits(
        self, query: Query, vector: np.ndarray, asked: dict[str, float], condition: Condition, words: str | None
    ) -> list[Hit]:
        """The nearest rows; for a query by row ("more like this") without that row.

        Args:
            words: those of a hybrid search, None for any other.
        """
        hits = self.collection.search(
            vector,
            k=query.k + (query.like is not None),
            where=condition,
            words=words,
            balanced=None if query.raw else asked,
        )
        return [hit for hit in hits if hit.row != query.like][: query.k]

    def case(self, sample: str) -> Case:
        """All rows of a sample.

        Raises:
            HTTPException: 404 no such sample.
        """
        rows = self.collection.rows_of(sample)
        if not rows:
            raise HTTPException(404, "there is no such case in the collection")
        present = {row.modality for row in rows}
        absent = [name for name in self.collection.info["modalities"] if name not in present]
        return Case(id=sample, rows=[FoundRow.of(row) for row in rows], absent=absent)


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
        collection = description_of(service.searcher)
        return render_page(
            "gapless.server",
            "search.html",
            collection=collection,
            labels=[(name, label.model_dump()) for name, label in collection.labels.items() if label.values],
            near_labels=NEAR_LABELS,
            fields=fields_with_kinds(service.collection),
            name=service.collection.uri.rstrip("/").rpartition("/")[2],
            script=script_facts(collection, max_upload),
            scripts=SCRIPTS,
            languages=dictionaries(),
            say=said,
            named=named,
            text=lambda key, **values: text_of(key, values),
            version=__version__,
        )

    contents = {
        name: ((package_files(package) / folder / name).read_bytes(), media_type)
        for name, (package, folder, media_type) in STATIC.items()
    }
    contents["dictionaries.js"] = (dictionaries_script(), "text/javascript")

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in contents:
            raise HTTPException(404, "there is no such file")
        content, media_type = contents[name]
        return Response(content, media_type=media_type)
