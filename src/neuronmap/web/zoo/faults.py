"""Errors of the zoo over HTTP that say more than others: where an upload goes on, every fault of a manifest."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from sqlalchemy.exc import OperationalError

from neuronmap import errors
from neuronmap.web.errors import Problem, problem_response, status_of

__all__ = ["UploadProblem", "install_zoo_handlers"]

_MOST_FAULTS = 200


class UploadProblem(Problem):
    """A piece that does not continue an upload."""

    received: int = Field(description="Bytes that are here: go on from there.")


def install_zoo_handlers(app: FastAPI) -> None:
    """Add them to an application that answers errors in our shape already."""

    @app.exception_handler(errors.UploadError)
    async def upload(request: Request, error: errors.UploadError) -> Response:
        del request
        problem = UploadProblem(
            code=error.code, message=error.message, hint=error.hint, status=status_of(error), received=error.received
        )
        return JSONResponse({"error": problem.model_dump()}, problem.status)

    @app.exception_handler(errors.InvalidManifestError)
    async def manifest(request: Request, error: errors.InvalidManifestError) -> Response:
        fields = [{"field": place, "message": message} for place, message in error.faults[:_MOST_FAULTS]]
        problem = Problem(
            code=error.code, message=error.message, hint=error.hint, status=status_of(error), fields=fields
        )
        return problem_response(request, problem)

    @app.exception_handler(errors.UnauthorizedError)
    async def unknown(request: Request, error: errors.UnauthorizedError) -> Response:
        problem = Problem(code=error.code, message=error.message, hint=error.hint, status=status_of(error))
        return problem_response(request, problem, {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(OperationalError)
    async def busy(request: Request, error: OperationalError) -> Response:
        del error  # its text has the statement and its values
        problem = Problem(
            code="database", message="The zoo's database does not answer.", hint="Try again in a moment.", status=503
        )
        return problem_response(request, problem, {"Retry-After": "5"})
