"""Where in a model a job looks, checked before it is queued: by the model's configuration alone, without torch.

What cannot be read here (a GGUF file, a hub model that is not on this machine) is left to the job, which checks everything again.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap.models.samples import get_sample

__all__ = ["PlaceFault", "blocks_of", "place_fault"]

COMPONENTS = ("residual_pre", "attention", "attention_heads", "mlp", "mlp_hidden", "residual")
"""Those of :mod:`neuronmap.models.hooks`, which loads torch."""
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""What configurations call the number of blocks."""


class PlaceFault(NamedTuple):
    """What is wrong with a place.

    Attributes:
        field: setting that is wrong.
        message, hint: as for every error.
    """

    field: str
    message: str
    hint: str = ""


def blocks_of(model: str, revision: str | None = None) -> int | None:
    """How many blocks a language model has.

    Args:
        model: sample, folder or hub id.
        revision: of a hub model.

    Returns:
        None where that cannot be read without loading or fetching anything.
    """
    sample = get_sample(model)
    if sample is not None:
        return sample.num_layers
    file = Path(model) / "config.json"
    if not file.is_file():
        cached = _cached_config(model, revision)
        if cached is None:
            return None
        file = cached
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None  # the job says what is wrong with it
    return _count(config) or _count(config.get("text_config")) if isinstance(config, dict) else None


def place_fault(settings: dict[str, Any]) -> PlaceFault | None:
    """What is wrong with ``layer`` and ``component`` of a training, if anything is.

    Args:
        settings: of ``SAEConfig`` by name; ``model_name`` as it will be loaded.
    """
    layer, component = settings.get("layer"), settings.get("component", "residual")
    if not isinstance(component, str) or ":" in component:
        return None
    if component not in COMPONENTS:
        near = difflib.get_close_matches(component, COMPONENTS, n=2, cutoff=0.5)
        return PlaceFault(
            "component",
            f"There is no component {component[:60]!r}. Components: {', '.join(COMPONENTS)}; or a module path with :in or :out.",
            f"Did you mean {' or '.join(near)}?" if near else "",
        )
    blocks = blocks_of(str(settings.get("model_name", "")), settings.get("revision"))
    layers = "" if blocks is None else f" The model has layers 0 to {blocks - 1}."
    if layer is None:
        return PlaceFault("layer", f"Component {component!r} needs a layer.{layers}")
    if blocks is not None and str(layer).isdecimal() and int(layer) >= blocks:
        return PlaceFault("layer", f"There is no layer {layer}.{layers}", f"The middle one is {blocks // 2}.")
    return None


def _count(config: Any) -> int | None:
    found = [config.get(name) for name in _COUNTS] if isinstance(config, dict) else []
    return next((count for count in found if isinstance(count, int) and count > 0), None)


def _cached_config(model: str, revision: str | None) -> Path | None:
    """The configuration of a hub model that was fetched before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
