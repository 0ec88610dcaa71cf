"""The same architecture with random weights: what a probe finds without anything learned."""

from __future__ import annotations

import torch

from neuronmap.errors import ModelFormatError
from neuronmap.models import LanguageModel

__all__ = ["untrained_like"]


def untrained_like(model: LanguageModel, seed: int) -> LanguageModel:
    """A model of the same class and configuration, as initialised before training; in the model's precision, on its device.

    Takes as much memory as the model again.

    Args:
        model: what to copy the shape of.
        seed: of the weights.

    Raises:
        ModelFormatError: the class cannot be made from its configuration alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = type(model.module)(model.module.config)
        except (TypeError, ValueError) as error:
            raise ModelFormatError(
                f"{model.identity.architecture} cannot be made with random weights: {error}",
                hint="Set untrained = false to go without this baseline.",
            ) from error
    module = module.to(device=model.device, dtype=model.dtype)
    return LanguageModel(
        module,
        model.tokenizer,
        name=f"{model.identity.name} (random weights)",
        model_digest=f"random:{seed}:{model.identity.model_digest}",
    )
