"""Requests that are turned down: `{"error": "one line", "detail": "the same"}`, with a status. Torch-free."""

import errno
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from clickvol.errors import (
    ArchiveError,
    CancelledError,
    ClickError,
    ClickvolError,
    ConfigError,
    DeviceError,
    OutputError,
    ScanTooLargeError,
    UnreadableVolumeError,
)
from clickvol.server.settings import ServerSettings
from clickvol.server.wire import ErrorOut

ModelT = TypeVar("ModelT", bound=BaseModel)

_ERROR_CONTENT = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorOut.__name__}"}}}

# Only one names the model, as FastAPI makes a validator of its own for each that does, of each route.
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorOut},
    **{
        status: {"content": _ERROR_CONTENT}
        for status in (401, 403, 404, 409, 410, 413, 415, 422, 429, 502, 503, 507)
    },
}
"""For the OpenAPI document: what any route may answer."""

NOT_ENOUGH_STORAGE = 507
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The first class that fits decides.
_STATUS_BY_CLASS: tuple[tuple[type[ClickvolError], int], ...] = (
    (CancelledError, 409),
    (ClickError, 422),
    (ScanTooLargeError, 413),
    (UnreadableVolumeError, 422),
    (ConfigError, 422),
    (DeviceError, 503),
    (ArchiveError, 502),
)

_ROUTING_MISTAKES = {
    404: "there is nothing here; see /openapi.json for what there is",
    405: "this cannot be done here; see /openapi.json for what can",
}


class RefusedError(ClickvolError):
    """A request that the server turns down with an HTTP status, one line, and when to try again."""

    def __init__(self, status: int, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


def error_body(message: str) -> dict[str, str]:
    """Return an error as every client finds it: ours under "error", those of other programs under "detail"."""
    return {"error": message, "detail": message}


def status_of(error: ClickvolError) -> int:
    """Return the HTTP status of an error that a user can fix."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, OutputError):
        # ITK says what the disk said as a RuntimeError.
        is_disk = isinstance(error.__cause__, OSError | RuntimeError)
        return NOT_ENOUGH_STORAGE if is_disk else 422
    return next((status for kind, status in _STATUS_BY_CLASS if isinstance(error, kind)), 422)


def storage_refusal(error: OSError) -> RefusedError:
    """Return what to say where the server's disk refuses; without the path, which is the server's own."""
    if error.errno in _NO_SPACE:
        msg = "the server's disk is full; nothing was changed; make room there and try again"
    else:
        reason = (error.strerror or "the file system refused").lower()
        msg = f"the server cannot write to its disk ({reason}); nothing was changed; tell its owner"
    return RefusedError(NOT_ENOUGH_STORAGE, msg)


def answer_errors(app: FastAPI, settings: ServerSettings) -> None:
    """Let an app answer errors in the one form, without the names of the server's own folders."""
    own = [rf"{re.escape(str(settings.state_folder))}/(open/[0-9a-f]+/)?"]
    own += [] if settings.root is None else [rf"{re.escape(str(settings.root))}/"]
    own_folders = re.compile("|".join(own))

    def answer(status: int, message: str, retry_after_seconds: int | None = None) -> JSONResponse:
        message = own_folders.sub("", message)
        headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
        return JSONResponse(error_body(" ".join(message.split())), status, headers)

    @app.exception_handler(ClickvolError)
    async def known(_: Request, error: ClickvolError) -> JSONResponse:
        retry_after = error.retry_after_seconds if isinstance(error, RefusedError) else None
        return answer(status_of(error), str(error), retry_after)

    @app.exception_handler(MemoryError)
    async def memory(_: Request, _error: MemoryError) -> JSONResponse:
        return answer(503, "the server has not enough memory for this; try a smaller scan", 60)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, _first_problem(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        detail = _ROUTING_MISTAKES.get(error.status_code, str(error.detail))
        response = answer(error.status_code, detail)
        response.headers.update(error.headers or {})
        return response


def parse_json(model: type[ModelT], body: bytes | str) -> ModelT:
    """Return a body that FastAPI does not parse, as it may be a form as well; RefusedError 422 if wrong."""
    try:
        known = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(422, "the request is no JSON; see /openapi.json for what is expected") from error
    return parse_values(model, known)


def parse_values(model: type[ModelT], values: object) -> ModelT:
    """Return values as a model; RefusedError 422 when they are not what is expected."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RefusedError(422, _first_problem(error.errors())) from error


def _first_problem(problems: Sequence[Mapping[str, Any]]) -> str:
    first = problems[0]
    place = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place or 'the request'}: {first.get('msg', 'not valid')}{more}; see /openapi.json"
