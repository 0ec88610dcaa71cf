"""How often features fire: histogram with a bin of its own for "never", and its picture in text.

Shapes: F features.
"""

from __future__ import annotations

import numpy.typing as npt

from neuronmap.evaluation.metrics import DensityHistogram
from neuronmap.saes.density import dead_density_bound, density_bins

__all__ = ["dead_density_bound", "density_histogram", "density_text"]

_BAR_EIGHTHS = " ▏▎▍▌▋▊▉█"


def density_histogram(fired_F: npt.ArrayLike, tokens: int) -> DensityHistogram:
    """Features by log10 of the share of tokens on which they are active; see :func:`neuronmap.saes.density.density_bins`.

    Args:
        fired_F: int [F], on how many tokens each feature was active.
        tokens: how many tokens there were.
    """
    edges, counts, never = density_bins(fired_F, tokens)
    return DensityHistogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), never=never, tokens=tokens)


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
