"""The process that runs models: it dies, hangs, is asked too much, idles; the server says so and goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from neuronmap.web.errors import WebError
from neuronmap.web.live.process import LiveProcess
from neuronmap.web.live.requests import Change, SteerRequest, TextRequest, WarmRequest

SOON = TextRequest(sae="first", text="The river froze.")
WARM = WarmRequest(sae="first")


def long(seed: int = 0) -> SteerRequest:
    """A request that takes a second or so: the small model writes as much as it may, several times."""
    return SteerRequest(
        sae="first", prompt="The", changes=(Change(feature=1, value=2.0),), max_tokens=60, temperature=1.0, seed=seed,
        controls=4,
    )  # fmt: skip


async def running(live: LiveProcess, request: Any) -> Any:
    """A call that is being worked on, and has said so."""
    call = live.submit(request)
    while call.progress is None and not call.finished:
        await asyncio.sleep(0.001)
    return call


def test_a_killed_child_fails_its_request_only(during: Any) -> None:
    async def journey(live: LiveProcess) -> None:
        await live.submit(WARM).wait()
        hit = await running(live, long())
        waiting = live.submit(SOON)
        assert live.pid is not None
        os.kill(live.pid, signal.SIGKILL)
        assert await hit.wait(20)
        assert hit.state == "failed"
        assert hit.fault.code == "died"
        assert "SIGKILL" in hit.fault.message
        assert await waiting.wait(60)
        assert waiting.state == "done"
        with pytest.raises(WebError) as raised:
            hit.result()
        assert raised.value.status == 503
        os.kill(live.pid, signal.SIGKILL)  # while it has nothing to do: nobody notices
        call = live.submit(SOON)  # before the loop has heard of the death
        await call.wait(60)
        assert call.state == "done"

    during(journey)


def test_a_request_that_takes_too_long_is_stopped(during: Any) -> None:
    async def journey(live: LiveProcess) -> None:
        await live.submit(WARM).wait()
        live.seconds = 0.05
        call = live.submit(long())
        await call.wait(20)
        assert call.fault is not None
        assert call.fault.code == "time_limit"
        assert "0.05 seconds" in call.fault.message
        assert live.pid is None
        live.seconds = 60.0
        after = live.submit(SOON)
        await after.wait(60)
        assert after.state == "done"

    during(journey)


def test_loading_has_a_limit_of_its_own(during: Any) -> None:
    async def journey(live: LiveProcess) -> None:
        call = live.submit(SOON)
        await call.wait(20)
        assert call.fault is not None
        assert call.fault.code == "time_limit"
        assert "to load" in call.fault.message

    during(journey, loading_seconds=0.1)


def test_waiting_and_running_calls_are_cancelled(during: Any) -> None:
    async def journey(live: LiveProcess) -> None:
        await live.submit(WARM).wait()
        at_work = await running(live, long())
        waiting, after = live.submit(long(1)), live.submit(SOON)
        child = live.pid
        assert live.cancel(waiting.id).fault.code == "cancelled"  # type: ignore[union-attr]
        live.cancel(at_work.id)
        assert await at_work.wait(3)
        assert at_work.fault.code == "cancelled"
        await after.wait(20)
        assert after.state == "done"
        assert live.pid == child  # it stopped by itself, so nothing has to be loaded again
        assert live.cancel(after.id).state == "done"

    during(journey)


def test_loading_is_cancelled_by_ending_the_child(during: Any) -> None:
    async def journey(live: LiveProcess) -> None:
        call = live.submit(WARM)
        while live.pid is None:
            await asyncio.sleep(0.01)
        os.kill(live.pid, signal.SIGSTOP)  # as if it were reading a large model
        live.cancel(call.id)
        assert await call.wait(10)
        assert call.fault is not None
        assert call.fault.code == "cancelled"

    during(journey)


def test_an_idle_child_ends_and_finished_calls_are_forgotten(during: Any) -> None:
    async def journey(live: LiveProcess) -> None:
        call = live.submit(WARM)
        await call.wait()
        assert live.call(call.id) is call
        assert live.child_memory is not None
        for _ in range(200):
            if live.pid is None:
                break
            await asyncio.sleep(0.02)
        assert live.pid is None
        live.kept_seconds = 0.0
        with pytest.raises(WebError, match="no such call") as raised:
            live.call(call.id)
        assert raised.value.status == 404
        again = live.submit(SOON)
        await again.wait(60)
        assert again.state == "done"

    during(journey, idle_minutes=0.005)


def test_a_full_queue_is_refused_and_what_is_unfinished_fails_when_the_server_stops(library: Path) -> None:
    async def journey() -> None:
        live = LiveProcess(library=library, waiting=2)
        at_work = live.submit(WARM)
        await asyncio.sleep(0.1)
        waiting = [live.submit(SOON) for _ in range(2)]
        with pytest.raises(WebError, match="2 requests to the model are waiting") as raised:
            live.submit(SOON)
        assert (raised.value.status, raised.value.code) == (503, "busy")
        assert raised.value.headers["Retry-After"]
        assert live.status()["waiting"] == 2
        live.cancel(waiting[0].id)
        waiting[0] = live.submit(SOON)  # there is room again
        await live.close()
        assert [call.fault.code for call in (at_work, *waiting) if call.fault] == ["stopped"] * 3
        with pytest.raises(WebError, match="stopping"):
            live.submit(SOON)

    asyncio.run(journey())


def test_a_stop_at_the_moment_of_a_request_is_not_lost(library: Path) -> None:
    async def journey() -> None:
        live = LiveProcess(library=library)
        first = live.submit(SOON)
        live.cancel(first.id)
        await asyncio.sleep(0.01)  # it waits for the next one
        live.submit(SOON)
        async with asyncio.timeout(5):
            await live.close()

    asyncio.run(journey())


def test_the_server_needs_no_torch_and_its_death_ends_the_child(library: Path) -> None:
    """A server in a process of its own answers a text; killed, it leaves no child behind."""
    code = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from neuronmap.web.live.process import LiveProcess
        from neuronmap.web.live.requests import TextRequest

        async def main():
            live = LiveProcess(library=Path(sys.argv[1]))
            call = live.submit(TextRequest(sae="first", text="The river froze."))
            await call.wait()
            print(call.state, "torch" in sys.modules, live.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
        """
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(library)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        state, torch, child = server.stdout.readline().split()
        assert (state, torch) == ("done", "False")
        server.kill()
        server.wait()
        for _ in range(200):
            if not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text():
                break
            import time

            time.sleep(0.05)
        else:
            pytest.fail("the child outlived its server")
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def test_what_libraries_print_does_not_reach_the_server(library: Path) -> None:
    """Answers come over a copy of stdout; descriptor 1 of the child is its stderr."""
    code = (
        "import os, sys\nfrom neuronmap.web.live import worker\n"
        "real = worker._fault\nline = worker._Line()\n"
        "print('from Python')\nsys.stdout.flush()\nos.write(1, b'from C')\nline.send(ready=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, input="")
    assert done.stdout == '{"ready": true}\n'
    assert "from C" in done.stderr
