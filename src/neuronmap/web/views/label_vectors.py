"""The meanings of labels as unit vectors, in blocks that are made once: labels are only ever added, so that full blocks stay. No torch.

    <home>/cache/label-vectors/<SAE>/<block>.npy        float16 [N, D], row i is the block's text i

A block is named by the digest of its texts and of the encoder.

Shapes: N texts of a block, D width of the encoder (384).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuronmap.errors import MismatchError
from neuronmap.hashing import digest_json, short
from neuronmap.paths import cache_folder, new_file, new_folder

__all__ = ["BLOCK", "LabelVectors"]

VERSION = 1
BLOCK = 256
"""Labels that are embedded and written at a time."""


@dataclass(frozen=True)
class LabelVectors:
    """The vectors of some labels of one SAE by one encoder; perhaps not made yet.

    Attributes:
        sae: digest of its weights.
        texts: the labels, in the order in which the book heard of them.
        encoder: digest of the encoder.
    """

    sae: str
    texts: tuple[str, ...]
    encoder: str

    @property
    def folder(self) -> Path:
        """Where the blocks are."""
        return cache_folder("label-vectors") / short(self.sae, 16)

    def blocks(self) -> list[tuple[str, ...]]:
        """The texts of each block."""
        return [self.texts[first : first + BLOCK] for first in range(0, len(self.texts), BLOCK)]

    def missing(self) -> list[tuple[str, ...]]:
        """Blocks that are not made yet."""
        return [block for block in self.blocks() if not self._file(block).is_file()]

    def write(self, block: Sequence[str], vector_ND: npt.NDArray[np.float32]) -> None:
        """Keep the vectors of a block, and drop those that no block has any more.

        Raises:
            MismatchError: they are not of this block, or not finite.
            DiskSpaceError, UnwritablePathError: the cache cannot be written.
        """
        if len(vector_ND) != len(block) or not np.isfinite(vector_ND).all():
            raise MismatchError(f"{len(block)} finite vectors were expected; found {vector_ND.shape}.")
        buffer = io.BytesIO()
        np.save(buffer, vector_ND.astype(np.float16))
        new_folder(self.folder)
        with new_file(self._file(block)) as file:
            file.write(buffer.getbuffer())
        kept = {self._file(one).name for one in self.blocks()}
        for file_ in self.folder.glob("*.npy"):
            if file_.name not in kept:
                file_.unlink(missing_ok=True)

    def cosines(self, query_D: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [labels]: cosine of each with a query; NaN for those of blocks that are not made, or cannot be read.

        Args:
            query_D: a unit vector.
        """
        found = [self._cosines(block, query_D) for block in self.blocks()]
        return np.concatenate(found) if found else np.empty(0, np.float32)

    def _cosines(self, block: tuple[str, ...], query_D: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            vector_ND = np.load(self._file(block))
            if vector_ND.shape != (len(block), len(query_D)):
                raise ValueError(f"it holds {list(vector_ND.shape)}")
        except FileNotFoundError:
            return np.full(len(block), np.nan, np.float32)
        except (OSError, ValueError, EOFError):  # a cache: it is made anew
            self._file(block).unlink(missing_ok=True)
            return np.full(len(block), np.nan, np.float32)
        return np.asarray(np.clip(vector_ND.astype(np.float32) @ query_D, -1.0, 1.0))

    def _file(self, block: Sequence[str]) -> Path:
        return self.folder / f"{short(digest_json([VERSION, self.encoder, list(block)]), 32)}.npy"
