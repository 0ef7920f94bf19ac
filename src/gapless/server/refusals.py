"""Every refusal is JSON with one sentence, whichever part of the service refuses."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from gapless.core.errors import DataRefused, GaplessError, did_you_mean
from gapless.server.batching import TooBusy
from gapless.server.guard import refusal
from gapless.server.schemas import Failure, Query

REFUSALS: dict[int | str, dict[str, Any]] = {400: {"model": Failure}, 413: {"model": Failure}, 429: {"model": Failure}}


def sentence_of(error: Any) -> str:
    """pydantic's error about a query as one sentence."""
    parts = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return "the request is no JSON"
    if parts[:1] == ["labels"]:  # further parts name the branches of a union
        return f"{'.'.join(parts[:2])[:100]}: a label and its value are text, or the value a number"
    field = ".".join(parts)[:100]
    if parts[:1] == ["parts"]:
        return f"{'.'.join(parts[:2])[:100]}: a part is a text, an object of fields, or lists of finite numbers"
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
        if isinstance(error, DataRefused):
            status = 503  # the collection is damaged or out of reach
        return refusal(status, str(error))
