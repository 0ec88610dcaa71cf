"""Activations for a training, harvested by many hosts before it begins; the training finds them stored, and reuses them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from neuronmap.engines import EngineSettings, running
from neuronmap.errors import ConfigError
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.activations import ActivationStore
    from neuronmap.objects import RemoteFolders
    from neuronmap.training import SAEConfig

__all__ = ["harvest_for_training"]


def harvest_for_training(
    config: SAEConfig, engine: EngineSettings, progress: Progress, *, place: RemoteFolders | None = None
) -> list[ActivationStore]:
    """Harvest what a training on text will ask for: its training part, and its held-out part.

    Workers run the language model, which every host opens by its name; this process writes, in the order of contexts, the files that it
    would write alone.

    Args:
        config: the training.
        engine: where the model runs.
        progress: where notes and bars go.
        place: a bucket; what it has of this and this host has not is brought instead of harvested.

    Returns:
        The stores, of one or two parts.

    Raises:
        ConfigError: also where the training stores nothing (``stream``), or names no text or no language model.
        ModelError, InputError: as the training itself would.
        WorkerLostError: a batch lost one worker after another.
        KeyboardInterrupt: on Ctrl-C; what was done is saved.
    """
    from neuronmap.activations import MaskConfig, harvest
    from neuronmap.activations.spread import Elsewhere
    from neuronmap.hub.buckets import bring_activations
    from neuronmap.hub.opening import ModelSettings
    from neuronmap.hub.spreading import SentModel
    from neuronmap.models import load_model, resolve_hook
    from neuronmap.training.data import split_tokens

    if config.stream:
        raise ConfigError(
            "There is nothing to harvest: with stream = true a training stores no activations.",
            hint="Leave stream out; or start the training itself.",
        )
    for field, what, option in (("corpus", "text", "--text"), ("model_name", "language model", "--model")):
        if getattr(config, field) is None:
            raise ConfigError(
                f"There is nothing to harvest: no {what} was given.", hint=f"Give {option}, or set {field}."
            )
    config = config.with_absolute_paths()
    model = load_model(
        str(config.model_name),
        revision=config.revision,
        dtype=config.model_dtype,
        device=config.device,
        progress=progress,
    )
    train, heldout, in_sample = split_tokens(config, config.corpus, model, progress)
    hook = resolve_hook(model, config.layer, config.component)
    settings = ModelSettings(str(config.model_name), config.revision, config.model_dtype, config.device)
    stores: list[ActivationStore] = []
    with (
        running(engine, progress) as pool,
        Elsewhere(pool, SentModel.of(model, settings)) if pool is not None else nullcontext() as elsewhere,
    ):
        mask = MaskConfig(**config.mask_fields())
        for tokens in [train] if in_sample else [train, heldout]:
            if place is not None:
                bring_activations(
                    model, tokens, hook, dtype=config.store_dtype, mask=mask, place=place, progress=progress
                )
            stores += harvest(
                model,
                tokens,
                [hook],
                dtype=config.store_dtype,
                mask=mask,
                elsewhere=elsewhere,
                progress=progress,
            ).values()
    return stores
