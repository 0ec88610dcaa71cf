"""Every fault of a document at once, each with its place."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

__all__ = ["Fault", "faults_of"]

_MOST = 1000


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        path: where, as in ``record.hook.layer`` or ``files.3.size``; empty for the whole.
        message: what is wrong, the value received, what is allowed.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def faults_of(error: ValidationError, before: str = "") -> list[Fault]:
    """Pydantic's report as faults, their places below ``before``."""
    found = []
    reported = error.errors(include_url=False)
    holders = {fault["loc"][:length] for fault in reported[:_MOST] for length in range(len(fault["loc"]))}
    for fault in reported[:_MOST]:
        if fault["type"] == "too_short" and fault["loc"] in holders:
            continue  # its faulty items were left out of the count
        place = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            message = "is missing"
        elif fault["type"] == "extra_forbidden":
            message = "is no field of it"
        elif "input" in fault and fault["type"] != "value_error":
            shown = repr(fault["input"])
            message += f", got {shown if len(shown) <= 80 else shown[:80] + '...'}"
        found.append(Fault(".".join(part for part in (before, place) if part), message))
    if len(reported) > _MOST:
        found.append(Fault(before, f"... and {len(reported) - _MOST:,} more faults"))
    return found
