"""What lies in a model folder, read from the headers of its safetensors files (no weights are loaded)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from neuronmap.errors import ModelFormatError

__all__ = ["StoredWeights", "read_stored_weights"]

_STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class StoredWeights:
    """The weight files of a model folder.

    Attributes:
        files: the safetensors files.
        parameters: number of stored values.
        dtype: the precision most of them are stored in, None if it is not a floating one.
    """

    files: tuple[Path, ...]
    parameters: int
    dtype: torch.dtype | None


def read_stored_weights(folder: Path) -> StoredWeights:
    """Find a folder's weight files and check that they are whole.

    Raises:
        ModelFormatError: if there are none in the safetensors format, or one is missing, cut off or not safetensors.
    """
    files = _weight_files(folder)
    counts: dict[str, int] = {}
    for file in files:
        for kind, count in _header_counts(file).items():
            counts[kind] = counts.get(kind, 0) + count
    most = max(counts, key=lambda kind: counts[kind], default="")
    return StoredWeights(files, sum(counts.values()), _STORED_DTYPES.get(most))


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelFormatError(f"{index} is not a safetensors index: {error!r}.") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelFormatError(f"{folder} lacks weight files named in its index: {', '.join(missing[:5])}.")
        return tuple(folder / name for name in names)
    pickles = sorted(file.name for ending in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(ending))
    if pickles:
        raise ModelFormatError(
            f"{folder} holds its weights only as pickles ({', '.join(pickles[:3])}), which can run any code when they "
            "are read, so NeuronMap does not open them.",
            hint="Use a safetensors version of the model (model.safetensors), or convert it where you trust the file.",
        )
    raise ModelFormatError(
        f"{folder} holds no safetensors weights (model.safetensors or model.safetensors.index.json).",
        hint="A GGUF file is loaded by its own path.",
    )


def _header_counts(file: Path) -> dict[str, int]:
    """Number of values by stored type."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{8 + length + end} bytes announced, {size} there")
        counts: dict[str, int] = {}
        for entry in header.values():
            counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + math.prod(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(
            f"{file} is not a whole safetensors file: {error}.", hint="Download or copy the model again."
        ) from error
    return counts
