"""Errors over HTTP: the one place where an error becomes a status, one JSON shape, one page.

FastAPI is imported only where a request's fields are at fault: the first page is answered before it is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from neuronmap import errors
from neuronmap.errors import WebError
from neuronmap.web.logs import logger

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError

__all__ = [
    "HANDLERS",
    "Problem",
    "ProblemDocument",
    "WebError",
    "faults_inside",
    "field_fault",
    "install_handlers",
    "invalid_problem",
    "problem_response",
    "responses",
    "status_of",
]

STATUS: dict[type[errors.NeuronMapError], int] = {
    errors.NeuronMapError: 500,
    errors.ConfigError: 422,
    errors.InputError: 422,
    errors.CorpusNotFoundError: 422,
    errors.ModelError: 422,
    errors.ModelNotFoundError: 422,
    errors.ModelOfflineError: 503,
    errors.ModelGatedError: 503,
    errors.ResourceError: 507,
    errors.MemoryExhaustedError: 503,
    errors.DamagedError: 409,
    errors.MismatchError: 409,
    errors.NotInLibraryError: 404,
    errors.ZooError: 422,
    errors.NotInZooError: 404,
    errors.UnauthorizedError: 401,
    errors.ForbiddenError: 403,
    errors.QuotaError: 507,
    errors.TooOftenError: 429,
    errors.UploadError: 409,
    errors.ZooOfflineError: 503,
    errors.EndpointError: 502,
    errors.JobNotFoundError: 404,
    errors.AlreadyExistsError: 409,
    errors.TrainingDivergedError: 500,
    errors.PluginError: 500,
    errors.MissingDependencyError: 501,
    errors.Interrupted: 503,
    errors.WebError: 500,
}


class Problem(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable word for the kind of error; see the reference of errors.")
    message: str = Field(description="What happened, the value received, what is allowed.")
    hint: str = Field(default="", description="The next step; empty if there is none.")
    status: int = Field(description="The HTTP status.")
    id: str = Field(default="", description="Number of the report in the server's log; only for faults of the server.")
    fields: list[dict[str, str]] = Field(default_factory=list, description="Faults by field of the request.")


class ProblemDocument(BaseModel):
    """The shape of every error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "not_in_library",
                        "message": "There is no SAE 'dmeo'.",
                        "hint": "Did you mean demo?",
                        "status": 404,
                        "id": "",
                        "fields": [],
                    }
                }
            ]
        }
    )

    error: Problem


_PHRASES = {
    400: ("bad_request", "The request cannot be read."),
    401: ("unauthorized", "This server needs a token."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is no page at this address."),
    405: ("method_not_allowed", "This address does not take that method."),
    413: ("too_large", "The request is too large."),
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: these statuses carry a :class:`ProblemDocument`.

    Named by reference: a model for each status of each route would be compiled before the first page is answered.
    """
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


def status_of(error: errors.NeuronMapError) -> int:
    """The status of the nearest class in the tree."""
    if isinstance(error, WebError):
        return error.status
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def wants_page(request: Request) -> bool:
    """Whether a person is looking: not the API, not a ``.json``, and HTML is accepted."""
    path = request.scope["path"]
    data = path.startswith("/api/") or path.endswith((".json", ".csv", ".jsonl"))
    return not data and "text/html" in request.headers.get("accept", "")


def problem_response(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The error as page or as JSON."""
    if wants_page(request):
        from neuronmap.web.rendering import render

        return render(request, "error.html", {"problem": problem}, status=problem.status, headers=headers)
    return JSONResponse(ProblemDocument(error=problem).model_dump(), problem.status, headers=headers)


def install_handlers(app: FastAPI) -> None:
    """Answer every error in our shape; what is no error of ours is logged with a number and never shown."""
    from fastapi.exceptions import RequestValidationError

    for kind, handler in {**HANDLERS, RequestValidationError: _invalid}.items():
        app.add_exception_handler(kind, handler)


async def _known(request: Request, error: errors.NeuronMapError) -> Response:
    status = status_of(error)
    number = secrets.token_hex(4) if status == 500 else ""
    if number:
        logger().error("fault", id=number, path=request.url.path, code=error.code, message=error.message)
    problem = Problem(
        code=error.code, message=_public(error.message), hint=_public(error.hint), status=status, id=number
    )
    return problem_response(request, problem, getattr(error, "headers", None))


async def _plain(request: Request, error: HTTPException) -> Response:
    code, message = _PHRASES.get(error.status_code, ("error", str(error.detail)))
    if error.status_code == 413:  # says how much is allowed
        message = str(error.detail)
    problem = Problem(code=code, message=message, status=error.status_code)
    return problem_response(request, problem, dict(error.headers or {}))


async def _unknown(request: Request, error: Exception) -> Response:
    number = secrets.token_hex(4)
    logger().error("fault", id=number, path=request.url.path, exc_info=error)
    problem = Problem(
        code="internal",
        message="The server failed on this request.",
        hint=f"Its log has the details under {number}.",
        status=500,
        id=number,
    )
    return problem_response(request, problem)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return problem_response(request, invalid_problem(error))


HANDLERS: dict[Any, Any] = {errors.NeuronMapError: _known, HTTPException: _plain, Exception: _unknown}
"""What answers an error, by its class."""


def invalid_problem(error: RequestValidationError) -> Problem:
    """What is wrong with a request, with every fault's field."""
    faults = _faults(error.errors())
    said = "; ".join(f"{field}: {message}" for field, message, _ in faults[:5])
    return Problem(
        code="invalid_request",
        message=_public(f"The request does not fit: {said.removesuffix('.')}."),
        hint=_public(" ".join(dict.fromkeys(hint for *_, hint in faults[:5] if hint))),
        status=422,
        fields=[{"field": field, "message": message} for field, message, _ in faults],
    )


def field_fault(*place: str | int, message: str, hint: str = "") -> RequestValidationError:
    """A fault of one field that only the route itself can see, answered as those that its types see: 422, with the field.

    Args:
        place: where the field stands: "body" or "query", then its path.
        message: what is wrong, and what is allowed.
        hint: the next step.
    """
    from fastapi.exceptions import RequestValidationError

    return RequestValidationError([{"loc": place, "msg": message, "type": "value_error", "ctx": {"hint": hint}}])


@contextmanager
def faults_inside(*place: str | int) -> Iterator[None]:
    """Around a check of settings that stand somewhere in a request: its faults are answered with their fields.

    Args:
        place: where the settings stand, such as "body", "settings".

    Raises:
        RequestValidationError: for a :class:`ConfigError` that was made of faults by field; any other goes on as it is.
    """
    from fastapi.exceptions import RequestValidationError

    try:
        yield
    except errors.ConfigError as error:
        if not isinstance(error.__context__, ValidationError):
            raise
        raise RequestValidationError(
            [{"loc": place, "msg": error.message, "type": "value_error", "ctx": {"error": error}}]
        ) from error


def _faults(found: Sequence[Any]) -> list[tuple[str, str, str]]:
    """Field, message and hint of each fault. That a list is too short for its faulty items left out is not said."""
    faults = list(_with_places(found))
    inner = [place for place, *_ in faults]
    return [
        (".".join(str(part) for part in place[1:]) or str(place[0]), message, hint)
        for place, message, hint in faults
        if not any(len(other) > len(place) and other[: len(place)] == place for other in inner)
    ]


def _with_places(
    faults: Sequence[Any], inside: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Each fault with its place in the request.

    A frozen configuration turns pydantic's report into one sentence; the places are in the report that it was made from.
    """
    for fault in faults:
        place, context = (*inside, *fault["loc"]), fault.get("ctx") or {}
        cause = context.get("error")
        report = cause.__context__ if isinstance(cause, errors.ConfigError) else None
        if isinstance(report, ValidationError):
            yield from _with_places(report.errors(), place)
        elif isinstance(cause, errors.ConfigError):
            yield place, cause.message, cause.hint
        else:
            yield place, fault["msg"].removeprefix("Value error, "), str(context.get("hint", ""))


def _public(text: str) -> str:
    """A message without the home folder's path: others may read it."""
    from neuronmap import paths

    return text.replace(str(paths.home()), "<home>")
