"""How strongly a feature fires: the histogram of its firings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureRecord

__all__ = ["Histogram", "bin_range", "histogram"]


class Histogram(BaseModel):
    """Firings by activation, from the first to the last bin that is not empty; widths are logarithmic."""

    first: int = Field(description="Number of the first bin.")
    counts: list[int] = Field(description="Firings in each bin.")
    edges: list[float] = Field(description="One more than counts; the last is the largest activation.")

    @property
    def titles(self) -> list[str]:
        """What each bar says."""
        return [
            f"{self.edges[at]:.3g} to {self.edges[at + 1]:.3g}: {count:,} firing{'s' if count != 1 else ''}"
            for at, count in enumerate(self.counts)
        ]


def histogram(record: FeatureRecord) -> Histogram | None:
    """The histogram of a feature; None if it never fired."""
    counts = record.details["histogram"] or []
    filled = [at for at, count in enumerate(counts) if count]
    if not filled or record.row["max"] is None:
        return None
    first, stop = filled[0], filled[-1] + 1
    largest = float(record.row["max"])
    edges = [float(edge) for edge in record.store.edges[first : stop + 1]]
    edges[-1] = largest if largest > edges[-2] else edges[-1]
    return Histogram(first=first, counts=counts[first:stop], edges=edges)


def bin_range(record: FeatureRecord, number: int) -> tuple[float, float]:
    """Edges of a bin; the last one has no upper edge, so it ends at the feature's largest activation."""
    edges, largest = record.store.edges, float(record.row["max"] or 0.0)
    high = float(edges[number + 1])
    return float(edges[number]), max(high, largest) if number == len(edges) - 2 else high
