"""The process that runs models, for the length of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from neuronmap.web.live.process import LiveProcess

Journey = Callable[[LiveProcess], Coroutine[Any, Any, None]]


@pytest.fixture
def during(library: Path) -> Callable[..., None]:
    """Run a coroutine function with a process of its own, which is closed at the end."""

    def run(journey: Journey, **options: Any) -> None:
        async def whole() -> None:
            live = LiveProcess(library=library, **options)
            try:
                await journey(live)
            finally:
                await live.close()
            assert live.pid is None

        asyncio.run(whole())

    return run
