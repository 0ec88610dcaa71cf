"""pyarrow, imported by a server while requests are worked on.

Importing it makes, for a moment, a class that is both a sequence and a mapping (``MapScalar``) and that has no answers of its own yet to
what is a subclass of it: it gives those of ``Sequence``. A thread that asks ``isinstance([], Mapping)`` in that moment hears yes, and
Python keeps that answer for all who ask later (CPython issue 116093): from then on ``pyarrow.struct`` takes each list for a mapping, and
every page that reads a table fails until the server ends. So pyarrow is imported by each way into the server before anything else of
that way, and what was answered until then is forgotten.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping, Sequence

__all__ = ["import_arrow"]


def import_arrow() -> None:
    """Import pyarrow; what is a mapping or a sequence is found anew after it."""
    import pyarrow.lib  # noqa: F401

    for kind in (Mapping, Sequence):
        ABCMeta._abc_caches_clear(kind)  # type: ignore[attr-defined]  # typeshed leaves it out
