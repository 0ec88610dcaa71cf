"""How often features fire: histogram with a bin of its own for "never", and its picture in text.

Shapes: F features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neuronmap.evaluation.metrics import DensityHistogram

__all__ = ["dead_density_bound", "density_histogram", "density_text"]

_BINS_A_DECADE = 2
_BAR_EIGHTHS = " ▏▎▍▌▋▊▉█"


def dead_density_bound(tokens: int) -> float:
    """Upper 95 % bound on the density of a feature that never fired on ``tokens`` tokens: 3 / N (rule of three)."""
    return min(1.0, 3.0 / tokens) if tokens else 1.0


def density_histogram(fired_F: npt.ArrayLike, tokens: int) -> DensityHistogram:
    """Features by log10 of the share of tokens on which they are active, two bins a decade.

    Args:
        fired_F: int [F], on how many tokens each feature was active.
        tokens: how many tokens there were.

    Returns:
        Bins from the decade in which one token lies up to 1 (always active); features that never fired apart.
    """
    fired = np.asarray(fired_F, dtype=np.int64)
    decades = max(1, int(np.ceil(np.log10(max(tokens, 2)))))
    steps = np.arange(-decades * _BINS_A_DECADE, 1)
    edges = steps / _BINS_A_DECADE
    alive = fired[fired > 0]
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    if alive.size:
        # Upper edges belong to the bin, so a feature that is always on is in the last one. The tiny step back
        # keeps 10^-k densities, whose logarithm is not exact, on their own side of the edge.
        place = np.ceil(np.log10(alive / tokens) * _BINS_A_DECADE - 1e-9).astype(np.int64) - steps[0] - 1
        np.add.at(counts, np.clip(place, 0, len(counts) - 1), 1)
    return DensityHistogram(
        edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), never=int((fired == 0).sum()), tokens=tokens
    )


def density_text(histogram: DensityHistogram, width: int = 40) -> str:
    """The histogram as lines of text with bars of unicode eighths; ``never`` first, densest last.

    Args:
        histogram: from :func:`density_histogram` or a stored record.
        width: characters of the longest bar.

    Returns:
        One line a bin, no line break at the end.
    """
    labels = [f"never in {histogram.tokens:,}"]
    labels += [
        f"{10**low:.2g} to {10**high:.2g}" for low, high in zip(histogram.edges[:-1], histogram.edges[1:], strict=True)
    ]
    counts = [histogram.never, *histogram.counts]
    most, total = max(max(counts), 1), max(sum(counts), 1)
    left, right = max(map(len, labels)), len(f"{max(counts):,}")
    lines = []
    for label, count in zip(labels, counts, strict=True):
        eighths = round(8 * width * count / most) or (1 if count else 0)
        bar = _BAR_EIGHTHS[8] * (eighths // 8) + (_BAR_EIGHTHS[eighths % 8] if eighths % 8 else "")
        lines.append(f"{label:>{left}}  {count:>{right},}  {count / total:>6.1%}  {bar}".rstrip())
    return "\n".join(lines)
