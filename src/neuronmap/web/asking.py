"""Pages that need a model: the same question is asked once, and the page shows its answer, its fault, or that it is being worked out."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from neuronmap.config import config_error
from neuronmap.errors import NeuronMapError
from neuronmap.hashing import digest_json
from neuronmap.web.errors import Problem, status_of
from neuronmap.web.explorer import Explorer
from neuronmap.web.live.requests import AnyRequest, LiveRequest

__all__ = ["Asked", "ask", "checked", "problem_of"]

PATIENCE_S = 1.8
"""How long a page waits before it says that the answer is being worked out."""


class Asked(BaseModel):
    """A question to a model, as a page shows it."""

    call: str = Field(default="", description="Id of the call; its answer is at /api/sae/calls/{id}.")
    state: str = Field(default="none", description="none, waiting, loading, running, done or failed.")
    progress: dict[str, Any] | None = Field(default=None, description="Work under way.")
    answer: dict[str, Any] | None = Field(default=None, description="The answer, once it is there.")
    problem: Problem | None = Field(default=None, description="Why there is none.")


def problem_of(error: NeuronMapError) -> Problem:
    """An error as a page shows it."""
    return Problem(code=error.code, message=error.message, hint=error.hint, status=status_of(error))


def checked(kind: type[AnyRequest], values: dict[str, Any]) -> AnyRequest:
    """A request from what a form sent.

    Raises:
        ConfigError: names the field, the value and what is allowed.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise config_error(error, kind) from None


async def ask(explorer: Explorer, request: AnyRequest, patience: float = PATIENCE_S, *, remember: bool = True) -> Asked:
    """Ask, or take the answer of the same question asked before.

    Args:
        explorer: the server's.
        request: the question.
        patience: seconds to wait for the answer.
        remember: keep the answer for the next time; without it only a call that is under way is shared.
    """
    try:
        weights = explorer.entry(request.sae).weights_digest if isinstance(request, LiveRequest) else None
        key = digest_json([request.operation, request.to_dict(), weights])
        call = explorer.asked(key) or explorer.keep_asked(key, explorer.live.submit(request))
    except NeuronMapError as error:
        return Asked(state="failed", problem=problem_of(error))
    await call.wait(patience)
    problem = None if call.fault is None else problem_of(call.fault.to_error())
    if problem is not None or (call.finished and not remember):
        explorer.forget_asked(key)  # asking again tries again
    return Asked(call=call.id, state=call.state, progress=call.progress, answer=call.answer, problem=problem)
