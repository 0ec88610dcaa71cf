"""Rows of a synthetic model as a source to train on, drawn when they are read; and as an activation store on disk.

``SyntheticRows`` needs no disk: ``SAETrainer(config).train(SyntheticRows(model, 1_000_000))``. ``write_corpus`` makes an
ordinary activation store (readable by everything that reads one) with the truth beside it.

Shapes: N rows, D width.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuronmap.activations import ActivationStore, MaskConfig, RowStatistics
from neuronmap.activations.rows import check_range, statistics_of
from neuronmap.activations.writer import StoreWriter
from neuronmap.errors import AlreadyExistsError, InputError, MismatchError
from neuronmap.evaluation.synthetic.model import BLOCK_ROWS, SETTINGS, SyntheticModel, Truth
from neuronmap.hashing import digest_json
from neuronmap.progress import Progress, default

__all__ = ["STATISTICS_ROWS", "SyntheticCorpus", "SyntheticRows", "open_corpus", "write_corpus"]

STATISTICS_ROWS = 131_072
"""Rows over which the statistics of a source are taken; all rows of a longer one have the same law."""

_CONTEXT_ROWS = 128
_SHARD_BYTES = 256 << 20


class SyntheticRows:
    """The first rows of a stream, as a :class:`neuronmap.activations.RowSource`; nothing is stored.

    Rows are float32 on the CPU, wherever they are drawn. Each block is drawn anew when it is read, so several epochs over more
    rows than the shuffle holds at once (a million) draw them several times.

    Args:
        model: what to draw from.
        num_rows: N.
        stream: name of the stream. Rows of another stream are independent: use one for training and one to hold out.

    Raises:
        InputError: for less than one row.
    """

    dtype = torch.float32

    def __init__(self, model: SyntheticModel, num_rows: int, stream: str = "rows") -> None:
        if num_rows < 1:
            raise InputError(f"num_rows = {num_rows}: there must be at least one row.")
        self.model, self.num_rows, self.stream = model, num_rows, stream
        self._last: tuple[int, Tensor] | None = None

    @property
    def width(self) -> int:
        return self.model.config.d_in

    @cached_property
    def digest(self) -> str:
        """Digest of the model, the stream, the number of rows and the kind of device that draws them."""
        return digest_json(
            {
                "model": self.model.digest,
                "stream": self.stream,
                "rows": self.num_rows,
                "device": self.model.device.type,
                "torch": version("torch").partition("+")[0],
            }
        )

    @cached_property
    def statistics(self) -> RowStatistics:
        """Of the first 131,072 rows, as if of all: drawing every row of a long source once more would cost as much as training."""
        measured = min(self.num_rows, STATISTICS_ROWS)
        starts = range(0, measured, BLOCK_ROWS)
        found = statistics_of((self.read(at, min(at + BLOCK_ROWS, measured)) for at in starts), self.width)
        return RowStatistics(self.num_rows, found.mean_D, found.m2_D * (self.num_rows / found.rows))

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Rows ``start`` to ``stop`` as [stop - start, D], written (and cast) into ``out`` if given.

        Raises:
            InputError: if the range is not inside the rows.
        """
        check_range(start, stop, self.num_rows)
        rows_ND = torch.empty(stop - start, self.width) if out is None else out
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first = block * BLOCK_ROWS
            low, high = max(start, first), min(stop, first + BLOCK_ROWS)
            rows_ND[low - start : high - start].copy_(self._block(block)[low - first : high - first])
        return rows_ND

    def _block(self, block: int) -> Tensor:
        last = self._last  # one read: the shuffle's thread may replace it
        if last is None or last[0] != block:
            last = self._last = (block, self.model.block(block, self.stream)[0])
        return last[1]


@dataclass(frozen=True)
class SyntheticCorpus:
    """Stored rows and what they were drawn from.

    Attributes:
        store: the rows.
        model: the truth.
        stream: name of the stream.
        drawn_on: kind of device that drew the rows.
    """

    store: ActivationStore
    model: SyntheticModel
    stream: str
    drawn_on: str

    def truth(self, start: int, stop: int) -> Truth:
        """What stored rows are made of: it is drawn again.

        Raises:
            InputError: if the range is not inside the store.
            MismatchError: if the rows were drawn on another kind of device, whose draws cannot be repeated here.
        """
        check_range(start, stop, self.store.num_rows)
        if self.model.device.type != self.drawn_on:
            raise MismatchError(
                f"The rows were drawn on {self.drawn_on}; the model is on {self.model.device.type}, where the draws differ.",
                hint=f"Open the corpus with device={self.drawn_on!r}.",
            )
        return self.model.sample(start, stop, self.stream)[1]


def write_corpus(
    model: SyntheticModel,
    rows: int,
    folder: str | Path,
    *,
    stream: str = "rows",
    progress: Progress | None = None,
) -> SyntheticCorpus:
    """Store rows as an activation store in float32, with ``truth.safetensors`` and ``synthetic.json`` beside them.

    The store takes every reader that a harvested one takes. A context of it is 128 neighbouring rows, a document one block of
    1,024, and all tokens are number 0. An interrupted call goes on where it stopped.

    Args:
        model: what to draw from.
        rows: how many.
        folder: a new folder, or that of an interrupted call.
        stream: name of the stream.
        progress: where the bar goes.

    Raises:
        AlreadyExistsError: if there is something else in the folder.
        DiskSpaceError, UnwritablePathError: from writing.
    """
    source = SyntheticRows(model, rows, stream)
    folder = Path(folder)
    writer = StoreWriter.resume(folder, source.digest) if folder.is_dir() else None
    if writer is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AlreadyExistsError(f"{folder} already exists and is not an interrupted corpus of these rows.")
        writer = StoreWriter.start(folder, _facts(source))
    try:
        with (progress or default()).task(f"Drawing {model.config.name}", rows, "rows") as bar:
            bar.advance(writer.num_rows)
            for start in range(writer.num_rows, rows, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, rows)
                writer.append([source.read(start, stop)], _origins(start, stop))
                writer.commit(-(-stop // _CONTEXT_ROWS), {})
                bar.advance(stop - start)
        model.save(folder)
        writer.finish()
    finally:
        writer.close()
    return open_corpus(folder, model.device)


def open_corpus(folder: str | Path, device: torch.device | str = "cpu") -> SyntheticCorpus:
    """Open what :func:`write_corpus` wrote.

    Raises:
        InputError: if there is no store, or no truth beside it.
        DamagedError: if either is damaged.
    """
    store = ActivationStore.open(folder)
    if not (Path(folder) / SETTINGS).is_file():
        raise InputError(f"The activation store {folder} has no truth beside it ({SETTINGS} is missing).")
    drawn = store.manifest["tokens"]["report"]
    return SyntheticCorpus(store, SyntheticModel.load(folder, device), str(drawn["stream"]), str(drawn["drawn_on"]))


def _facts(source: SyntheticRows) -> dict[str, object]:
    """The fixed part of the store's manifest; what a language model and its text would be is said in their places."""
    config, model = source.model.config, source.model
    mask = MaskConfig(skip_special=False, skip_first_positions=0, outlier_factor=None)
    return {
        "key": source.digest,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": {"name": f"synthetic/{config.name}", "revision": model.digest, "dtype": "float32"},
        "tokens": {
            "digest": source.digest,
            "part": "all",
            "context_length": _CONTEXT_ROWS,
            "num_contexts": -(-source.num_rows // _CONTEXT_ROWS),
            "num_tokens": source.num_rows,
            "report": {"stream": source.stream, "drawn_on": model.device.type},
        },
        "hook": {
            "name": "synthetic",
            "layer": None,
            "component": None,
            "module_path": "synthetic",
            "side": "out",
            "width": config.d_in,
        },
        "mask": mask.to_dict(),
        "dtype": "float32",
        "width": config.d_in,
        "index_columns": ["document", "position", "token_id", "context"],
        "shard_rows": max(BLOCK_ROWS, _SHARD_BYTES // (4 * config.d_in) // BLOCK_ROWS * BLOCK_ROWS),
        "outlier_threshold": None,
    }


def _origins(start: int, stop: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """int32 [n, 4]: document, position, token id and context of rows."""
    row_n = np.arange(start, stop)
    parts = (row_n // BLOCK_ROWS, row_n % BLOCK_ROWS, np.zeros_like(row_n), row_n // _CONTEXT_ROWS)
    return np.stack(parts, axis=1).astype(np.int32)
