"""Features whose firing several features of another SAE explain together, and better than one: the wholes of splits and merges.

The union of some parts ("a or b or ...") predicts the rows where the whole fires with an F1. Parts are taken greedily, the one that raises
F1 most first, as long as it rises by 0.02. Two or more parts that reach 0.5, at least 0.1 above the best of them alone, explain the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse

__all__ = ["LEAST_F1", "LEAST_GAIN", "LEAST_STEP", "greedy_union", "parts_of", "unions"]

LEAST_F1 = 0.5
LEAST_GAIN = 0.1
LEAST_STEP = 0.02
_MOST_PARTS = 32  # of the most overlap, that a union is chosen from

Ints = npt.NDArray[np.int64]


def parts_of(best: Ints, above: npt.NDArray[np.bool_]) -> dict[int, list[int]]:
    """Feature -> the two or more of the other SAE whose best match it is, above chance."""
    parts: dict[int, list[int]] = {}
    for part in np.flatnonzero(above).tolist():
        parts.setdefault(int(best[part]), []).append(part)
    return {whole: members for whole, members in sorted(parts.items()) if len(members) > 1}


def unions(
    parts: dict[int, list[int]], wholes_FN: scipy.sparse.csr_matrix, parts_FN: scipy.sparse.csr_matrix
) -> Iterator[tuple[int, list[int]]]:
    """Wholes whose firing several of their parts explain together, and better than one, with those parts."""
    own_N = np.zeros(wholes_FN.shape[1], bool)
    for whole, members in parts.items():
        rows = _row(wholes_FN, whole)
        own_N[rows] = True
        firing = {part: _row(parts_FN, part) for part in members}
        most = sorted(members, key=lambda part: (-int(own_N[firing[part]].sum()), part))[:_MOST_PARTS]
        chosen, scores = greedy_union(own_N, len(rows), {part: firing[part] for part in most})
        own_N[rows] = False
        if len(chosen) > 1 and scores[-1] >= LEAST_F1 and scores[-1] - scores[0] >= LEAST_GAIN:
            yield whole, sorted(chosen)


def greedy_union(own_N: npt.NDArray[np.bool_], size: int, firing: dict[int, Ints]) -> tuple[list[int], list[float]]:
    """Parts in the order in which they raise the F1 of their union with the whole's rows most, and the F1 after each."""
    covered_N = np.zeros(len(own_N), bool)
    chosen: list[int] = []
    scores: list[float] = []
    inside, outside = 0, 0  # covered rows that are the whole's, and that are not
    while len(chosen) < len(firing):
        best = (-1.0, -1, 0, 0)
        for part, rows in firing.items():
            if part in chosen:
                continue
            fresh = rows[~covered_N[rows]]
            own = inside + int(own_N[fresh].sum())
            other = inside + outside + len(fresh) - own
            score = 2 * own / (size + own + other)
            if score > best[0]:
                best = (score, part, own, other)
        if scores and best[0] < scores[-1] + LEAST_STEP:
            break
        _, part, inside, outside = best
        chosen.append(part)
        scores.append(best[0])
        covered_N[firing[part]] = True
    return chosen, scores


def _row(matrix: scipy.sparse.csr_matrix, row: int) -> Ints:
    indices: Ints = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return indices
