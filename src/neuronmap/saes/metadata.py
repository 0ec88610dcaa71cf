"""What a bundle says about itself, readable without torch: the metadata block, the folder's files, the weights' header.

<bundle>/cfg.json                    SAELens 6 configuration; ours lies under metadata.neuronmap
<bundle>/sae_weights.safetensors     float32 tensors under SAELens' names
<bundle>/README.md                   model card
<bundle>/metrics.json                final evaluation (optional)
<bundle>/history.parquet             training curves (optional)
<bundle>/evaluations/                records of evaluation suites, one file each (optional)
<bundle>/analyses/                   what was attached later (optional)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from neuronmap import paths
from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError, DamagedError, InputError

__all__ = [
    "ANALYSES_FOLDER",
    "CARD_FILE",
    "CONFIG_FILE",
    "EVALUATIONS_FOLDER",
    "FORMAT_VERSION",
    "METRICS_FILE",
    "WEIGHTS_FILE",
    "BundleInfo",
    "BundleMetadata",
    "TensorHeader",
    "is_bundle",
    "read_bundle_info",
    "read_weights_header",
    "summary_numbers",
]

FORMAT_VERSION = 1
CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
METRICS_FILE = "metrics.json"
CARD_FILE = "README.md"
ANALYSES_FOLDER = "analyses"
EVALUATIONS_FOLDER = "evaluations"

_PICKLE_ENDINGS = frozenset({".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib"})
_HEADER_LIMIT = 100 << 20  # the limit that safetensors itself sets


class BundleMetadata(FrozenConfig):
    """Where an SAE comes from; stored in ``cfg.json`` under ``metadata.neuronmap``.

    ``save_bundle`` fills the fields that it knows better than the caller: ``architecture``, ``options``,
    ``neuronmap_version``, ``created`` and ``weights_digest``.
    """

    format_version: int = FORMAT_VERSION
    """Version of this block."""
    neuronmap_version: str = Field(default_factory=lambda: version("neuronmap"))
    """The NeuronMap that wrote the bundle."""
    created: str | None = None
    """When the bundle was first written, ISO 8601 in UTC."""
    architecture: str | None = None
    """NeuronMap's name of the architecture; ``cfg.json`` itself names the inference form."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The architecture's options (``k``, ...)."""
    model: dict[str, Any] | None = None
    """Identity of the language model: name, revision, architecture, model_digest, tokenizer_digest, dtype,
    hidden_size, num_layers."""
    hook: dict[str, Any] | None = None
    """Where activations were taken: name, layer, component, module_path, side, width."""
    hook_out: dict[str, Any] | None = None
    """Transcoders: the hook that is reconstructed, as in ``hook``."""
    hooks: tuple[dict[str, Any], ...] | None = None
    """Crosscoders: the hooks that are read and reconstructed, in the order of the weights; ``hook`` is then empty."""
    corpus: dict[str, Any] | None = None
    """Text it was trained on: name, digest, counts, context_length."""
    training: dict[str, Any] | None = None
    """The training configuration, complete."""
    seed: int | None = None
    """The run's seed."""
    tokens_seen: int | None = Field(default=None, ge=0)
    """Activation rows trained on, repeats counted."""
    steps: int | None = Field(default=None, ge=0)
    """Optimiser steps."""
    input_scale: float | None = Field(default=None, gt=0)
    """The scalar that inputs were multiplied by in training; it is folded into the weights already."""
    calibration: dict[str, Any] = Field(default_factory=dict)
    """Figures of the threshold calibration (threshold, l0), where there was one."""
    tags: tuple[str, ...] = ()
    """Free words to search for."""
    origin: dict[str, Any] | None = None
    """For SAEs that were not trained here: the format, version and digest they were read from, and their metadata."""
    weights_digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """SHA-256 of ``sae_weights.safetensors``."""
    notes: str = ""
    """Free text."""


class TensorHeader(NamedTuple):
    """Type and shape of one tensor, from the head of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """What can be known of a bundle without loading its weights.

    Attributes:
        folder: where it lies.
        kind: ``neuronmap`` if it holds our metadata block, else ``saelens``.
        architecture: NeuronMap's name for our bundles; SAELens' own name for plain SAELens folders.
        d_in: width of the activation.
        d_sae: number of features.
        k: active features per row where the architecture has a k, else None.
        config: ``cfg.json`` as it is.
        metadata: our block, or None.
        tensors: type and shape of each stored tensor.
        metrics: the figures of ``metrics.json`` (:func:`summary_numbers`); empty if there is none.
    """

    folder: Path
    kind: Literal["neuronmap", "saelens"]
    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    config: dict[str, Any]
    metadata: BundleMetadata | None
    tensors: dict[str, TensorHeader]
    metrics: dict[str, float]


def is_bundle(folder: Path) -> bool:
    """Whether the folder holds at least one of the two files that make a bundle (it may still be damaged)."""
    return (folder / CONFIG_FILE).is_file() or (folder / WEIGHTS_FILE).is_file()


def read_bundle_info(folder: str | Path) -> BundleInfo:
    """Read configuration, metadata and the weights' header; no weights and no torch.

    Args:
        folder: a NeuronMap bundle or a folder saved by SAELens.

    Raises:
        InputError: the folder does not exist or is not a bundle; the message says what is missing.
        DamagedError: a file is cut off, not JSON, or lacks what it must have.
    """
    folder = Path(folder)
    _require_files(folder)
    config = paths.read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise DamagedError(f"{folder / CONFIG_FILE} holds a {type(config).__name__}, not a JSON object.")
    metadata = _read_metadata(folder, config)
    d_in, d_sae = (_positive_integer(folder, config, key) for key in ("d_in", "d_sae"))
    if metadata is not None:
        architecture = metadata.architecture or ""
    else:
        architecture = str(config.get("architecture", "standard"))
    k = metadata.options.get("k") if metadata is not None else _plain_k(config)
    return BundleInfo(
        folder=folder,
        kind="saelens" if metadata is None else "neuronmap",
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        k=k if isinstance(k, int) else None,
        config=config,
        metadata=metadata,
        tensors=read_weights_header(folder / WEIGHTS_FILE),
        metrics=_read_metrics(folder / METRICS_FILE),
    )


def read_weights_header(file: Path) -> dict[str, TensorHeader]:
    """Names, types and shapes in a safetensors file; finds files that were cut off.

    Raises:
        DamagedError: if the header is not valid or the file's length is not what the header says.
    """
    size = file.stat().st_size
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise DamagedError(f"{file} is not a safetensors file, or it was cut off ({size} bytes).")
        raw = handle.read(length)
    try:
        header = json.loads(raw)
        tensors = {
            name: TensorHeader(str(entry["dtype"]), tuple(int(length) for length in entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise DamagedError(f"{file} has no valid safetensors header: {error!r}.") from error
    if size != 8 + length + end:
        raise DamagedError(
            f"{file} has {size} bytes, but its header says {8 + length + end}: it was cut off or changed."
        )
    return tensors


def summary_numbers(metrics: Any) -> dict[str, float]:
    """The figures to show of a ``metrics.json``: those under ``summary``, or all of them where there is none."""
    summary = metrics.get("summary") if isinstance(metrics, dict) else None
    return _flat_numbers(summary if isinstance(summary, dict) else metrics)


def _flat_numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Finite numbers of nested dictionaries by dotted name; everything else is left out."""
    found: dict[str, float] = {}
    if isinstance(value, dict):
        for name, inner in value.items():
            found.update(_flat_numbers(inner, f"{prefix}.{name}" if prefix else str(name)))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        found[prefix] = value
    return found


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; an SAE bundle is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}.")
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if not missing:
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _PICKLE_ENDINGS)
    if pickles:
        raise InputError(
            f"{folder} holds {', '.join(pickles)} and no {' and no '.join(missing)}. Pickle files can run any program "
            "when they are opened, so NeuronMap never reads them.",
            hint=f"Save the SAE as {WEIGHTS_FILE} with the library that made it.",
        )
    if len(missing) == 2:
        found = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
        raise InputError(
            f"{folder} is not an SAE bundle: it has neither {CONFIG_FILE} nor {WEIGHTS_FILE} (found: {found})."
        )
    raise DamagedError(f"The SAE bundle {folder} is incomplete: {missing[0]} is missing.")


def _read_metadata(folder: Path, config: dict[str, Any]) -> BundleMetadata | None:
    outer = config.get("metadata")
    if not isinstance(outer, dict) or "neuronmap" not in outer:
        return None
    block = outer["neuronmap"]
    where = f"{folder / CONFIG_FILE}: metadata.neuronmap"
    if not isinstance(block, dict):
        raise DamagedError(f"{where} is a {type(block).__name__}, not a JSON object.")
    if block.get("format_version") != FORMAT_VERSION:
        raise DamagedError(
            f"{where} has format version {block.get('format_version')!r}; this NeuronMap reads {FORMAT_VERSION}.",
            hint=f"It was written by NeuronMap {block.get('neuronmap_version')}; this is {version('neuronmap')}.",
        )
    try:
        metadata = BundleMetadata.from_dict(block)
    except (ConfigError, TypeError) as error:
        raise DamagedError(f"{where} is not valid: {error}") from error
    if not metadata.architecture:
        raise DamagedError(f"{where} names no architecture.")
    return metadata


def _positive_integer(folder: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DamagedError(f"{folder / CONFIG_FILE}: {key} must be a whole number of at least 1, got {value!r}.")
    return value


def _plain_k(config: dict[str, Any]) -> Any:
    old = config.get("activation_fn_kwargs")  # before SAELens 6
    k = config.get("k", old.get("k") if isinstance(old, dict) else None)
    return k if k is not None else config.get("kval_topk")  # temporal


def _read_metrics(file: Path) -> dict[str, float]:
    return summary_numbers(paths.read_json(file)) if file.is_file() else {}
