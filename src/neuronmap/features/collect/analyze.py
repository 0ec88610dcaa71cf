"""The feature pass: every feature of one SAE or several, in one reading of the rows.

    <folder>/pass.json        what the pass is of; a folder is continued by the same pass only
             0/, 1/, ...      the state of each SAE, as of the last checkpoint

Memory is bounded by features times what is kept of each, and one block of rows: never rows times features.

Shapes: B rows of a block, D = d_in, F = d_sae, C contexts of T tokens.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, InputError, Interrupted, MismatchError, ResourceError
from neuronmap.features.collect.codes import encode_block
from neuronmap.features.collect.firings import BlockPlaces, Entries
from neuronmap.features.collect.layout import token_keys
from neuronmap.features.collect.rows import AnalysisRows, RowBlock, grid
from neuronmap.features.collect.sampling import coded_part, contexts_that_fit, sampled_contexts
from neuronmap.features.collect.state import STATE, FeatureState, differences, state_key
from neuronmap.features.config import AnalysisConfig
from neuronmap.hashing import digest_parts
from neuronmap.paths import read_json, require_writable, write_json
from neuronmap.progress import Progress
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.uses import require_use
from neuronmap.saes.workspace import Workspace
from neuronmap.training.interrupts import StopSignals

__all__ = ["Spread", "forget_pass", "load_pass", "pass_key", "run_blocks", "run_pass", "shard_blocks", "weights_digest"]

States = dict[str, FeatureState]
Spread = Callable[
    [Sequence[int], Callable[[int, str], None], Callable[[], bool]], Iterator[tuple[Sequence[int], States]]
]
"""Blocks done elsewhere, by :func:`run_blocks`: called with the blocks, what to tell of tokens done (and L0), and whether to stop; gives
(blocks, states of nothing but them) until every block was given once, or until it is to stop."""

FORMAT = "neuronmap-feature-pass"
PASS = "pass.json"
_SAVE_EVERY_S = 30.0
_SAVE_SHARE = 0.015
"""Share of the time that checkpoints may take."""


def run_pass(
    saes: Mapping[str, SparseAutoencoder],
    rows: AnalysisRows,
    *,
    hook_of: Mapping[str, str],
    folder: Path,
    config: AnalysisConfig | None = None,
    shard: tuple[int, int] = (0, 1),
    identities: Mapping[str, str] | None = None,
    kernels: str = "auto",
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> States:
    """Everything that is kept of every feature, from one reading of the rows.

    What is done is saved in the folder from time to time, and on Ctrl-C or SIGTERM; the same call continues there and ends with the
    same bytes as a pass that was never stopped. Shards of a pass run anywhere, each in its own folder, and merge
    (:meth:`FeatureState.merge`) to the bytes of the whole.

    Args:
        saes: the SAEs for raw activations, by names of the caller's choice.
        rows: where activations come from: :class:`~neuronmap.features.collect.rows.StoredRows` or
            :class:`~neuronmap.features.collect.rows.ModelRows`, which runs the language model once for all SAEs.
        hook_of: the hook point of each SAE.
        folder: where checkpoints go.
        config: what is kept; None for the defaults.
        shard: (i, n): only the blocks of part i of n, counted from 0.
        identities: digest of each SAE's weights; worked out when left out.
        kernels: backend of the encoder (:mod:`neuronmap.saes.kernels.choice`); ``torch`` also counts without the compiled kernel,
            to the same bytes where the codes are the same.
        spread: does the blocks in other processes; what it gives is merged and saved here, as blocks done here would be.
        progress: where notes and the bar go.

    Returns:
        A state for each SAE, by the same names.

    Raises:
        ConfigError: for a shard that there is not.
        InputError: if rows or activations are NaN or infinite, or an SAE has no hook point among the rows'.
        MismatchError: if the widths do not fit (all of them are listed), the folder holds another pass, or an SAE reads more than
            rows of one hook or has negative activations.
        DamagedError: if a checkpoint in the folder was changed.
        Interrupted: on Ctrl-C or SIGTERM, after saving.
    """
    config = config or AnalysisConfig()
    progress = progress or progress_module.default()
    if not (shard[1] >= 1 and 0 <= shard[0] < shard[1]):
        raise ConfigError(f"shard = {shard}: a pair (i, n) with 0 <= i < n is needed.")
    _check_fit(saes, rows, hook_of)
    jobs = _jobs(saes, rows, hook_of, config, identities, kernels, Path(folder))
    with _locked(require_writable(Path(folder))):
        _open_folder(Path(folder), jobs, shard)
        own = shard_blocks(grid(rows.tokens, config.block_tokens)[1], shard)
        _Pass(jobs, rows, config, own, kernels == "torch", progress).run(spread)
    return {job.name: job.state for job in jobs}


def run_blocks(
    saes: Mapping[str, SparseAutoencoder],
    rows: AnalysisRows,
    blocks: Sequence[int],
    *,
    hook_of: Mapping[str, str],
    config: AnalysisConfig,
    identities: Mapping[str, str],
    sampled: Mapping[str, int | None] | None = None,
    progress: Progress,
) -> States:
    """Some blocks of a pass, in memory: what :data:`Spread` asks of other processes.

    Args:
        saes, rows, hook_of, config, identities, progress: as for :func:`run_pass`.
        blocks: numbers of blocks of the grid, ascending.
        sampled: how many contexts are sampled for each SAE, where states of other blocks have told (``sample_contexts``); the first
            block of the grid need not be read for it again.

    Returns:
        States of these blocks alone.

    Raises:
        InputError, MismatchError: as for :func:`run_pass`.
        Interrupted: on SIGTERM; nothing is kept.
    """
    _check_fit(saes, rows, hook_of)
    jobs = _jobs(saes, rows, hook_of, config, identities, "auto", None)
    for job in jobs:
        job.state.facts["sample_contexts"] = (sampled or {}).get(job.name)
    _Pass(jobs, rows, config, blocks, False, progress).run(None)
    return {job.name: job.state.settle() for job in jobs}


def pass_key(
    sae: SparseAutoencoder, rows: AnalysisRows, hook: str, identity: str, config: AnalysisConfig | None = None
) -> str:
    """The key that the state of this pass will have, without running it."""
    config = config or AnalysisConfig()
    return state_key(config, _facts(sae, rows, hook, identity, config))


def load_pass(folder: Path) -> dict[str, FeatureState]:
    """The states that a finished or interrupted pass left in its work folder, by the names of their SAEs.

    Raises:
        InputError: if there is no pass in the folder.
        DamagedError: if a checkpoint was changed.
    """
    file = folder / PASS
    found = read_json(file) if file.is_file() else None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{folder} holds no feature pass.", hint="Give the folder that the shard was worked on in.")
    return {name: FeatureState.load(folder / str(number)) for number, name in enumerate(found["saes"])}


def forget_pass(folder: Path) -> None:
    """Remove the work of a pass from a folder, and the folder if nothing else is in it; other files are left alone."""
    if not (folder / PASS).is_file():
        return
    names = [str(number) for number in range(len(read_json(folder / PASS).get("saes", ())))]
    for name in (*names, *(path.name for path in folder.glob(".staging-*"))):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (PASS, ".lock"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def shard_blocks(blocks: int, shard: tuple[int, int]) -> range:
    """The blocks b of part i of n: those with b * n // blocks == i, neighbours all."""
    i, n = shard
    return range(-(-i * blocks // n), -(-(i + 1) * blocks // n))


def weights_digest(sae: SparseAutoencoder) -> str:
    """Of the architecture, the options, the input normalisation if there is one, and every weight."""
    norm = "" if sae.input_norm == "none" else f" {sae.input_norm}"
    head = f"{sae.architecture} {sae.options.digest()}{norm}".encode()
    tensors = sorted(sae.state_dict().items())
    return digest_parts(
        [
            head,
            *(
                part
                for name, tensor in tensors
                for part in (name.encode(), tensor.detach().cpu().contiguous().numpy().tobytes())
            ),
        ]
    )


@dataclass
class _Job:
    """One SAE of the pass."""

    name: str
    sae: SparseAutoencoder
    hook: str
    folder: Path | None
    """Where it is saved; None: nowhere."""
    state: FeatureState
    workspace: Workspace
    is_sampled_C: npt.NDArray[np.bool_] | None = None
    mean_D: Tensor = field(default_factory=lambda: torch.empty(0))


def _check_fit(saes: Mapping[str, SparseAutoencoder], rows: AnalysisRows, hook_of: Mapping[str, str]) -> None:
    if not saes:
        raise InputError("No SAE was given to analyse.")
    for name, sae in saes.items():
        require_use(sae, "features", f"Feature analysis of {name!r}")
        if hook_of.get(name) not in rows.hooks:
            raise InputError(
                f"SAE {name!r} is of hook point {hook_of.get(name)!r}, of which there are no rows; there are rows of"
                f" {', '.join(rows.hooks)}."
            )
    wrong = [
        f"SAE {name!r} takes activations of width {sae.d_in}, the rows of {hook_of[name]} have {rows.width(hook_of[name])}"
        for name, sae in saes.items()
        if sae.d_in != rows.width(hook_of[name])
    ]
    if wrong:
        raise MismatchError(
            "; ".join(wrong) + ".", hint="Analyse an SAE on activations of the model and layer it was trained on."
        )
    for name, sae in saes.items():
        if not all(bool(tensor.isfinite().all()) for tensor in sae.state_dict().values()):
            raise InputError(
                f"The weights of SAE {name!r} hold NaN or infinity.",
                hint="Train it again, or take an earlier checkpoint.",
            )


def _facts(
    sae: SparseAutoencoder, rows: AnalysisRows, hook: str, identity: str, config: AnalysisConfig
) -> dict[str, Any]:
    contexts_per_block, blocks = grid(rows.tokens, config.block_tokens)
    return {
        "features": sae.d_sae,
        "contexts": rows.tokens.num_contexts,
        "context_length": rows.tokens.context_length,
        "vocabulary": rows.vocabulary,
        "unit": rows.unit(hook),
        "blocks": blocks,
        "contexts_per_block": contexts_per_block,
        "rows_digest": rows.digest(hook),
        "sae_digest": identity,
        "tokens_digest": rows.tokens.digest,
        "hook": hook,
        "mask": rows.mask.to_dict(),
        "mean_from": rows.mean_from(hook),
    }


def _jobs(
    saes: Mapping[str, SparseAutoencoder],
    rows: AnalysisRows,
    hook_of: Mapping[str, str],
    config: AnalysisConfig,
    identities: Mapping[str, str] | None,
    kernels: str,
    folder: Path | None,
) -> list[_Job]:
    """Every SAE with an empty state."""
    identities = identities or {name: weights_digest(sae) for name, sae in saes.items()}
    jobs = []
    for number, (name, sae) in enumerate(saes.items()):
        state = FeatureState.new(config, _facts(sae, rows, hook_of[name], identities[name], config))
        place = None if folder is None else folder / str(number)
        jobs.append(_Job(name, sae, hook_of[name], place, state, Workspace(sae.device, kernels=kernels)))
    return jobs


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResourceError(
            f"Another process runs a feature pass in {folder}.", hint="Wait for it, or give another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open_folder(folder: Path, jobs: list[_Job], shard: tuple[int, int]) -> None:
    """Take up what is there of the same pass, or begin."""
    identity = {
        "format": FORMAT,
        "shard": list(shard),
        "saes": {
            job.name: {**job.state.facts, **{f"config.{n}": v for n, v in job.state.config.to_dict().items()}}
            for job in jobs
        },
    }
    if not (folder / PASS).is_file():
        write_json(folder / PASS, identity)
        return
    found = read_json(folder / PASS)
    if found != identity:
        raise MismatchError(
            f"The folder {folder} holds another feature pass: {'; '.join(_other_pass(found, identity))} (there and here).",
            hint="Give another folder, or delete this one to begin anew.",
        )
    for job in jobs:
        if job.folder is not None and (job.folder / STATE).is_file():
            job.state = FeatureState.load(job.folder)


def _other_pass(found: Any, identity: dict[str, Any]) -> list[str]:
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return [f"{PASS} is of another format"]
    different = differences({"shard": found["shard"]}, identity)
    if list(found["saes"]) != list(identity["saes"]):
        return [*different, f"SAEs are {list(found['saes'])} and {list(identity['saes'])}"]
    for name, facts in identity["saes"].items():
        different += [f"{name}: {text}" for text in differences(found["saes"][name], facts)]
    return different or ["it was made by another version of NeuronMap"]


class _Pass:
    """The blocks of one call, one after the other."""

    def __init__(
        self,
        jobs: list[_Job],
        rows: AnalysisRows,
        config: AnalysisConfig,
        own: Sequence[int],
        portable: bool,
        progress: Progress,
    ) -> None:
        self.jobs, self.rows, self.config, self.portable, self.progress = jobs, rows, config, portable, progress
        self.contexts_per_block, _ = grid(rows.tokens, config.block_tokens)
        self.todo = [b for b in own if not all(job.state.done_G[b] for job in jobs)]
        if self.todo and len(self.todo) < len(own):
            progress.note(
                f"Continuing the feature pass: {len(own) - len(self.todo):,} of {len(own):,} blocks are done."
            )
        for job in jobs:
            job.mean_D = rows.mean(job.hook)
        self._last_save, self._save_seconds = time.monotonic(), 0.0

    def run(self, spread: Spread | None) -> None:
        if not self.todo:
            if not all(job.folder is None or (job.folder / STATE).is_file() for job in self.jobs):
                self._save(force=True)  # a part without blocks is merged like any other
            return
        if spread is not None:
            self._run_elsewhere(spread)
            return
        saved = False
        with StopSignals() as stop, torch.inference_mode():
            self._decide_samples(stop)
            tokens = sum(self._tokens(b) for b in self.todo)
            with self.progress.task("Analysing features", tokens, "tokens") as bar:
                for done, blocks in enumerate(self.rows.blocks(self.todo, self.contexts_per_block), 1):
                    index = self._take(blocks)
                    left = len(self.todo) - done
                    try:
                        bar.advance(self._tokens(index), L0=self._l0())
                    except KeyboardInterrupt:  # from the caller's own bar: between blocks all is whole
                        stop.requested = stop.requested or "SIGINT"
                    saved = self._save(force=not left or stop.requested is not None)
                    if stop.requested is not None and left:
                        self._interrupted(stop.requested, left)
        if not saved:
            self._save(force=True)

    def _run_elsewhere(self, spread: Spread) -> None:
        """Merge what other processes make of the blocks."""
        left, tokens, kept = set(self.todo), sum(self._tokens(b) for b in self.todo), True
        with StopSignals() as stop, self.progress.task("Analysing features", tokens, "tokens") as bar:

            def advance(amount: int, l0: str) -> None:
                bar.advance(amount, **({"L0": l0} if l0 else {}))

            for group in self._alike():
                for blocks, states in spread(group, advance, lambda: stop.requested is not None):
                    for job in self.jobs:
                        if not job.state.done_G[blocks[0]]:
                            job.state = FeatureState.merge([job.state, states[job.name]])
                    left -= set(blocks)
                    kept = self._save(force=not left)
            if left:
                self._save(force=not kept)
                self._interrupted(stop.requested or "the engine", len(left))

    def _alike(self) -> list[list[int]]:
        """The blocks to do, those together that the same SAEs lack; they differ only after a kill between saving two states."""
        groups: dict[tuple[bool, ...], list[int]] = {}
        for block in self.todo:
            groups.setdefault(tuple(bool(job.state.done_G[block]) for job in self.jobs), []).append(block)
        return list(groups.values())

    def _take(self, blocks: dict[str, RowBlock]) -> int:
        """Count one block for every SAE that has not had it; returns its number."""
        some = next(iter(blocks.values()))
        key_BT = token_keys(self.rows.tokens.contexts(some.first, some.stop).input_ids, self.config.distinct_tokens)
        for job in self.jobs:
            block = blocks[job.hook]
            if job.state.done_G[block.index]:
                continue
            row_B = block.sequence_B.astype(np.int64) - block.first
            places = BlockPlaces(
                block.sequence_B, block.position_B, key_BT[row_B, block.position_B], self.rows.tokens.context_length
            )
            x_BD, entries = self._encode(job, block)
            if job.is_sampled_C is None and len(block.token_B):
                self._decide(job, entries, len(block.token_B))
            coded = None
            if job.is_sampled_C is not None:
                is_sampled_B = job.is_sampled_C[block.sequence_B]
                unit = job.state.facts["unit"]
                coded = coded_part(job.sae, x_BD, job.mean_D, entries, places, is_sampled_B, unit, job.workspace)
            job.state.update(block.index, places, block.token_B, entries, coded, portable=self.portable)
        return some.index

    def _encode(self, job: _Job, block: RowBlock) -> tuple[Tensor, Entries]:
        x_BD = block.x_BD.to(job.sae.device, job.sae.dtype)
        where = f"contexts {block.first} to {block.stop - 1} at {job.hook}"
        return x_BD, encode_block(job.sae, x_BD, job.workspace, job.state.facts["unit"], where)

    def _decide_samples(self, stop: StopSignals) -> None:
        """How many contexts are sampled follows from the first block of the whole grid that has rows, whichever blocks are to do here."""
        for job in self.jobs:
            if (count := job.state.facts["sample_contexts"]) is not None:
                job.is_sampled_C = sampled_contexts(self.config, self.rows.tokens.num_contexts, count)
        undecided = [job for job in self.jobs if job.is_sampled_C is None]
        if not undecided or self.todo[0] == 0:
            return  # a pass that begins with the first block decides when it comes to it
        for index in range(len(self.jobs[0].state.done_G)):
            blocks = next(iter(self.rows.blocks([index], self.contexts_per_block)))
            for job in undecided:
                if len(blocks[job.hook].token_B):
                    self._decide(job, self._encode(job, blocks[job.hook])[1], len(blocks[job.hook].token_B))
            undecided = [job for job in undecided if job.is_sampled_C is None]
            if not undecided or stop.requested is not None:
                return

    def _decide(self, job: _Job, entries: Entries, rows: int) -> None:
        tokens = self.rows.tokens
        count = contexts_that_fit(self.config, tokens.num_contexts, tokens.context_length, len(entries.row_N), rows)
        job.state.facts["sample_contexts"] = count
        job.is_sampled_C = sampled_contexts(self.config, tokens.num_contexts, count)

    def _tokens(self, block: int) -> int:
        first = block * self.contexts_per_block
        contexts = min(self.contexts_per_block, self.rows.tokens.num_contexts - first)
        return contexts * self.rows.tokens.context_length

    def _l0(self) -> str:
        shown = [f"{state.l0_sum_T.sum() / max(state.rows, 1):.1f}" for state in (job.state for job in self.jobs)]
        return " ".join(shown[:4]) + (" ..." if len(shown) > 4 else "")

    def _save(self, force: bool) -> bool:
        """Save when it is due: seldom enough that it costs next to nothing."""
        now = time.monotonic()
        if not force and now - self._last_save < max(_SAVE_EVERY_S, self._save_seconds / _SAVE_SHARE):
            return False
        for job in self.jobs:
            if job.folder is not None:
                job.state.save(job.folder)
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - now
        return True

    def _interrupted(self, signal_name: str, left: int) -> None:
        raise Interrupted(
            f"The feature pass was stopped by {signal_name} after {len(self.todo) - left:,} of {len(self.todo):,} blocks; they are saved.",
            hint="The same call continues where it stopped.",
        )
