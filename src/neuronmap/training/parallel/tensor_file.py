"""A safetensors file that is written in parts: for tensors that no process holds as a whole.

The format is eight bytes for the length of a JSON header, the header, and the tensors' bytes (github.com/huggingface/safetensors). Room for
all of it is taken first, so that a full disk is an error before the first part and not a crash at some later one.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["TensorFile"]

_DTYPES: dict[torch.dtype, tuple[str, type[np.generic]]] = {
    torch.float64: ("F64", np.float64),
    torch.float32: ("F32", np.float32),
    torch.float16: ("F16", np.float16),
    torch.bfloat16: ("BF16", np.int16),  # numpy has no such type: its bits
    torch.int64: ("I64", np.int64),
    torch.int32: ("I32", np.int32),
    torch.uint8: ("U8", np.uint8),
    torch.bool: ("BOOL", np.bool_),
}
_ALIGNMENT = 8

Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


class TensorFile:
    """One file.

    Args:
        path: where; written anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped: dict[str, np.memmap] = {}

    @staticmethod
    def size_of(tensors: Shapes) -> int:
        """Bytes of the tensors."""
        return sum(dtype.itemsize * math.prod(shape) for dtype, shape in tensors.values())

    def begin(self, tensors: Shapes) -> None:
        """Write the header, and take the room for the tensors.

        Raises:
            OSError: when there is too little.
        """
        # The widest types first, as safetensors itself does: every tensor is then aligned.
        names = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
        header, offsets, at = {}, {}, 0
        for name in names:
            dtype, shape = tensors[name]
            size = dtype.itemsize * math.prod(shape)
            header[name] = {"dtype": _DTYPES[dtype][0], "shape": list(shape), "data_offsets": [at, at + size]}
            offsets[name] = at
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        start = 8 + len(text)
        with self._path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.flush()
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, start + at)
            else:
                file.truncate(start + at)
        for name in names:
            dtype, shape = tensors[name]
            if math.prod(shape):
                at = start + offsets[name]
                self._mapped[name] = np.memmap(self._path, _DTYPES[dtype][1], mode="r+", offset=at, shape=shape)

    def put(self, name: str, index: tuple[slice, ...], part: Tensor) -> None:
        """Write a part of a tensor in its place; everything where the index is empty."""
        if not part.numel():
            return
        part = part.cpu()
        values = (part.view(torch.int16) if part.dtype == torch.bfloat16 else part).numpy()
        self._mapped[name][index or ...] = values

    def close(self) -> None:
        """Put everything on the disk."""
        for mapped in self._mapped.values():
            mapped.flush()
        self._mapped.clear()
