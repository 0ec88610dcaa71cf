"""All comparisons of layers together, as the record that reports hold.

Within one model every layer is compared with every other; with two models, each layer of the first with each of the second, on the same
text. What is said of single layers (dimension, lengths, blocks) is of the first model.

Legend: L layers of the first model, M of the second, N rows, W, V widths, R resamples, C contexts of the text, K concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.layers.changepoints import Blocks, find_blocks
from neuronmap.abstraction.layers.cka import DebiasedCKA, PairwiseCKA, grams
from neuronmap.abstraction.layers.geometry import isotropy, mean_norm, participation_ratio, two_nn
from neuronmap.abstraction.layers.neighbours import mutual_neighbours
from neuronmap.abstraction.layers.sample import sample_layers
from neuronmap.abstraction.layers.scaling import centred, standardized
from neuronmap.abstraction.layers.shape import concept_overlap, predictivity, procrustes
from neuronmap.abstraction.layers.windows import CONTEXTS, FIRST, WINDOW, draw_shared_windows, draw_windows
from neuronmap.abstraction.record import LayerSimilarity, Matrix, Series
from neuronmap.corpora import TokenSet
from neuronmap.errors import InputError
from neuronmap.models import LanguageModel
from neuronmap.progress import Progress, Task, default
from neuronmap.statistics.resampling import draw_clusters

__all__ = ["compare_layers", "layer_similarity"]

NEIGHBOURS = 10
RESAMPLES = 200
BATCH_ROWS = 1024
"""Rows whose Gram matrices of all layers are held at once; up to this many, CKA is exact on all rows."""
PREDICTED_ROWS = 1024
"""Rows used for predictivity at most, whose cost grows with their third power."""
_LEAST_ROWS = 64


def layer_similarity(
    model: LanguageModel,
    tokens: TokenSet,
    *,
    other: LanguageModel | None = None,
    layers: Sequence[int] | None = None,
    other_layers: Sequence[int] | None = None,
    contexts: int = CONTEXTS,
    per_context: int = 1,
    window: int = WINDOW,
    first: int = FIRST,
    directions_LKW: Tensor | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> LayerSimilarity:
    """Read a text with a model, or the same text with two, and compare their layers.

    Args:
        model: a language model or encoder.
        tokens: the text, by the model's tokenizer.
        other: a second model to compare with.
        layers: layers of the model; None for all, 0 (the embedding) to the number of blocks.
        other_layers: layers of the second one.
        contexts, per_context, window, first: as for :func:`~neuronmap.abstraction.layers.windows.draw_windows`; one token a context with
            two models.
        directions_LKW: directions of the concepts at each of the layers, float [L, K, W], for the overlap of their subspaces.
        resamples: of contexts, for errors and intervals; none of them runs the model.
        seed: of all that is drawn.
        progress: where bars go.

    Raises:
        HookPointError: a layer does not exist.
        InputError: there is too little text, or the models cannot read the same one.

    Example:
        >>> found = layer_similarity(load_model("smollm2-135m"), tokens)       # doctest: +SKIP
        >>> found.cka[10][20], found.blocks                                    # doctest: +SKIP
    """
    progress = progress or default()
    size = min([window, *(limit for limit in (model.max_length, other and other.max_length) if limit)])
    if other is None:
        windows = draw_windows(tokens, contexts=contexts, per_context=per_context, window=size, first=first, seed=seed)
        _check_rows(sum(len(part.reads) for part in windows))
    else:
        windows, other_windows = draw_shared_windows(
            tokens, model, other, contexts=contexts, window=size, first=first, seed=seed
        )
        _check_rows(len(windows))
    sample = sample_layers(model, windows, layers=layers, progress=progress)
    second = None if other is None else sample_layers(other, other_windows, layers=other_layers, progress=progress)
    return compare_layers(
        sample.x_LNW,
        layers=sample.layers,
        context_N=sample.context_N,
        first_norm_L=sample.first_norm_L,
        y_MNV=None if second is None else second.x_LNW,
        other_layers=None if second is None else second.layers,
        other_model=None if other is None else other.identity.name,
        text=f"{tokens.report.corpus}/{tokens.part}",
        directions_LKW=directions_LKW,
        resamples=resamples,
        seed=seed,
        progress=progress,
    )


def compare_layers(
    x_LNW: Tensor,
    *,
    layers: Sequence[int] | None = None,
    context_N: Tensor | None = None,
    first_norm_L: Tensor | None = None,
    y_MNV: Tensor | None = None,
    other_layers: Sequence[int] | None = None,
    other_model: str | None = None,
    text: str = "",
    directions_LKW: Tensor | None = None,
    resamples: int = RESAMPLES,
    batch_rows: int = BATCH_ROWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> LayerSimilarity:
    """Compare layers by their activations.

    Args:
        x_LNW: float32 [L, N, W].
        layers: which layer each is; 0 to L - 1 when left out.
        context_N: int64 [N], the context of each row, 0 to C - 1; None when each row has its own.
        first_norm_L: mean length at position 0.
        y_MNV: float32 [M, N, V], a second model's at the same places.
        other_layers: which layer each of them is.
        other_model: its name.
        text: which text, for the record.
        directions_LKW: directions of K concepts at each layer.
        resamples: R, at least 2.
        batch_rows: rows in one batch of CKA at most.
        seed: of resamples and of the held-out contexts.
        progress: where the bar goes.

    Returns:
        The record; null wherever a layer does not vary.

    Raises:
        InputError: fewer than 64 rows, or shapes do not belong together.
    """
    rows = _checked_shapes(x_LNW, y_MNV, layers, other_layers, directions_LKW)
    context_N = torch.arange(rows) if context_N is None else context_N
    weights_RC = draw_clusters(["all"] * (int(context_N.max()) + 1), max(resamples, 2), seed).weights_RG
    with (progress or default()).task("Comparing layers", 6, "measures") as task:
        raw = _cka(x_LNW, y_MNV, batch_rows, scale="raw")
        task.advance(1, done="CKA")
        even = _cka(x_LNW, y_MNV, batch_rows, scale="even")
        own = even if y_MNV is None else _cka(x_LNW, None, batch_rows, scale="even")
        error_LM = even.resampled(weights_RC, context_N).std(0)
        blocks = _blocks(own, weights_RC, context_N)
        task.advance(1, done="standardised CKA")
        pairs = _other_measures(x_LNW, y_MNV, context_N, seed, task)
        single = _single_layers(x_LNW, own, weights_RC, context_N)
        task.advance(1, done="dimensions")
    labels = list(range(len(x_LNW)) if layers is None else layers)
    second = labels if y_MNV is None else list(range(len(y_MNV)) if other_layers is None else other_layers)
    return LayerSimilarity(
        rows=rows,
        text=text,
        layers=labels,
        other_layers=second,
        other_model=other_model,
        cka=_matrix(raw.value_LM),
        cka_standardized=_matrix(even.value_LM),
        cka_error=_matrix(torch.where(even.value_LM.isfinite(), error_LM, torch.nan)),
        **pairs,
        concept_overlap=None
        if directions_LKW is None or y_MNV is not None
        else _matrix(concept_overlap(directions_LKW)),
        **single,
        first_position_norm=_series([torch.nan] * len(x_LNW) if first_norm_L is None else first_norm_L.tolist()),
        blocks=[labels[start] for start in blocks.starts],
        block_support=blocks.support,
    )


def _cka(x_LNW: Tensor, y_MNV: Tensor | None, batch_rows: int, *, scale: str) -> PairwiseCKA:
    """Rows in as few batches as their size allows, all about equally large."""
    prepare = centred if scale == "raw" else standardized
    pairs, rows = DebiasedCKA(), x_LNW.shape[1]
    for part in np.array_split(np.arange(rows), -(-rows // batch_rows)):
        chosen = slice(int(part[0]), int(part[-1]) + 1)
        k_Lnn = grams(prepare(x_NW)[chosen] for x_NW in x_LNW)
        pairs.add_grams(k_Lnn, None if y_MNV is None else grams(prepare(y_NV)[chosen] for y_NV in y_MNV))
    return pairs.result()


def _other_measures(x_LNW: Tensor, y_MNV: Tensor | None, context_N: Tensor, seed: int, task: Task) -> dict[str, Matrix]:
    found = {"mutual_knn": _matrix(mutual_neighbours(x_LNW, y_MNV, k=NEIGHBOURS, context_N=context_N))}
    task.advance(1, done="neighbours")
    found["procrustes"] = _matrix(procrustes(x_LNW, y_MNV))
    task.advance(1, done="rotations")
    few = slice(0, PREDICTED_ROWS)
    context_n = torch.from_numpy(np.unique(context_N[few].numpy(), return_inverse=True)[1])
    y_MnV = None if y_MNV is None else y_MNV[:, few]
    found["predictivity"] = _matrix(predictivity(x_LNW[:, few], y_MnV, context_N=context_n, seed=seed))
    task.advance(1, done="predictions")
    return found


def _single_layers(x_LNW: Tensor, own: PairwiseCKA, weights_RC: Tensor, context_N: Tensor) -> dict[str, Any]:
    dimensions = [two_nn(x_NW, weights_RC=weights_RC, context_N=context_N) for x_NW in x_LNW]
    ratios = [participation_ratio(x_NW, float(hsic)) for x_NW, hsic in zip(x_LNW, own.own_L, strict=True)]
    return {
        "intrinsic_dimension": dimensions,
        "participation_ratio": ratios,
        "mean_norm": [mean_norm(x_NW) for x_NW in x_LNW],
        "isotropy": [isotropy(x_NW) for x_NW in x_LNW],
    }


def _blocks(own: PairwiseCKA, weights_RC: Tensor, context_N: Tensor) -> Blocks:
    """Blocks of the layers that vary; others belong to the block before them."""
    varies = own.value_LM.diagonal().isfinite().nonzero().flatten()
    if len(varies) == 0:
        return Blocks([0], [1.0])
    at = torch.meshgrid(varies, varies, indexing="ij")
    resampled_RLL = own.resampled(weights_RC, context_N)[:, at[0], at[1]]
    found = find_blocks(own.value_LM[at].numpy(), resampled_RLL.numpy())
    return Blocks([0, *(int(varies[start]) for start in found.starts[1:])], found.support)


def _matrix(value_LM: Tensor) -> Matrix:
    return [_series(row) for row in value_LM.tolist()]


def _series(values: Sequence[float]) -> Series:
    return [value if np.isfinite(value) else None for value in values]


def _check_rows(rows: int) -> None:
    if rows < _LEAST_ROWS:
        raise InputError(
            f"The text gives {rows:,} tokens in different contexts; comparing layers needs at least {_LEAST_ROWS}.",
            hint="Give more text.",
        )


def _checked_shapes(
    x_LNW: Tensor,
    y_MNV: Tensor | None,
    layers: Sequence[int] | None,
    other_layers: Sequence[int] | None,
    directions_LKW: Tensor | None,
) -> int:
    if x_LNW.ndim != 3 or (y_MNV is not None and y_MNV.ndim != 3):
        raise InputError(f"Activations must be [layers, rows, width], not {list(x_LNW.shape)}.")
    rows = int(x_LNW.shape[1])
    _check_rows(rows)
    if y_MNV is not None and y_MNV.shape[1] != rows:
        raise InputError(f"The models have {rows:,} and {y_MNV.shape[1]:,} rows; they must be the same tokens.")
    for name, given, side in (("layers", layers, x_LNW), ("other_layers", other_layers, y_MNV)):
        if given is not None and (side is None or len(given) != len(side)):
            raise InputError(f"{name} names {len(given)} layers; there are {0 if side is None else len(side)}.")
    if directions_LKW is not None and (directions_LKW.ndim != 3 or len(directions_LKW) != len(x_LNW)):
        raise InputError(
            f"Directions must be [{len(x_LNW)} layers, concepts, width], not {list(directions_LKW.shape)}."
        )
    return rows
