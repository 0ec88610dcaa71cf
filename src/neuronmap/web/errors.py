"""Errors over HTTP: the one place where an error becomes a status, one JSON shape, one page."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from neuronmap import errors
from neuronmap.errors import WebError

__all__ = ["Problem", "ProblemDocument", "WebError", "install_handlers", "problem_response", "responses"]

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
    log = structlog.get_logger("neuronmap.web")

    @app.exception_handler(errors.NeuronMapError)
    async def known(request: Request, error: errors.NeuronMapError) -> Response:
        status = status_of(error)
        number = secrets.token_hex(4) if status == 500 else ""
        if number:
            log.error("fault", id=number, path=request.url.path, code=error.code, message=error.message)
        problem = Problem(
            code=error.code, message=_public(error.message), hint=_public(error.hint), status=status, id=number
        )
        return problem_response(request, problem, getattr(error, "headers", None))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        fields = [
            {"field": ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0]), "message": fault["msg"]}
            for fault in error.errors()
        ]
        said = "; ".join(f"{fault['field']}: {fault['message']}" for fault in fields[:5])
        problem = Problem(
            code="invalid_request", message=f"The request does not fit: {said}.", status=422, fields=fields
        )
        return problem_response(request, problem)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        code, message = _PHRASES.get(error.status_code, ("error", str(error.detail)))
        problem = Problem(code=code, message=message, status=error.status_code)
        return problem_response(request, problem, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        number = secrets.token_hex(4)
        log.error("fault", id=number, path=request.url.path, exc_info=error)
        problem = Problem(
            code="internal",
            message="The server failed on this request.",
            hint=f"Its log has the details under {number}.",
            status=500,
            id=number,
        )
        return problem_response(request, problem)


def _public(text: str) -> str:
    """A message without the home folder's path: others may read it."""
    from neuronmap import paths

    return text.replace(str(paths.home()), "<home>")
