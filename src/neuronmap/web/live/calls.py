"""A request on its way through the child, as the server sees it."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from neuronmap.web.errors import WebError
from neuronmap.web.live.requests import AnyRequest

__all__ = ["Call", "Fault", "State"]

State = Literal["waiting", "loading", "running", "done", "failed"]

STATUS = {
    "cancelled": 409,
    "config": 422,
    "damaged": 409,
    "died": 503,
    "hook_point": 422,
    "input": 422,
    "internal": 500,
    "memory": 503,
    "mismatch": 409,
    "model_format": 422,
    "model_gated": 503,
    "model_not_found": 422,
    "model_offline": 503,
    "not_in_library": 404,
    "stopped": 503,
    "time_limit": 504,
}
"""HTTP status of each code that a call can fail with."""


@dataclass(frozen=True)
class Fault:
    """Why a call failed.

    Attributes:
        code: stable word: one of :mod:`neuronmap.errors`, or ``cancelled``, ``time_limit``, ``died``, ``stopped``, ``internal``.
        message: what happened.
        hint: the next step; empty if there is none.
    """

    code: str
    message: str
    hint: str = ""

    def to_error(self) -> WebError:
        """The same as an error over HTTP."""
        return WebError(STATUS.get(self.code, 500), self.code, self.message, hint=self.hint)


class Call:
    """One request. Made by :meth:`~neuronmap.web.live.process.LiveProcess.submit`.

    Attributes:
        id: what the call is asked for by; cannot be guessed.
        request: what was asked.
        created: ISO 8601, UTC.
        state: waiting for its turn, loading what it needs, running, done, or failed.
        answer: the answer, once it is done: a plain JSON document of the operation's answer.
        fault: why it failed.
        progress: title, done, total and unit of the work under way, if it says so.
        seconds: how long it took from its turn on, once it is finished.
    """

    def __init__(self, request: AnyRequest) -> None:
        self.id = secrets.token_urlsafe(12)
        self.request = request
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.state: State = "waiting"
        self.answer: dict[str, Any] | None = None
        self.fault: Fault | None = None
        self.progress: dict[str, Any] | None = None
        self.seconds: float | None = None
        self.finished_at: float | None = None
        self.cancelled = False
        self._finished = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Call {self.id}: {self.request.operation}, {self.state}>"

    @property
    def finished(self) -> bool:
        """Whether it is done or failed."""
        return self._finished.is_set()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is finished.

        Args:
            timeout: seconds at most; None for as long as it takes.

        Returns:
            Whether it is finished.
        """
        if timeout is not None and timeout <= 0:
            return self.finished
        try:
            async with asyncio.timeout(timeout):
                await self._finished.wait()
        except TimeoutError:
            return False
        return True

    def result(self) -> dict[str, Any]:
        """The answer.

        Raises:
            WebError: it failed (the status tells how), or it is not finished.
        """
        if self.answer is not None:
            return self.answer
        if self.fault is not None:
            raise self.fault.to_error()
        raise WebError(409, "unfinished", f"The call {self.id} is {self.state}.", hint="Ask again in a moment.")

    def to_dict(self) -> dict[str, Any]:
        """State without the answer, in plain JSON types."""
        fault = self.fault
        return {
            "id": self.id,
            "operation": self.request.operation,
            "sae": getattr(self.request, "sae", None),
            "state": self.state,
            "created": self.created,
            "seconds": self.seconds,
            "progress": self.progress,
            "error": None if fault is None else {"code": fault.code, "message": fault.message, "hint": fault.hint},
        }

    # --- what the process does with it -------------------------------------------------------------------------------

    def finish(self, answer: dict[str, Any]) -> None:
        """It has its answer."""
        self._end("done", answer, None)

    def fail(self, code: str, message: str, hint: str = "") -> None:
        """It has none."""
        self._end("failed", None, Fault(code, message, hint))

    def _end(self, state: State, answer: dict[str, Any] | None, fault: Fault | None) -> None:
        if self.finished:
            return
        self.state, self.answer, self.fault, self.progress = state, answer, fault, None
        self.finished_at = asyncio.get_running_loop().time()
        self._finished.set()
