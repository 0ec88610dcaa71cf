"""``LiveProcess``: the server's end of the child that runs models. No torch here.

The child starts with the first request, answers one at a time, and ends when it has had nothing to do for a while, which gives its
memory back. When it dies (out of memory, say), the request it was at fails with a sentence, and the next one starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

from neuronmap.web.errors import WebError
from neuronmap.web.live.calls import Call
from neuronmap.web.live.requests import AnyRequest

__all__ = ["LiveProcess"]

_LONGEST_ANSWER = 64 << 20
_TO_STOP_S = 2.0
"""A cancelled call has so long to stop by itself; then its process is ended."""


class _Died(Exception):
    """The child is gone."""


class LiveProcess:
    """Runs requests in a child process. Belongs to the event loop that makes the first request.

    Args:
        library: the library's folder; this machine's when left out.
        seconds: longest time that a request may run.
        loading_seconds: longest time that it may load what it needs, the start of the child included.
        idle_minutes: without requests, after which the child is ended.
        waiting: requests that may wait; one more is refused.
        kept_minutes: how long a finished call can be asked for.
        memory_bytes: weights that the child keeps at once; half of the machine's memory when left out.

    Example:
        >>> live = LiveProcess()                                                                        # doctest: +SKIP
        >>> call = live.submit(TextRequest(sae="demo", text="The winter was long."))                    # doctest: +SKIP
        >>> await call.wait(2.0)                                                                        # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        library: Path | None = None,
        seconds: float = 120.0,
        loading_seconds: float = 600.0,
        idle_minutes: float = 10.0,
        waiting: int = 16,
        kept_minutes: float = 10.0,
        memory_bytes: int | None = None,
    ) -> None:
        self.library, self.memory_bytes = library, memory_bytes
        self.seconds, self.loading_seconds = seconds, loading_seconds
        self.idle_seconds, self.kept_seconds, self.most_waiting = 60.0 * idle_minutes, 60.0 * kept_minutes, waiting
        self.child_memory: int | None = None
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._waiting: deque[Call] = deque()
        self._current: Call | None = None
        self._wake = asyncio.Event()
        self._child: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    # --- what the server asks ----------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return None if self._child is None or self._child.returncode is not None else self._child.pid

    def status(self) -> dict[str, Any]:
        """Of the child and the queue, in plain JSON types; ``memory`` is what the child held after its last answer, in bytes."""
        return {
            "running": self.pid is not None,
            "memory": self.child_memory if self.pid is not None else None,
            "waiting": len(self._waiting),
            "current": None if self._current is None else self._current.to_dict(),
        }

    def submit(self, request: AnyRequest) -> Call:
        """Put a request in the queue.

        Raises:
            WebError: 503 ``busy``, too many are waiting; 503 ``stopped`` after :meth:`close`.
        """
        if self._closed:
            raise WebError(503, "stopped", "The server is stopping.")
        self._drop_old()
        if len(self._waiting) >= self.most_waiting:
            raise WebError(
                503,
                "busy",
                f"{len(self._waiting)} requests to the model are waiting already.",
                hint="Try again in a moment.",
                headers={"Retry-After": "5"},
            )
        call = Call(request)
        self._calls[call.id] = call
        self._waiting.append(call)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="live")
        return call

    def call(self, number: str) -> Call:
        """A call by its id.

        Raises:
            WebError: 404 ``call_not_found``, there is none, or it was finished too long ago.
        """
        self._drop_old()
        found = self._calls.get(number)
        if found is None:
            kept = f"{self.kept_seconds / 60:g} minutes"
            raise WebError(
                404, "call_not_found", "There is no such call.", hint=f"Finished ones are kept for {kept}; ask again."
            )
        return found

    def cancel(self, number: str) -> Call:
        """Stop a call that waits or runs; one that is finished stays as it is.

        Raises:
            WebError: 404 ``call_not_found``.
        """
        call = self.call(number)
        if call.finished:
            return call
        call.cancelled = True
        if call in self._waiting:
            self._waiting.remove(call)
            call.fail("cancelled", "The request was cancelled before its turn.")
        elif call is self._current:
            self._tell({"cancel": call.id})
            asyncio.get_running_loop().call_later(_TO_STOP_S, self._end_if_at, call)
        return call

    async def close(self) -> None:
        """End the child; what waits or runs fails."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._end_child()
        for call in self._calls.values():
            call.fail("stopped", "The server was stopped.")

    # --- one call after the other ------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            while self._waiting:
                self._current = self._waiting.popleft()
                try:
                    await self._run(self._current)
                finally:
                    self._current = None
            self._wake.clear()
            try:
                # not wait_for: in Python 3.11 that can swallow the cancellation that close() asks for
                async with asyncio.timeout(None if self.pid is None else self.idle_seconds):
                    await self._wake.wait()
            except TimeoutError:
                await self._end_child()

    async def _run(self, call: Call) -> None:
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.loading_seconds) as limit:
                await self._converse(call, limit)
        except TimeoutError:
            loading = call.state in ("waiting", "loading")
            await self._end_child()
            allowed = self.loading_seconds if loading else self.seconds
            doing = "to load" if loading else "to run"
            call.fail(
                "time_limit", f"The request took longer {doing} than the {allowed:g} seconds allowed.", "Use less text."
            )
        except _Died:
            reason = await self._end_child(patience=1.0)
            if call.cancelled:
                call.fail("cancelled", "The request was cancelled.")
            else:
                said = f"The process that runs models ended in the middle of the request ({reason})."
                call.fail("died", said, "The machine may be out of memory. The next request starts it again.")
        call.seconds = round(asyncio.get_running_loop().time() - started, 3)

    async def _converse(self, call: Call, limit: asyncio.Timeout) -> None:
        """Send the request and take messages until it is answered."""
        call.state = "loading" if self.pid is None else "running"
        request = {"id": call.id, "operation": call.request.operation, "request": call.request.to_dict()}
        message = None
        if self.pid is not None:
            self._tell(request)
            with contextlib.suppress(_Died):  # it died while it had nothing to do
                message = await self._receive()
        if message is None:
            await self._start_child()
            self._tell(request)
        while True:
            if message is not None and message.get("id") == call.id:
                self._take(call, message, limit)
            if call.finished:
                return
            message = await self._receive()

    def _take(self, call: Call, message: dict[str, Any], limit: asyncio.Timeout) -> None:
        """A message about the current call."""
        if "state" in message:
            call.state = message["state"]
            allowed = self.loading_seconds if call.state == "loading" else self.seconds
            limit.reschedule(asyncio.get_running_loop().time() + allowed)
        elif "progress" in message:
            call.progress = message["progress"]
        elif "answer" in message:
            self.child_memory = message["memory"]
            call.finish(message["answer"])
        elif "error" in message:
            cancelled = {"code": "cancelled", "message": "The request was cancelled."}
            call.fail(**(cancelled if call.cancelled else message["error"]))

    # --- the child ---------------------------------------------------------------------------------------------------

    async def _start_child(self) -> None:
        await self._end_child()  # let go of one that died between two requests
        options = [] if self.library is None else ["--library", os.fspath(self.library)]
        options += [] if self.memory_bytes is None else ["--memory", str(self.memory_bytes)]
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "neuronmap.web.live.worker", *options, stdin=PIPE, stdout=PIPE, limit=_LONGEST_ANSWER
        )
        await self._receive()  # it says that it is ready

    def _tell(self, message: dict[str, Any]) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.write(json.dumps(message).encode() + b"\n")

    async def _receive(self) -> dict[str, Any]:
        if self._child is None or self._child.stdout is None:
            raise _Died
        try:
            message: dict[str, Any] = json.loads(await self._child.stdout.readline())
        except ValueError:  # nothing, a part, or more than the limit
            raise _Died from None
        return message

    def _end_if_at(self, call: Call) -> None:
        """Kill the child if it is still busy with a call."""
        if self._current is call and not call.finished and self._child is not None and self._child.returncode is None:
            self._child.kill()

    async def _end_child(self, patience: float = 0.0) -> str:
        """Kill the child, if there is one, and let go of it.

        Args:
            patience: seconds to wait for one that is ending by itself, so that its own reason is known.

        Returns:
            How it ended, in words.
        """
        child, self._child = self._child, None
        if child is None:
            return "it was not there"
        if patience:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await child.wait()
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        if child.stdin is not None:
            child.stdin.close()
        code = await child.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _drop_old(self) -> None:
        """Forget calls that were finished too long ago."""
        now = asyncio.get_running_loop().time()
        old = [
            n for n, c in self._calls.items() if c.finished_at is not None and now - c.finished_at > self.kept_seconds
        ]
        for number in old:
            del self._calls[number]
