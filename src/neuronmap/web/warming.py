"""What is done while nobody waits, after the server's first page was sent.

What the first look at an SAE needs is made ready: DuckDB, and pandas, which pyarrow imports by itself (0.5 s together), the templates of
pages (0.5 s), and the routes, which FastAPI finishes when an address is first looked for among them (0.2 s). Then the caches of
searches are tidied. Nothing of the library is opened: memory at rest stays what it was.
"""

from __future__ import annotations

import asyncio
import threading
import time
from importlib import import_module
from pathlib import Path

from fastapi import FastAPI

__all__ = ["Warming"]

_AFTER_S = 0.7
"""Seconds after the start: the first page has been sent by then."""
_PAUSE_S = 0.004
"""Between two steps, so that requests get their turn."""
_MODULES = ("pyarrow.compute", "pyarrow.parquet", "pandas", "duckdb")
_FIRST = ("sae.html", "features.html", "feature.html", "cards.html", "_card.html")
"""Templates that are compiled before the others."""


class Warming:
    """Begins when it is made, on the running event loop and in a thread of its own; each step is short.

    Args:
        app: whose routes are finished.
        library: the server's folder of SAEs; this machine's when None.
    """

    def __init__(self, app: FastAPI, library: Path | None) -> None:
        self._task = asyncio.get_running_loop().create_task(_routes(app), name="warming")
        self._timer = threading.Timer(_AFTER_S, _rest, (library,))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """The server ends: what has not begun is left."""
        self._task.cancel()
        self._timer.cancel()


async def _routes(app: FastAPI) -> None:
    """Look for an address that is nowhere, route by route: on the event loop, as requests do."""
    await asyncio.sleep(_AFTER_S)
    for route in app.router.routes:
        route.matches({"type": "http", "method": "GET", "path": "/-", "root_path": "", "headers": [], "app": app})
        await asyncio.sleep(_PAUSE_S)


def _rest(library: Path | None) -> None:
    for name in _MODULES:
        try:
            import_module(name)
        except ImportError:  # pandas may be missing; whoever needs a module says so then
            continue
    from neuronmap.web.caches import tidy
    from neuronmap.web.rendering import environment

    made = environment()
    for name in dict.fromkeys((*_FIRST, *made.list_templates())):
        made.get_template(name)
        time.sleep(_PAUSE_S)
    tidy(library)
