"""A model read at the items of concepts, at its layers: one forward pass for all of both. Which positions are read, and how, is
:mod:`neuronmap.activations.items`.

Legend: L layers, N items, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronmap.activations.items import BATCH_TOKENS, run_items
from neuronmap.concepts.items import ConceptData
from neuronmap.errors import HookPointError, InputError
from neuronmap.models import HookPoint, LanguageModel, resolve_hook
from neuronmap.progress import Progress

__all__ = ["Reading", "check_layers", "layer_hooks", "read_concepts"]


@dataclass(frozen=True, eq=False)
class Reading:
    """Activations of one concept's items at the tokens that are read.

    Attributes:
        data: the items that were read, in order.
        layers: the layers that were read, ascending; 0 is the embedding.
        x_LNW: float32 [L, N, W], on the CPU.
        before_NW: float32 [N, W], mean embedding of the tokens from position 1 to the one that is read.
        position_N: int64 [N], its position.
        dropped: items left out because they would be read at position 0.
    """

    data: ConceptData
    layers: tuple[int, ...]
    x_LNW: Tensor
    before_NW: Tensor
    position_N: Tensor
    dropped: int


def check_layers(model: LanguageModel, layers: Sequence[int] | None, stride: int = 1) -> tuple[int, ...]:
    """The layers to read: those given, or every ``stride``-th with the embedding and the last one.

    Raises:
        HookPointError: a layer does not exist, or the embedding is not among them.
    """
    last = model.num_layers
    if layers is None:
        return tuple(sorted({*range(0, last + 1, stride), last}))
    wanted = tuple(sorted(set(layers)))
    outside = [layer for layer in wanted if not 0 <= layer <= last]
    if outside or not wanted:
        raise HookPointError(
            f"Layer {outside[0] if outside else list(layers)} cannot be read: {model.identity.name} has layers 0 (the embedding) to "
            f"{last} (the output of its last block)."
        )
    if wanted[0] != 0:
        raise HookPointError("Layer 0, the embedding, must be among the layers: it is the baseline of every curve.")
    return wanted


def layer_hooks(model: LanguageModel, layers: Sequence[int]) -> list[HookPoint]:
    """Where each layer is read: what block 0 is given, or the output of block ``layer - 1``."""
    return [
        resolve_hook(model, 0, "residual_pre") if layer == 0 else resolve_hook(model, layer - 1, "residual")
        for layer in layers
    ]


def read_concepts(
    model: LanguageModel,
    data: Sequence[ConceptData],
    layers: Sequence[int],
    *,
    batch_tokens: int = BATCH_TOKENS,
    title: str = "Reading",
    progress: Progress | None = None,
) -> list[Reading]:
    """Run every text once, and read all layers at the items' tokens.

    Args:
        model: the language model, or an encoder.
        data: items of some concepts.
        layers: see :func:`check_layers`.
        batch_tokens: tokens in one forward pass.
        title: what the progress bar says.
        progress: where the bar goes.

    Raises:
        ModelError: the tokenizer cannot place tokens in the text.
        InputError: a text is too long, no item of a concept can be read, or activations are not finite.
    """
    hooks = layer_hooks(model, layers)
    places, taken = run_items(model, data, hooks, batch_tokens, title, progress)
    readings = []
    for part, found in zip(data, places, strict=True):
        items = tuple(item for item, _ in found)
        x_LNW = torch.stack([torch.stack(taken[item.text, position][1:]) for item, position in found], dim=1)
        if not bool(x_LNW.isfinite().all()):
            bad = [layer for layer, x_NW in zip(layers, x_LNW, strict=True) if not bool(x_NW.isfinite().all())]
            raise InputError(
                f"{model.identity.name} gives NaN or infinite activations at layers {bad} for {part.name}."
            )
        readings.append(
            Reading(
                data=ConceptData(part.name, part.classes, items, part.warnings),
                layers=tuple(layers),
                x_LNW=x_LNW,
                before_NW=torch.stack([taken[item.text, position][0] for item, position in found]),
                position_N=torch.tensor([position for _, position in found]),
                dropped=len(part.items) - len(items),
            )
        )
    return readings
