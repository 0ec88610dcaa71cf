"""Harvesting: one pass of a language model over a token set fills the stores of many hook points.

Shape legend: N rows, W width of a hook.
"""

from __future__ import annotations

import datetime
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from neuronmap.activations.extract import (
    CALIBRATION_BATCH_TOKENS,
    INDEX_COLUMNS,
    Calibration,
    Captured,
    RowExtractor,
    calibrate,
    check_fit,
    contexts_per_batch,
)
from neuronmap.activations.mask import MaskConfig, nothing_left
from neuronmap.activations.shards import FORMATS, RowFormat
from neuronmap.activations.store import FORMAT, JOURNAL, MANIFEST, ActivationStore, store_name
from neuronmap.activations.verified import open_verified, remember_verified
from neuronmap.activations.writer import StoreWriter, remove_work_files
from neuronmap.errors import ConfigError, DamagedError, InputError, NeuronMapError, ResourceError
from neuronmap.hashing import digest_json
from neuronmap.models.tuned import batch_tokens_for
from neuronmap.paths import cache_folder, check_disk_space, human_bytes, require_writable
from neuronmap.progress import Progress, default

if TYPE_CHECKING:
    from neuronmap.activations.spread import Elsewhere
    from neuronmap.activations.together import Together
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel

__all__ = ["StoreDtype", "find_store", "harvest", "store_key"]

StoreDtype = Literal["auto", "float32", "float16", "bfloat16", "int8"]

SHARD_BYTES = 256 << 20
_FLOAT16_MAX = 65504.0
_FLOAT16_SAFE = 2.0**15  # half of the largest float16: room for values the calibration did not see


def store_key(
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    *,
    dtype: StoreDtype = "auto",
    mask: MaskConfig | None = None,
) -> str:
    """Digest of everything that decides the rows of a store.

    Model weights and compute dtype, tokens, hook point, mask and storage dtype count; batch and shard sizes do not.

    Returns:
        ``sha256:<hex>``.
    """
    return digest_json(
        {
            "format": FORMAT,
            "version": 1 if dtype == "auto" else FORMATS[dtype].version,
            "model": model.identity.model_digest,
            "model_dtype": model.identity.dtype,
            "tokens": tokens.digest,
            "hook": [hook.name, hook.width],
            "mask": (mask or MaskConfig()).to_dict(),
            "dtype": dtype,
        }
    )


def find_store(
    model: LanguageModel,
    tokens: TokenSet,
    hook: HookPoint,
    *,
    root: str | Path | None = None,
    dtype: StoreDtype = "auto",
    mask: MaskConfig | None = None,
    progress: Progress | None = None,
) -> ActivationStore | None:
    """The complete store that :func:`harvest` would reuse for these inputs, its digests checked; None where there is none.

    Args:
        model, tokens, hook, root, dtype, mask, progress: as of :func:`harvest`.

    Raises:
        DamagedError: if it is not as its manifest says.
    """
    folder = Path(root) if root is not None else cache_folder("activations")
    job = _Job(hook, store_key(model, tokens, hook, dtype=dtype, mask=mask), folder)
    return open_verified(job.path, progress or default()) if job.is_complete() else None


def harvest(
    model: LanguageModel,
    tokens: TokenSet,
    hooks: Sequence[HookPoint],
    *,
    root: str | Path | None = None,
    dtype: StoreDtype = "auto",
    mask: MaskConfig | None = None,
    batch_tokens: int | None = None,
    shard_rows: int | None = None,
    elsewhere: Elsewhere | Together | None = None,
    progress: Progress | None = None,
) -> dict[str, ActivationStore]:
    """Store the activations of many hook points in one pass over the text.

    A complete store made from the same inputs is reused, after its digests were checked once; an interrupted one
    (Ctrl-C, SIGTERM, SIGKILL, full disk) continues where it stopped, in forward passes of the size it was begun with, and
    ends with the same bytes. Two processes that want the same store do not work twice: the second waits for the first.

    Args:
        model: the language model; it runs only as far as the deepest hook.
        tokens: packed contexts.
        hooks: hook points of this model (``neuronmap.models.resolve_hook``).
        root: folder of stores; default is the cache under the NeuronMap home.
        dtype: how values are stored. ``auto``: as computed for bfloat16 and float16 models; for float32 models
            float16 if the sampled values stay below 2^15 and round no worse than in bfloat16, else bfloat16. ``int8`` keeps
            one float32 scale a row and is read as float32: a little over half of float16's bytes, at a cost in explained
            variance (docs/how-to/store-large-corpora.md); it is never chosen by itself.
        mask: positions to drop; default :class:`MaskConfig`.
        batch_tokens: tokens per forward pass. Left out: what an interrupted store was begun with, else what
            ``neuronmap doctor --tune`` measured, else 2,048. It decides the last bits of activations, not which rows there are.
        shard_rows: rows in one shard file; default about 256 MiB.
        elsewhere: runs the model in other processes; what it gives is written here, to the same bytes.
        progress: where notes and the bar go.

    Returns:
        One store per hook, keyed by ``hook.name``; rows are in context order.

    Raises:
        EmptyCorpusError: if the mask leaves no row.
        InputError: if the model gives NaN or infinity, or a value does not fit the storage dtype.
        DiskSpaceError: if there is too little room, before starting or on the way (then it can be continued).
        UnwritablePathError: if the folder cannot be written.
        DamagedError: if a store that would be reused is not as its manifest says.
        KeyboardInterrupt: on Ctrl-C, and on SIGTERM in the main thread; what was done is saved.

    Example:
        >>> stores = harvest(model, tokens, [resolve_hook(model, 8, "residual")])  # doctest: +SKIP
    """
    progress = progress or default()
    mask = mask or MaskConfig()
    folder = Path(root) if root is not None else cache_folder("activations")
    hooks = list({hook.name: hook for hook in hooks}.values())
    check_fit(model, tokens, hooks)
    if dtype != "auto" and dtype not in FORMATS:
        raise ConfigError(f"dtype = {dtype!r}: allowed are auto, {', '.join(FORMATS)}.")
    if shard_rows is not None and shard_rows < 1:
        raise ConfigError(f"shard_rows = {shard_rows}: at least 1 row must go in a shard.")
    jobs = [_Job(hook, store_key(model, tokens, hook, dtype=dtype, mask=mask), folder) for hook in hooks]
    todo = [job for job in jobs if not job.is_complete()]
    if todo:
        require_writable(folder)
    with ExitStack() as locks:
        for job in sorted(todo, key=lambda job: job.path.name):  # one order for all: no deadlock
            locks.callback(_locked(job, progress).release)
        todo = [job for job in todo if not job.is_complete()]
        _note_reused(jobs, todo, progress)
        if todo:
            with _sigterm_as_ctrl_c():
                _Pass(model, tokens, todo, folder, mask, batch_tokens, elsewhere, progress).run(dtype, shard_rows)
    return {job.hook.name: ActivationStore.open(job.path) for job in jobs}


@dataclass
class _Job:
    """One store to be made or reused."""

    hook: HookPoint
    key: str
    root: Path

    @property
    def path(self) -> Path:
        return self.root / store_name(self.hook.slug, self.key)

    def is_complete(self) -> bool:
        return (self.path / MANIFEST).is_file() and not (self.path / JOURNAL).is_file()


def _note_reused(jobs: list[_Job], todo: list[_Job], progress: Progress) -> None:
    for job in jobs:
        if job not in todo:
            store = open_verified(job.path, progress)
            day = str(store.manifest["created"])[:10]
            progress.note(f"Reusing {store.num_rows:,} rows of {job.hook.name}, harvested {day} ({job.path}).")


def _locked(job: _Job, progress: Progress) -> FileLock:
    lock = FileLock(job.root / f".{job.path.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.note(f"Another process is harvesting {job.hook.name}; waiting for it.")
        lock.acquire()
    return lock


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Batch systems stop a job with SIGTERM; it saves what is done as Ctrl-C does. Nothing outside the main thread."""
    before = signal.getsignal(signal.SIGTERM)
    # Python lets only the main thread set handlers, and cannot put back one that was not set from Python (None)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Pass:
    """One run of the model over the contexts for the stores that are missing or unfinished."""

    def __init__(
        self,
        model: LanguageModel,
        tokens: TokenSet,
        jobs: list[_Job],
        root: Path,
        mask: MaskConfig,
        batch_tokens: int | None,
        elsewhere: Elsewhere | Together | None,
        progress: Progress,
    ) -> None:
        self._model, self._tokens, self._jobs, self._root = model, tokens, jobs, root
        self._mask, self._progress, self._elsewhere = mask, progress, elsewhere
        self._batch = contexts_per_batch(tokens, batch_tokens_for(model.device, batch_tokens))
        self._batch_is_asked = batch_tokens is not None
        self._writers: dict[str, StoreWriter] = {}
        self._thresholds: dict[str, float | None] = {}
        self._captured: Captured = {}

    def run(self, dtype: StoreDtype, shard_rows: int | None) -> None:
        """Resume or start every store, fill them all, finish them."""
        self._continue_unfinished()
        if not self._jobs:
            return
        self._settle_batch()
        missing = [job for job in self._jobs if job.hook.name not in self._writers]
        if missing:
            hooks = [job.hook for job in missing]
            same = self._batch == contexts_per_batch(self._tokens, CALIBRATION_BATCH_TOKENS)
            keep = (
                self._captured if same else None
            )  # in other batches the last bits may differ, so the model runs again
            calibrations = calibrate(self._model, self._tokens, hooks, self._mask, self._progress, keep)
            for job in missing:
                self._start(job, calibrations[job.hook.name], dtype, shard_rows)
        for name, writer in self._writers.items():
            self._thresholds[name] = writer.journal["calibration"]["outlier_threshold"]
        self._check_disk()
        try:
            self._fill()
        except (NeuronMapError, KeyboardInterrupt) as error:
            self._save_what_is_done(error)
            raise
        finally:
            for writer in self._writers.values():
                writer.close()

    def _continue_unfinished(self) -> None:
        for job in self._jobs:
            if (job.path / MANIFEST).is_file():  # killed between writing the manifest and tidying up
                remove_work_files(job.path)
                continue
            try:
                writer = StoreWriter.resume(job.path, job.key)
            except DamagedError as error:
                self._progress.note(f"{error.message} Harvesting it again from the start.")
                writer = None
            if writer is not None:
                self._writers[job.hook.name] = writer
                self._progress.note(
                    f"Continuing the interrupted harvest of {job.hook.name} at context {writer.contexts_done:,} of"
                    f" {self._tokens.num_contexts:,} ({writer.num_rows:,} rows are stored)."
                )
        self._jobs = [job for job in self._jobs if not job.is_complete()]

    def _settle_batch(self) -> None:
        """Go on with the batches of what was begun: a product of another size may round the last bits differently.

        A size that was asked for goes before that (a smaller one, because memory ran out), and so does the first store's where
        several were begun with different ones; both are said.
        """
        if self._writers and not self._batch_is_asked:
            self._batch = int(next(iter(self._writers.values())).journal.get("batch_contexts", self._batch))
        now = {"batch_contexts": self._batch, "attention": self._model.attention}
        for name, writer in self._writers.items():
            for what, value in now.items():
                begun = writer.journal.get(what, value)
                if begun != value:
                    self._progress.note(
                        f"Not bit for bit: {name} was begun with {what} {begun} and goes on with {value}."
                    )
            writer.journal.update(now)

    def _start(self, job: _Job, calibration: Calibration, dtype: StoreDtype, shard_rows: int | None) -> None:
        chosen, why = _choose_dtype(dtype, self._model.dtype, calibration)
        if dtype == "auto":
            self._progress.note(f"{job.hook.name}: stored as {chosen} ({why}).")
        row_bytes = job.hook.width * FORMATS[chosen].values.itemsize
        tokens = self._tokens
        facts = {
            "key": job.key,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": self._model.identity.to_dict(),
            "tokens": {
                "digest": tokens.digest,
                "part": tokens.part,
                "context_length": tokens.context_length,
                "num_contexts": tokens.num_contexts,
                "num_tokens": tokens.num_tokens,
                # whether they came from the cache says nothing about the rows
                "report": {name: value for name, value in tokens.report.to_dict().items() if name != "reused"},
            },
            "hook": job.hook.to_dict(),
            "mask": self._mask.to_dict(),
            "dtype": chosen,
            "dtype_rule": why,
            "batch_contexts": self._batch,
            "attention": self._model.attention,
            "width": job.hook.width,
            "index_columns": list(INDEX_COLUMNS),
            "shard_rows": shard_rows or max(1024, SHARD_BYTES // row_bytes // 1024 * 1024),
            "calibration": calibration.to_dict(),
            "outlier_threshold": calibration.outlier_threshold,
            "rounding_error": calibration.rounding_error[chosen],
        }
        self._writers[job.hook.name] = StoreWriter.start(job.path, facts)

    def _check_disk(self) -> None:
        tokens, needed, rows = self._tokens, 0, 0
        usable = max(tokens.context_length - self._mask.skip_first_positions, 0)
        for writer in self._writers.values():
            left = (tokens.num_contexts - writer.contexts_done) * usable
            rows += left
            needed += left * FORMATS[writer.journal["dtype"]].row_bytes(writer.journal["width"])
        free = check_disk_space(self._root, needed, f"Up to {rows:,} activation rows")
        self._progress.note(
            f"Harvesting up to {rows:,} rows of {len(self._writers)} hook point(s): {human_bytes(needed)},"
            f" {human_bytes(free)} free in {self._root}."
        )

    def _fill(self) -> None:
        """Walk over the contexts in batches of a fixed grid, every store taking part from where it stands."""
        model, tokens, writers = self._model, self._tokens, self._writers
        hooks = [job.hook for job in self._jobs]
        own = RowExtractor(model, tokens, hooks, self._mask, self._batch, self._captured)
        extractor = own if self._elsewhere is None else self._elsewhere.extractor(own, tokens, hooks, self._mask)
        staging = _Staging(max(hook.width for hook in hooks) * self._batch * tokens.context_length)
        start, end = min((writer.contexts_done for writer in writers.values()), default=0), tokens.num_contexts
        title = f"Harvesting {len(hooks)} hook point(s)"
        with self._progress.task(title, (end - start) * tokens.context_length, "tokens") as task:
            while start < end:
                ahead = [writer.contexts_done for writer in writers.values() if writer.contexts_done > start]
                stop = min([start + self._batch, end, *ahead])
                active = [hook for hook in hooks if writers[hook.name].contexts_done == start]
                for hook, extracted in extractor.extract(start, stop, active, self._thresholds):
                    writer = writers[hook.name]
                    encoded = staging.encode(extracted.rows_NW, FORMATS[writer.journal["dtype"]])
                    if encoded[0].dtype == torch.float16:
                        _check_float16(hook, extracted.norms_N, encoded[0], start)
                    writer.append(encoded, extracted.index)
                    writer.commit(stop, extracted.dropped)
                task.advance((stop - start) * tokens.context_length)
                start = stop
        for name, writer in writers.items():
            writer.save()
            if not writer.num_rows:
                raise nothing_left(tokens, writer.journal["dropped"])
            writer.finish()
            remember_verified(writer.folder)
            dropped = ", ".join(f"{count:,} {reason}" for reason, count in writer.journal["dropped"].items() if count)
            self._progress.note(f"{name}: {writer.num_rows:,} rows stored; dropped {dropped or 'none'}.")

    def _save_what_is_done(self, error: BaseException) -> None:
        for writer in self._writers.values():
            if (writer.folder / MANIFEST).is_file():
                continue
            try:
                writer.save()
            except ResourceError:
                if not isinstance(error, ResourceError):
                    raise
                # the disk is full, which is being reported; the last saved journal is valid


class _Staging:
    """One reused CPU buffer in which rows take their storage dtype on the way to the disk."""

    def __init__(self, values: int) -> None:
        self._bytes = torch.empty(values * 4, dtype=torch.uint8)

    def encode(self, rows_NW: Tensor, row_format: RowFormat) -> list[Tensor]:
        if row_format.scaled:  # on the model's device, so that a quarter of the bytes leaves it
            return [tensor.cpu() for tensor in row_format.encode(rows_NW)]
        dtype = row_format.values
        staged_NW = self._bytes[: rows_NW.numel() * dtype.itemsize].view(dtype).view(rows_NW.shape)
        return [staged_NW.copy_(rows_NW)]


def _choose_dtype(asked: StoreDtype, computed: torch.dtype, calibration: Calibration) -> tuple[str, str]:
    """The storage dtype and the rule that gave it."""
    if asked != "auto":
        return asked, "as asked"
    if computed in (torch.bfloat16, torch.float16):
        return str(computed).removeprefix("torch."), "the model computes in it"
    errors, largest = calibration.rounding_error, calibration.max_abs
    if largest >= _FLOAT16_SAFE:
        return (
            "bfloat16",
            f"sampled values reach {largest:,.0f}, at or above 2^15: too near the float16 limit of 65,504",
        )
    if not 0 <= errors["float16"] <= errors["bfloat16"]:
        return "bfloat16", "the sampled values are so small that float16 rounds worse"
    return "float16", f"sampled values reach {largest:,.4g}, below 2^15; relative error {errors['float16']:.1e}"


def _check_float16(hook: HookPoint, norms_N: Tensor, rows_NW: Tensor, first_context: int) -> None:
    """Refuse values that became infinite; a row's norm bounds its values, so the full look is rare."""
    if norms_N.numel() == 0 or float(norms_N.max()) <= _FLOAT16_MAX:
        return
    bad = int((~rows_NW.isfinite().all(1)).sum())
    if bad:
        raise InputError(
            f"{bad:,} rows of {hook.name} hold values beyond the float16 limit of 65,504 (batch at context"
            f" {first_context:,}).",
            hint="Harvest with dtype='bfloat16' or dtype='float32', or a smaller outlier_factor.",
        )
