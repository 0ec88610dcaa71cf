"""When Python looks for garbage: not while a server imports, and what it has imported is left out for good.

Importing makes half a million objects and hardly any garbage; going through them again and again took a quarter of the start. Nothing
here changes what is collected of that which requests make.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["leave_out", "uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for garbage inside. May be used in several threads: it is on again once the last that found it on has left."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def leave_out() -> None:
    """What there is now is never looked through again. For a process that is a server: it would be kept, garbage or not."""
    gc.freeze()
