"""The meanings of an analysis's features as unit vectors, in one file that is made once and mapped from the disk. No torch.

    <home>/cache/semantic/<name>.npy          float16 [F, D], row i is feature i; zero where a feature has no text
    <home>/cache/semantic/<name>.parts/       while it is being made: <first feature>.npy, float16 [at most BLOCK, D]

The name is the digest of all that decides the numbers: the analysis and the files of it that the texts are made of, how the texts are
made, and the encoder's files. What was made from anything else has another name and is never read.

Shapes: F features, D width of the encoder (384).
"""

from __future__ import annotations

import functools
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuronmap.errors import DamagedError, MismatchError
from neuronmap.features.storage.feature_texts import MADE_OF, RECIPE
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hashing import digest_file, digest_json, short
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.paths import cache_folder, check_disk_space, new_file, new_folder
from neuronmap.web.caches import bound, touch

__all__ = ["BLOCK", "SemanticIndex", "encoder_digest"]

VERSION = 1
BLOCK = 256
"""Features that are embedded and written at a time: one or two seconds on two cores."""
_ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def encoder_digest() -> str | None:
    """Digest of the sentence encoder's files; None when it is not installed."""
    weights = SENTENCE_ENCODER.path()
    if weights is None:
        return None
    found = [weights.parent / name for name in _ENCODER_FILES]
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in found if file.is_file()))


@functools.lru_cache(maxsize=4)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    return digest_json([[file.name, digest_file(file)] for file, _, _ in files])


@dataclass(frozen=True)
class SemanticIndex:
    """The vectors of one analysis by one encoder; perhaps not made yet.

    Attributes:
        name: digest of all that decides the numbers.
        features: F.
        width: D.
    """

    name: str
    features: int
    width: int = 384

    @classmethod
    def of(cls, store: FeatureStore, encoder: str) -> SemanticIndex:
        """The index that belongs to an analysis.

        Args:
            store: the analysis.
            encoder: from :func:`encoder_digest`.
        """
        files = store.manifest["files"]
        made_of = {name: files[name]["sha256"] for name in MADE_OF if name in files}
        return cls(digest_json([VERSION, BLOCK, RECIPE, store.key, made_of, encoder]), store.num_features)

    @property
    def path(self) -> Path:
        """The finished file."""
        return cache_folder("semantic") / f"{short(self.name, 32)}.npy"

    @property
    def _parts(self) -> Path:
        return self.path.with_suffix(".parts")

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def made(self) -> bool:
        """Whether it is there."""
        return self.path.is_file()

    def vectors(self) -> npt.NDArray[np.float16]:
        """float16 [F, D], mapped.

        Raises:
            DamagedError: the file is not what it should be.
        """
        touch(self.path)
        return _load(self.path, (self.features, self.width))

    def cosines(self, query_D: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [F]: cosine of every feature's text with a query; NaN where a feature has no text.

        Args:
            query_D: a unit vector.
        """
        vector_FD = self.vectors()
        cosine_F = np.empty(self.features, np.float32)
        for first in range(0, self.features, 8192):  # float16 has no fast product, and a copy of all would be large
            part_XD = vector_FD[first : first + 8192].astype(np.float32)
            cosine_F[first : first + 8192] = part_XD @ query_D
            cosine_F[first : first + 8192][~part_XD.any(axis=1)] = np.nan
        return np.clip(cosine_F, -1.0, 1.0)

    # --- making ------------------------------------------------------------------------------------------------------

    @property
    def missing(self) -> list[range]:
        """Blocks of features that are not made yet; none when the file is there."""
        if self.made:
            return []
        blocks = [range(first, min(first + BLOCK, self.features)) for first in range(0, self.features, BLOCK)]
        return [block for block in blocks if not self._part(block).is_file()]

    def write(self, block: range, vector_XD: npt.NDArray[np.float32]) -> None:
        """Keep the vectors of a block; a reader sees all of it or none.

        Args:
            block: one of :attr:`missing`.
            vector_XD: its unit vectors, zero where there is no text.

        Raises:
            MismatchError: they are not of this block or this width, or not finite.
            DiskSpaceError, UnwritablePathError: the cache cannot be written.
        """
        if vector_XD.shape != (len(block), self.width) or not np.isfinite(vector_XD).all():
            raise MismatchError(
                f"{len(block)} finite vectors of {self.width} numbers were expected; found {vector_XD.shape}."
            )
        new_folder(self._parts)
        _save(self._part(block), vector_XD.astype(np.float16))

    def join(self) -> None:
        """Make the file of the blocks, all of which are there, and drop them.

        Raises:
            DamagedError: a block cannot be read; it is dropped, so that the next attempt makes it anew.
            DiskSpaceError, UnwritablePathError: the cache cannot be written.
        """
        if self.made:
            return
        check_disk_space(self.path.parent, 2 * self.features * self.width, "The vectors of features")
        parts = []
        for first in range(0, self.features, BLOCK):
            block = range(first, min(first + BLOCK, self.features))
            try:
                parts.append(np.array(_load(self._part(block), (len(block), self.width))))
            except DamagedError:
                self._part(block).unlink(missing_ok=True)
                raise
        whole = np.concatenate(parts) if parts else np.zeros((0, self.width), np.float16)
        _save(self.path, whole)
        shutil.rmtree(self._parts, ignore_errors=True)
        bound("semantic", keep=self.path)

    def _part(self, block: range) -> Path:
        return self._parts / f"{block.start}.npy"


def _save(path: Path, values: npt.NDArray[np.float16]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values)
    with new_file(path) as file:
        file.write(buffer.getbuffer())


def _load(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float16]:
    try:
        found: npt.NDArray[np.float16] = np.load(path, mmap_mode="r") if shape[0] else np.zeros(shape, np.float16)
        if found.shape != shape or found.dtype != np.float16:
            raise ValueError(f"it holds {found.dtype} {list(found.shape)} instead of float16 {list(shape)}")
    except (OSError, ValueError, EOFError) as error:
        raise DamagedError(
            f"The vectors of features cannot be read: {error}.", hint="Delete the cache's folder `semantic`."
        ) from error
    return found
