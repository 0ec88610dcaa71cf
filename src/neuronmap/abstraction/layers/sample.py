"""Activations of all layers at a few thousand tokens of text.

A model with a causal mask is run only up to the token that is read: later tokens cannot change it. Windows of equal length form a batch,
so that nothing is padded, and neither batch size nor the tokenizer's padding side has a say. An encoder reads the whole window.

By default 768 windows of at most 32 tokens, each read at one position drawn from 8 to 31, are 16 thousand tokens: about half a minute for
SmolLM2-135M on two cores, and 55 MB for its 31 layers.

Layer 0 is what block 0 is given, layer l the output of block l - 1.

Legend: L layers, N rows, W width, B windows of a batch, T tokens of a window.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.layers.windows import Window
from neuronmap.abstraction.reading import layer_hooks
from neuronmap.errors import HookPointError, InputError, MismatchError
from neuronmap.models import LanguageModel, capture
from neuronmap.progress import Progress, default

__all__ = ["LayerSample", "reads_later_tokens", "sample_layers"]

BATCH_WINDOWS = 64
BATCH_BYTES = 256 << 20
"""Of the activations of one batch, all layers."""
MEMORY_BYTES = 1 << 30
"""A larger sample lies in a temporary file, which is mapped; each layer is read when it is needed."""


@dataclass(frozen=True, eq=False)
class LayerSample:
    """Activations at the tokens that were read.

    Attributes:
        x_LNW: float32 [L, N, W], on the CPU.
        layers: which layer each is.
        context_N: int64 [N], the context of each row, 0 to C - 1.
        first_norm_L: float64 [L], mean length at position 0, which is never read.
    """

    x_LNW: Tensor
    layers: tuple[int, ...]
    context_N: Tensor
    first_norm_L: Tensor


def sample_layers(
    model: LanguageModel,
    windows: Sequence[Window],
    *,
    layers: Sequence[int] | None = None,
    batch_windows: int = BATCH_WINDOWS,
    progress: Progress | None = None,
) -> LayerSample:
    """Run the windows and keep all layers at the tokens that are read, in the order of the windows.

    Args:
        model: a language model or encoder.
        windows: from :func:`~neuronmap.abstraction.layers.windows.draw_windows`.
        layers: which layers; None for all, 0 to the number of blocks.
        batch_windows: windows in one forward pass at most.
        progress: where the bar goes.

    Raises:
        HookPointError: a layer does not exist.
        InputError: a window is longer than the model takes, or activations are not finite.
        MismatchError: the tokens are not of this model's vocabulary.
    """
    chosen = _checked_layers(model, layers)
    hooks = layer_hooks(model, chosen)
    _check_fit(model, windows)
    whole = reads_later_tokens(model)
    lengths = [len(window.ids) if whole else window.reads[-1] + 1 for window in windows]
    starts = np.concatenate([[0], np.cumsum([len(window.reads) for window in windows])])
    x_LNW = _room(len(chosen), int(starts[-1]), hooks[0].width)
    first_L = torch.zeros(len(chosen), dtype=torch.float64)
    with (progress or default()).task("Reading layers", sum(lengths), "tokens") as task:
        for batch in _batches(lengths, batch_windows, len(chosen) * hooks[0].width * 4):
            length = lengths[batch[0]]
            ids_BT = torch.tensor([windows[at].ids[:length] for at in batch])
            found_BTW = capture(model, ids_BT, hooks)
            window_N = [place for place, at in enumerate(batch) for _ in windows[at].reads]
            position_N = [position for at in batch for position in windows[at].reads]
            row_N = [int(starts[at]) + place for at in batch for place in range(len(windows[at].reads))]
            for layer, hook in enumerate(hooks):
                x_BTW = found_BTW[hook.name]
                x_LNW[layer, row_N] = x_BTW[window_N, position_N].float().cpu()
                first_L[layer] += float(torch.linalg.vector_norm(x_BTW[:, 0].float(), dim=1).double().sum())
            task.advance(ids_BT.numel())
    _check_finite(model, x_LNW, chosen)
    contexts = np.repeat([window.context for window in windows], np.diff(starts))
    _, context_N = np.unique(contexts, return_inverse=True)
    return LayerSample(x_LNW, chosen, torch.from_numpy(context_N.astype(np.int64)), first_L / len(windows))


def reads_later_tokens(model: LanguageModel) -> bool:
    """Whether activations depend on later tokens (no causal mask): the model is run on 8 tokens twice, the last one changed."""
    hook = layer_hooks(model, [model.num_layers])[0]
    vocabulary = model.module.get_input_embeddings().weight.shape[0]
    ids_1T = torch.arange(8).add(vocabulary // 2).remainder(vocabulary).unsqueeze(0)
    changed_1T = ids_1T.clone()
    changed_1T[0, -1] = (int(ids_1T[0, -1]) + vocabulary // 3 + 1) % vocabulary
    one_1TW, other_1TW = (capture(model, ids, [hook])[hook.name][:, :-1] for ids in (ids_1T, changed_1T))
    return not torch.equal(one_1TW, other_1TW)


def _batches(lengths: Sequence[int], most: int, token_bytes: int) -> Iterator[list[int]]:
    """Indices of windows of equal length, the longest first."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for at, length in enumerate(lengths):
        by_length[length].append(at)
    for length in sorted(by_length, reverse=True):
        size = max(1, min(most, BATCH_BYTES // (token_bytes * length)))
        for start in range(0, len(by_length[length]), size):
            yield by_length[length][start : start + size]


def _room(layers: int, rows: int, width: int) -> Tensor:
    """float32 [L, N, W], in memory or, if it is large, in a file that goes when it is no longer used."""
    if layers * rows * width * 4 <= MEMORY_BYTES:
        return torch.empty(layers, rows, width)
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(layers, rows, width)))


def _checked_layers(model: LanguageModel, layers: Sequence[int] | None) -> tuple[int, ...]:
    last = model.num_layers
    chosen = tuple(range(last + 1)) if layers is None else tuple(sorted(set(layers)))
    outside = [layer for layer in chosen if not 0 <= layer <= last]
    if outside or not chosen:
        raise HookPointError(
            f"Layer {outside[0] if outside else list(chosen)} cannot be read: {model.identity.name} has layers 0 (the embedding) to {last}"
            " (the output of its last block)."
        )
    return chosen


def _check_fit(model: LanguageModel, windows: Sequence[Window]) -> None:
    if not windows:
        raise InputError("There is nothing to read: no windows were given.")
    longest, largest = max(len(window.ids) for window in windows), max(max(window.ids) for window in windows)
    if model.max_length is not None and longest > model.max_length:
        raise InputError(
            f"A window is {longest} tokens long, but {model.identity.name} takes at most {model.max_length}.",
            hint=f"Use window={model.max_length} or less.",
        )
    vocabulary = model.module.get_input_embeddings().weight.shape[0]
    if largest >= vocabulary:
        raise MismatchError(
            f"Token id {largest:,} is outside the vocabulary of {model.identity.name} ({vocabulary:,} entries): the text was tokenised for"
            " another model.",
            hint="Tokenise with this model's own tokenizer.",
        )


def _check_finite(model: LanguageModel, x_LNW: Tensor, layers: Sequence[int]) -> None:
    bad = [layer for layer, x_NW in zip(layers, x_LNW, strict=True) if not bool(x_NW.isfinite().all())]
    if bad:
        raise InputError(
            f"{model.identity.name} gives NaN or infinite activations at layer {bad[0]}.",
            hint="Load the model in float32 (dtype='float32'); if it stays, the weights are damaged.",
        )
