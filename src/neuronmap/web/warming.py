"""What the first look at an SAE needs, loaded while nobody waits: DuckDB, and pandas, which pyarrow imports by itself (0.5 s together).

The server's first page needs neither, so it is not made to wait for them.
"""

from __future__ import annotations

import threading
from importlib import import_module

__all__ = ["warm"]

_AFTER_S = 0.7
"""Seconds after the start: the first page has been sent by then."""
_MODULES = ("pyarrow.compute", "pyarrow.parquet", "pandas", "duckdb")


def warm() -> threading.Timer:
    """Load them soon, in a thread of their own.

    Returns:
        The timer; cancel it when the server ends before.
    """
    timer = threading.Timer(_AFTER_S, _load)
    timer.daemon = True
    timer.start()
    return timer


def _load() -> None:
    for name in _MODULES:
        try:
            import_module(name)
        except ImportError:  # pandas may be missing; whoever needs a module says so then
            continue
