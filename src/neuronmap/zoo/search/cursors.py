"""Where the next page of a search begins: after a hit, whatever was published meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from typing import NamedTuple, Self

from neuronmap.errors import InputError
from neuronmap.hashing import digest_json, short
from neuronmap.zoo.search.query import Query

__all__ = ["Cursor"]

_WHOLE = {"stars": 1 << 31, "downloads": 1 << 63, "width": 1 << 63}
_MOST = 1.7e308


class Cursor(NamedTuple):
    """The last hit of a page.

    Attributes:
        value: what the order goes by; None where it has none.
        version_id: breaks ties.
    """

    value: float | str | None
    version_id: int

    def write(self, query: Query) -> str:
        """As text that is good for this search alone."""
        text = json.dumps([_mark(query), self.value, self.version_id], allow_nan=False)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, query: Query) -> Self | None:
        """Of a query; None on the first page.

        Raises:
            InputError: it was not made by this search.
        """
        if query.cursor is None:
            return None
        try:
            data = base64.b64decode(query.cursor + "=" * (-len(query.cursor) % 4), altchars=b"-_", validate=True)
            mark, value, version_id = json.loads(data)
        except (ValueError, TypeError, RecursionError, binascii.Error):
            mark = value = version_id = None
        sound = _fits(query, value) and type(version_id) is int and 0 <= version_id < 1 << 63
        if mark != _mark(query) or not sound:
            raise InputError(
                "The cursor does not belong to this search.",
                hint="Take 'next' of the page before, with every other parameter as it was; or leave it out.",
            )
        return cls(value, version_id)


def _fits(query: Query, value: object) -> bool:
    """Whether it can be a value of what the search is ordered by."""
    name = query.sort.removeprefix("-")
    if name == "name":
        return isinstance(value, str) and value.isascii() and value.isprintable()
    if value is None:
        return name in ("width", "l0") or name.startswith("metric:")
    if name in _WHOLE:
        return type(value) is int and abs(value) < _WHOLE[name]
    return type(value) in (int, float) and abs(value) < _MOST  # type: ignore[arg-type]


def _mark(query: Query) -> str:
    return short(digest_json(query.model_dump(mode="json", exclude={"cursor", "limit"})))
