"""How much memory a job will need: rules of thumb from the sizes of files, on the high side. Nothing is loaded.

process     512 MiB for Python with torch and transformers
model       weights in the precision they are loaded in: files in half precision count twice (a CPU computes in float32),
            quantised ones four times; 1 GiB for a sample, and for a model that is not on this machine yet
training    4 x weights of the SAE (with gradient and Adam), 64 MiB for a step, up to 1 GiB of activations being shuffled
SAE         its weights
analysis    6 KiB a feature
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from neuronmap.hub import LibraryEntry

__all__ = ["PROCESS_BYTES", "analysis_bytes", "model_bytes", "sae_bytes", "training_bytes"]

PROCESS_BYTES: Final = 512 << 20
_UNKNOWN_MODEL = 1 << 30
_STEP_BYTES = 64 << 20
_FEATURE_BYTES = 6 << 10
_SHUFFLED_ROWS, _SHUFFLED_BYTES = 1_000_000, 1 << 30
_USUAL_WIDTH = 1024


def model_bytes(name: str | None) -> int:
    """Memory of a language model by name."""
    if name is None:
        return 0
    place = _place(name)
    if place is None:
        return _UNKNOWN_MODEL
    if place.is_file():
        return 4 * place.stat().st_size
    sizes = [file.stat().st_size for ending in ("*.safetensors", "*.bin") for file in place.glob(ending)]
    settings = _settings(place)
    single = "float32" in (settings.get("dtype"), settings.get("torch_dtype"))
    return sum(sizes) * (1 if single else 2) or _UNKNOWN_MODEL


def training_bytes(model: str | None, width: int | None, features: int | None, rows: int | None) -> int:
    """Memory of a training.

    Args:
        model: name of the language model.
        width: of the activation; the model's hidden size when None.
        features: of the SAE; eight times the width when None.
        rows: activations; as many as are shuffled at once when None.
    """
    place = _place(model) if model is not None else None
    settings = _settings(place) if place is not None else {}
    width = width or next((int(settings[key]) for key in ("hidden_size", "n_embd", "d_model") if key in settings), 0)
    width = width or _USUAL_WIDTH
    shuffled = min(4 * width * min(rows or _SHUFFLED_ROWS, _SHUFFLED_ROWS), _SHUFFLED_BYTES)
    weights = 4 * 2 * width * (features or 8 * width)
    return PROCESS_BYTES + model_bytes(model) + 4 * weights + _STEP_BYTES + shuffled


def sae_bytes(entry: LibraryEntry) -> int:
    """Memory of an SAE of the library."""
    return 4 * 2 * entry.d_in * entry.d_sae


def analysis_bytes(entry: LibraryEntry) -> int:
    """Memory of what an analysis keeps of an SAE's features."""
    return _FEATURE_BYTES * entry.d_sae


def _place(name: str) -> Path | None:
    """Where a model's files lie on this machine; None if they do not."""
    if Path(name).exists():
        return Path(name)
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _settings(place: Path) -> dict[str, Any]:
    """A model's ``config.json``; empty where there is none to read."""
    try:
        found = json.loads((place / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
