"""What harvesting is measured against: the model cut at the hook, and its matrix products alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuronmap.models import LanguageModel


def cut(model: LanguageModel, blocks: int) -> nn.Module:
    """A copy of the Hugging Face backbone (Llama's layout) with its first blocks only and no final norm."""
    backbone = copy.deepcopy(model.backbone)
    backbone.layers = backbone.layers[:blocks]
    backbone.norm = nn.Identity()
    return backbone.eval()


def products_alone(module: nn.Module, tokens: int) -> Callable[[], None]:
    """All products of a model's linear layers for that many tokens, into buffers that are there already.

    No pass through the model can be faster with this BLAS: attention, norms, activation functions and fresh memory come on top.
    """
    generator = torch.Generator().manual_seed(0)
    weights_OI = [layer.weight.detach() for layer in module.modules() if isinstance(layer, nn.Linear)]
    inputs: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    for weight_OI in weights_OI:
        wide, narrow = weight_OI.shape
        inputs.setdefault(narrow, torch.randn(tokens, narrow, generator=generator))
        outputs.setdefault(wide, torch.empty(tokens, wide))

    @torch.inference_mode()
    def multiply() -> None:
        for weight_OI in weights_OI:
            torch.mm(inputs[weight_OI.shape[1]], weight_OI.T, out=outputs[weight_OI.shape[0]])

    return multiply
