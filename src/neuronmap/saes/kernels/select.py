"""Exact selection of the largest pre-activations: k in each row, or B k in the whole batch.

Shapes: B rows, F features, K = k, N kept entries.

Ties go to the lowest feature, then (batch rule) the lowest row. Only positive values are kept: every rule that uses
these applies a ReLU afterwards, so zeros and negatives would contribute nothing. What is found never
depends on how it was searched for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.workspace import Workspace

__all__ = [
    "positive_above",
    "sampled_bound",
    "select_positive",
    "select_top_k",
    "select_top_of_batch",
    "top_of_entries",
]

GROUP = 8
"""Features in a group of the two-stage search of :func:`select_top_k`."""
CHUNK_ENTRIES = 2**22
"""Entries searched at a time by the batch rule: the mask of a chunk (4 MiB) stays in cache."""
SAMPLE_ROWS = 64
"""Rows looked at to guess where the batch's threshold lies."""


def select_top_k(pre_BF: Tensor, k: int) -> SparseCode:
    """The k largest of each row, those of them that are positive.

    Args:
        pre_BF: [B, F] pre-activations.
        k: 1 to F.

    Returns:
        At most k entries a row.
    """
    num_rows, num_features = pre_BF.shape
    if k >= num_features:
        return select_positive(pre_BF)
    value_BK, feature_BK = _largest(pre_BF, k + 1)
    tied_B = (value_BK[:, k - 1] == value_BK[:, k]) & (value_BK[:, k] > 0)
    value_BK, feature_BK = value_BK[:, :k], feature_BK[:, :k]
    if bool(tied_B.any()):
        rows = torch.nonzero(tied_B).view(-1)
        ordered = torch.sort(pre_BF[rows], dim=1, descending=True, stable=True)
        value_BK[rows], feature_BK[rows] = ordered.values[:, :k], ordered.indices[:, :k]
    row_BK = torch.arange(num_rows, device=pre_BF.device).unsqueeze(1).expand(-1, k)
    active_BK = value_BK > 0
    if bool(active_BK.all()):
        offset_R = torch.arange(0, num_rows * k + 1, k, device=pre_BF.device)
        parts = (row_BK.reshape(-1), feature_BK.reshape(-1), value_BK.reshape(-1))
        return SparseCode(*parts, offset_R, num_features)
    offset_R = torch.zeros(num_rows + 1, dtype=torch.int64, device=pre_BF.device)
    torch.cumsum(active_BK.sum(1), 0, out=offset_R[1:])
    return SparseCode(row_BK[active_BK], feature_BK[active_BK], value_BK[active_BK], offset_R, num_features)


def select_top_of_batch(pre_BF: Tensor, count: int, workspace: Workspace) -> SparseCode:
    """The ``count`` largest positive entries of the whole matrix (BatchTopK, arXiv 2412.06410).

    A flat top-k over B F entries costs as much as two or three encoder GEMMs. Here a few rows tell about where the
    threshold lies, one pass collects what is above a somewhat lower bound, and the exact cut is made among those.

    Args:
        pre_BF: [B, F] pre-activations, contiguous.
        count: entries to keep, B k.
        workspace: scratch space.

    Returns:
        ``count`` entries, or all positive ones if there are fewer.
    """
    num_rows, num_features = pre_BF.shape
    flat_N, value_N = _at_least(pre_BF, count, workspace)
    kept = top_of_entries(value_N, count)
    if kept is not None:
        flat_N, value_N = flat_N[kept], value_N[kept]
    return SparseCode.from_flat(flat_N, value_N, num_rows, num_features)


def top_of_entries(value_N: Tensor, count: int) -> Tensor | None:
    """int64 [count], ascending positions of the ``count`` largest values, of equal ones the first; None for all of them."""
    surplus = value_N.numel() - count
    if surplus <= 0:
        return None
    cut = torch.kthvalue(value_N, surplus + 1).values
    keep_N = value_N > cut
    tied = torch.nonzero(value_N == cut).view(-1)
    keep_N[tied[: count - int(torch.count_nonzero(keep_N))]] = True
    return torch.nonzero(keep_N).view(-1)


def select_positive(pre_BF: Tensor) -> SparseCode:
    """All positive entries."""
    flat_N = torch.nonzero(pre_BF.reshape(-1) > 0).view(-1)
    return SparseCode.from_flat(flat_N, torch.take(pre_BF, flat_N), *pre_BF.shape)


def positive_above(pre_BF: Tensor, bound: float, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """Entries above a bound >= 0: ascending flat positions int64 [N] and values [N]."""
    num_rows, num_features = pre_BF.shape
    step = max(1, CHUNK_ENTRIES // num_features)
    mask = workspace.get("select.mask", (min(step, num_rows) * num_features,), torch.bool)
    found: list[Tensor] = []
    for start in range(0, max(1, num_rows), step):
        part = pre_BF[start : start + step].view(-1)
        torch.gt(part, bound, out=mask[: part.numel()])
        found.append(torch.nonzero(mask[: part.numel()]).view(-1).add_(start * num_features))
    flat_N = torch.cat(found) if len(found) > 1 else found[0]
    return flat_N, torch.take(pre_BF, flat_N)


def sampled_bound(pre_BF: Tensor, per_row: float) -> float:
    """A bound >= 0 that about ``per_row`` entries of a row exceed, from a few evenly spaced rows."""
    sample = pre_BF[:: max(1, pre_BF.shape[0] // SAMPLE_ROWS)].reshape(-1)
    wanted = int(per_row * sample.numel() / pre_BF.shape[1])
    if wanted >= sample.numel():
        return 0.0
    return max(0.0, float(torch.kthvalue(sample, sample.numel() - wanted).values))


def _at_least(pre_BF: Tensor, count: int, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """All entries above some bound, at least ``count`` of them, or all positive ones if there are fewer."""
    per_row = count / pre_BF.shape[0]
    for margin in (1.3, 3.0):
        bound = sampled_bound(pre_BF, margin * per_row + 1.0)
        found = positive_above(pre_BF, bound, workspace)
        if found[0].numel() >= count or bound == 0.0:
            return found
    return positive_above(pre_BF, 0.0, workspace)


def _largest(pre_BF: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the ``count`` largest of each row, descending; which of equal ones is undefined.

    On a CPU ``torch.topk`` keeps a heap while count <= F / 64 and falls back to a selection over whole rows above
    that, three times slower at the border. Up to F / 24 two stages are quicker: the largest of each group of
    features (strided, so that the pass is contiguous), then a search among the members of the ``count`` groups with
    the largest maxima. No other group can hold a value that is missing.
    """
    num_rows, num_features = pre_BF.shape
    if pre_BF.is_cuda or num_features % GROUP or not 24 * count <= num_features < 64 * count:
        values, indices = torch.topk(pre_BF, count, dim=1)
        return values, indices
    groups = num_features // GROUP
    members = torch.arange(0, num_features, groups, device=pre_BF.device)
    peak_BG = pre_BF.view(num_rows, GROUP, groups).amax(1)
    group_BK = torch.topk(peak_BG, count, dim=1, sorted=False).indices
    feature_BC = (group_BK.unsqueeze(2) + members).view(num_rows, count * GROUP)
    values, position = torch.topk(pre_BF.gather(1, feature_BC), count, dim=1)
    return values, feature_BC.gather(1, position)
