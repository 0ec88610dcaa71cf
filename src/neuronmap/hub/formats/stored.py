"""Tensors as a file holds them: safetensors, ``.npz``, and pickled files by way of a process of their own.

A header is checked before anything is loaded: a file that was cut off, or whose shapes do not fit, costs no memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import paths
from neuronmap.errors import DamagedError, InputError
from neuronmap.hashing import digest_file
from neuronmap.hub.formats.unpickling import TENSORS, unpickled
from neuronmap.progress import Progress
from neuronmap.saes.metadata import TensorHeader, read_weights_header

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PICKLED", "READABLE", "Stored", "dimensions", "read_config", "read_headers", "read_stored"]

PICKLED = frozenset({".pt", ".pth", ".bin", ".ckpt"})
"""Endings of files that are opened in a process of their own."""
READABLE = PICKLED | {".safetensors", ".npz"}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds.

    Attributes:
        file: where it lies.
        digest: SHA-256 of its bytes.
        tensors: by name, on the CPU, in the precision of the file.
        values: plain values that a pickled file has beside them.
    """

    file: Path
    digest: str
    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def under(self, prefix: str) -> Stored:
        """The part whose names begin with ``prefix`` and ``/``, without that beginning."""
        start = f"{prefix}/"
        inner = self.values.get(prefix)
        return Stored(
            self.file,
            self.digest,
            {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)},
            inner if isinstance(inner, dict) else {},
        )


def read_headers(file: Path) -> dict[str, TensorHeader] | None:
    """Names, types and shapes of a safetensors file without its tensors; None for other kinds.

    Raises:
        DamagedError: for one that was cut off, or whose header is longer than safetensors allows.
    """
    return read_weights_header(file) if file.suffix == ".safetensors" else None


def read_stored(file: Path, progress: Progress | None = None) -> Stored:
    """Read every tensor of a file.

    Args:
        file: ``.safetensors``, ``.npz`` (without pickled members), or one of :data:`PICKLED`.
        progress: where the warning about pickles goes.

    Raises:
        InputError: another ending, or a pickle that is more than weights.
        DamagedError: it cannot be read.
    """
    ending = file.suffix.lower()
    if ending == ".safetensors":
        read_weights_header(file)
        return Stored(file, digest_file(file), _load_safetensors(file))
    if ending == ".npz":
        return Stored(file, digest_file(file), _load_npz(file))
    if ending in PICKLED:
        with unpickled(file, progress) as found:
            return Stored(file, found.digest, _load_safetensors(found.folder / TENSORS), found.values)
    raise InputError(f"{file} does not hold tensors: it ends in none of {', '.join(sorted(READABLE))}.")


def read_config(file: Path, least: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON object of a foreign library.

    Args:
        file: where it lies.
        least: keys that must be there.

    Raises:
        DamagedError: it is not a JSON object, or lacks a key.
    """
    config = paths.read_json(file)
    if not isinstance(config, dict):
        raise DamagedError(f"{file} holds a {type(config).__name__}, not a JSON object.")
    missing = [key for key in least if key not in config]
    if missing:
        raise DamagedError(
            f"{file} lacks {', '.join(missing)}; it has {', '.join(sorted(map(str, config))) or 'nothing'}."
        )
    return config


def dimensions(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Match tensors against axes named by letters, and give the length of each letter.

    Args:
        file: for messages.
        shapes: by tensor name.
        wanted: axes of every tensor that must be there, such as ``{"W_enc": "DF", "b_enc": "F"}``.
        optional: axes of tensors that may be there.

    Raises:
        DamagedError: lists every missing tensor and every one of another shape.
    """
    lengths: dict[str, int] = {}
    faults = [f"{name} is missing" for name in wanted if name not in shapes]
    for name, axes in {**wanted, **(optional or {})}.items():
        shape = shapes.get(name)
        if shape is None:
            continue
        if len(shape) != len(axes):
            faults.append(f"{name} has shape {list(shape)} where {len(axes)} axes ({axes or 'none'}) are needed")
            continue
        for axis, length in zip(axes, shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                needed = [lengths[one] for one in axes]
                faults.append(f"{name} has shape {list(shape)} where {needed} is needed")
                break
    if not faults and min(lengths.values(), default=1) < 1:
        faults.append(f"an axis is empty ({lengths})")
    if faults:
        known = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:12]) or "nothing"
        raise DamagedError(f"{file} cannot be used: {'; '.join(faults)}. It holds {known}.")
    return lengths


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{file} cannot be read: {error}.") from error
    return tensors


def _load_npz(file: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    found: dict[str, Tensor] = {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                found[name] = torch.from_numpy(archive[name])
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise InputError(f"{file} holds pickled arrays, which are not opened.") from error
        raise DamagedError(f"{file} cannot be read as .npz: {error}.") from error
    return found
