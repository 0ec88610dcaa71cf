"""What is done while nobody waits: once the first page was sent, or soon after the start where nobody asks for it.

What the first look at an SAE needs is imported first: its view, pyarrow, the page's template. Then the other pages (a second), and jobs
are run from here. What tables of features need comes after it: DuckDB, the pandas that pyarrow imports by itself, all templates. All
of that is left out when Python looks for garbage. Last, the caches of searches are tidied. Nothing of the library is opened: memory at
rest stays what it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from neuronmap.web.arrow import import_arrow
from neuronmap.web.collecting import leave_out, uncollected
from neuronmap.web.early import SAE_MODULE, SAE_TEMPLATE
from neuronmap.web.explorer import Explorer
from neuronmap.web.rendering import environment
from neuronmap.web.rest import Rest

if TYPE_CHECKING:
    from neuronmap.jobs import Supervisor

__all__ = ["Warming"]

_LATEST_S = 1.0
"""Seconds after the start when nobody has asked for the first page."""
_AFTER_PAGE_S = 0.15
"""Seconds after the first page: its style and scripts have been sent by then, and nobody clicks faster."""
_PAUSE_S = 0.004
"""Between two steps, so that requests get their turn."""
_FIRST_MODULES, _FIRST_TEMPLATES = (SAE_MODULE, "pyarrow.parquet"), (SAE_TEMPLATE,)
"""What the first look at an SAE needs."""
_MODULES = ("pyarrow.compute", "pandas", "duckdb")
_TEMPLATES = ("features.html", "feature.html", "cards.html", "_card.html")
"""Templates that are compiled before the others."""


class Warming:
    """Begins when it is made; works in a thread of its own.

    Args:
        explorer: of the server. Its database of jobs is opened at once, so that one that cannot be used ends the start.
        rest: what is made.

    Attributes:
        thread: where it works.
        supervisor: runs jobs, once it has begun.
    """

    def __init__(self, explorer: Explorer, rest: Rest) -> None:
        self._explorer, self._rest, self._jobs = explorer, rest, explorer.jobs
        self._lock, self._ended = threading.Lock(), False
        self.supervisor: Supervisor | None = None
        self._page_sent = threading.Event()
        self.thread = threading.Thread(target=self._work, name="warming", daemon=True)
        self.thread.start()

    async def page_sent(self) -> None:
        """The first page is on its way."""
        self._page_sent.set()

    async def end(self) -> None:
        """The server ends: what has not begun is left, and its jobs are stopped, or let go on where the settings say so."""
        with self._lock:
            self._ended = True
        self._page_sent.set()
        if self.supervisor is not None:
            await run_in_threadpool(self.supervisor.stop, leave_running=self._explorer.settings.keep_jobs)

    def _work(self) -> None:
        if self._page_sent.wait(_LATEST_S):
            time.sleep(_AFTER_PAGE_S)
        if self._ended:
            return
        with uncollected():
            import_arrow()
            _make_ready(_FIRST_MODULES, _FIRST_TEMPLATES)
            if self._rest.begin().exception() is not None:  # whoever asks for a page is told
                return
            self._supervise()
            _make_ready(_MODULES, (*_TEMPLATES, *environment().list_templates()))
        leave_out()
        if not self._ended:
            from neuronmap.web.caches import tidy

            tidy(self._explorer.settings.library)

    def _supervise(self) -> None:
        from neuronmap.jobs import Supervisor

        with self._lock:
            if not self._ended:
                self.supervisor = Supervisor(self._jobs)
                self.supervisor.start()


def _make_ready(modules: Sequence[str], templates: Sequence[str]) -> None:
    for name in modules:
        try:
            import_module(name)
        except ImportError:  # pandas may be missing; whoever needs a module says so then
            continue
    for name in dict.fromkeys(templates):
        environment().get_template(name)
        time.sleep(_PAUSE_S)
