"""The state of a feature pass: arrays by feature, figures over all rows, and the codes of a sample of contexts.

Shapes: F features, C contexts of T tokens in the whole token set, V vocabulary, G blocks of contexts, N rows and E entries of the
coded sample. Layout and exactness: :mod:`neuronmap.features.collect.layout`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from neuronmap.errors import DamagedError, InputError, MismatchError
from neuronmap.features.collect.firings import BlockPlaces, Entries, accumulate, carry
from neuronmap.features.collect.layout import DISTINCT, L0_BINS, LAYOUT_VERSION, ORDERS, per_feature
from neuronmap.features.collect.lists import merge_lists
from neuronmap.features.config import AnalysisConfig
from neuronmap.hashing import digest_bytes, digest_json
from neuronmap.paths import check_disk_space, read_json, staging_folder, write_json

__all__ = ["CodedSample", "FeatureState", "differences", "join_samples", "state_key"]

FORMAT = "neuronmap-feature-state"
VERSION = 1
STATE = "state.json"
_SUMS = ("sum", "square")
_COUNTS = ("firings", "histogram", "positions")
_TOTALS = ("l0_histogram", "l0_sum_T", "rows_T", "token_count_V")
_MOST_POSITIONS = 1 << 16


@dataclass(frozen=True, eq=False)
class CodedSample:
    """Codes of whole sampled contexts: every unmasked row of them, in order of (sequence, position), and its active entries.

    Attributes:
        sequence_N: uint32, context of each row.
        position_N: uint16, its place in the context.
        offset_N: int64 [N + 1], where each row's entries start.
        feature_E: int32, ascending within a row.
        value_E: float16, activation over the unit.
        error_N: float32, |x - xhat|^2 of each row; NaN for a transcoder, which reconstructs another hook.
        energy_N: float32, |x - mean|^2 of each row, for the mean that ``facts["mean_from"]`` tells of.
    """

    sequence_N: npt.NDArray[np.uint32]
    position_N: npt.NDArray[np.uint16]
    offset_N: npt.NDArray[np.int64]
    feature_E: npt.NDArray[np.int32]
    value_E: npt.NDArray[np.float16]
    error_N: npt.NDArray[np.float32]
    energy_N: npt.NDArray[np.float32]

    @classmethod
    def empty(cls) -> CodedSample:
        """Of no contexts."""
        return cls(
            np.zeros(0, np.uint32),
            np.zeros(0, np.uint16),
            np.zeros(1, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.float16),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Its arrays by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


def state_key(config: AnalysisConfig, facts: dict[str, Any]) -> str:
    """Digest of all that decides a state: its facts, the settings and the version of the layout."""
    return digest_json({**facts, "config": config.to_dict(), "layout": LAYOUT_VERSION})


def join_samples(parts: Sequence[CodedSample]) -> CodedSample:
    """Samples of different contexts as one, in order of the contexts."""
    parts = [part for part in parts if len(part.sequence_N)]
    if not parts:
        return CodedSample.empty()
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in CodedSample.empty().arrays()}
    length_N = np.concatenate([np.diff(part.offset_N) for part in parts])
    first_N = np.cumsum(length_N) - length_N
    sequence_N = joined["sequence_N"]
    if (sequence_N[1:] < sequence_N[:-1]).any():
        order = np.argsort(sequence_N, kind="stable")
        length_N = length_N[order]
        entry_E = np.repeat(first_N[order] - (np.cumsum(length_N) - length_N), length_N) + np.arange(length_N.sum())
        joined = {
            name: array[entry_E if name.endswith("_E") else order]
            for name, array in joined.items()
            if name != "offset_N"
        }
    joined["offset_N"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(length_N)])
    return CodedSample(**joined)


@dataclass(eq=False)
class FeatureState:
    """What a pass over some blocks of contexts knows; states of disjoint blocks merge.

    Attributes:
        config: the settings.
        facts: what the state is of, plain JSON: ``features`` F, ``contexts`` C, ``context_length`` T, ``vocabulary`` V,
            ``unit``, ``blocks`` G, ``contexts_per_block``, ``rows_digest``, ``sae_digest``, ``tokens_digest``, ``hook``, ``mask``,
            ``mean_from`` (whose mean EV is against), ``key`` (digest of all of these, the settings and the code version), and
            ``sample_contexts``, how many contexts are sampled (None before the first block with rows has told).
        features: arrays [F, ...] of :func:`neuronmap.features.collect.layout.per_feature`.
        rows: rows seen.
        l0_histogram: int64 [L0_BINS], rows by number of active features.
        l0_sum_T: int64 [T], active entries by position in the context.
        rows_T: int64 [T], rows by position.
        token_count_V: int64 [V], rows by token.
        kept: uint8 [C, ceil(T / 8)], numpy.packbits of which positions were rows.
        done_G: bool [G], blocks that are in.
        sample: codes of the sampled contexts that are in.
    """

    config: AnalysisConfig
    facts: dict[str, Any]
    features: dict[str, npt.NDArray[Any]]
    rows: int
    l0_histogram: npt.NDArray[np.int64]
    l0_sum_T: npt.NDArray[np.int64]
    rows_T: npt.NDArray[np.int64]
    token_count_V: npt.NDArray[np.int64]
    kept: npt.NDArray[np.uint8]
    done_G: npt.NDArray[np.bool_]
    sample: CodedSample
    _parts: list[CodedSample] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def new(cls, config: AnalysisConfig, facts: dict[str, Any]) -> Self:
        """A state of no rows.

        Args:
            config: the settings.
            facts: all facts but ``key`` and ``sample_contexts``.

        Raises:
            InputError: for contexts of more than 65,536 tokens.
        """
        F, C, T = (int(facts[name]) for name in ("features", "contexts", "context_length"))
        if T > _MOST_POSITIONS:
            raise InputError(f"Contexts of {T:,} tokens are too long; at most {_MOST_POSITIONS:,} can be analysed.")
        facts = {
            **facts,
            "key": state_key(config, facts),
            "sample_contexts": None,
        }
        return cls(
            config,
            facts,
            {name: np.zeros((F, *shape), dtype) for name, (shape, dtype) in per_feature(config).items()},
            0,
            np.zeros(L0_BINS, np.int64),
            np.zeros(T, np.int64),
            np.zeros(T, np.int64),
            np.zeros(int(facts["vocabulary"]), np.int64),
            np.zeros((C, -(-T // 8)), np.uint8),
            np.zeros(int(facts["blocks"]), bool),
            CodedSample.empty(),
        )

    @property
    def complete(self) -> bool:
        """Whether every block is in."""
        return bool(self.done_G.all())

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    def update(
        self,
        block: int,
        places: BlockPlaces,
        token_B: npt.NDArray[np.int32],
        entries: Entries,
        coded: CodedSample | None = None,
        *,
        portable: bool = False,
    ) -> None:
        """Take in a block of whole contexts.

        Args:
            block: its number in the grid.
            places: where its rows lie.
            token_B: their tokens.
            entries: their firings.
            coded: what is kept of the sampled contexts among them.
            portable: count without the compiled kernel.

        Raises:
            MismatchError: if the block is in already.
        """
        if self.done_G[block]:
            raise MismatchError(f"Block {block} is in the state already.")
        rows = len(token_B)
        if rows:
            accumulate(self.features, self.config, entries, places, float(self.facts["unit"]), portable=portable)
            active_B = np.bincount(entries.row_N, minlength=rows)
            T = places.context_length
            position_B = places.position_B.astype(np.int64)
            self.l0_histogram += np.bincount(active_B.clip(max=L0_BINS - 1), minlength=L0_BINS)
            self.rows_T += np.bincount(position_B, minlength=T)
            self.l0_sum_T += np.bincount(position_B, active_B, minlength=T).astype(np.int64)  # exact below 2**53
            self.token_count_V += np.bincount(token_B, minlength=len(self.token_count_V))
            first, last = int(places.sequence_B[0]), int(places.sequence_B[-1])
            is_row = np.zeros((last - first + 1, T), bool)
            is_row[places.sequence_B.astype(np.int64) - first, position_B] = True
            self.kept[first : last + 1] |= np.packbits(is_row, axis=1)
            self.rows += rows
        if coded is not None:
            self._parts.append(coded)
        self.done_G[block] = True

    def settle(self) -> Self:
        """Put the codes of sampled contexts together, after updates; returns the state."""
        if self._parts:
            self.sample = join_samples([self.sample, *self._parts])
            self._parts = []
        return self

    @classmethod
    def merge(cls, states: Sequence[FeatureState]) -> FeatureState:
        """The state of all blocks of some states together; the same bytes in any order.

        Raises:
            InputError: without any state.
            MismatchError: if they are of different things, or a block is in two of them.
        """
        if not states:
            raise InputError("There is no state to merge.")
        head = states[0]
        for other in states[1:]:
            different = differences(head._identity(), other._identity())
            if different or head.facts["key"] != other.facts["key"]:
                raise MismatchError(
                    "The states to merge are of different analyses: "
                    f"{'; '.join(different) or 'they were made by different versions of NeuronMap'}.",
                    hint="Merge shards of one analysis only: the same SAE, rows and settings.",
                )
        twice = np.flatnonzero(np.sum([state.done_G for state in states], axis=0) > 1)
        if len(twice):
            raise MismatchError(
                f"{len(twice):,} blocks are in more than one of the states to merge, the first is block {twice[0]}.",
                hint="Give each shard once.",
            )
        merged = cls.new(
            head.config, {name: value for name, value in head.facts.items() if name not in ("key", "sample_contexts")}
        )
        decided = [state.facts["sample_contexts"] for state in states if state.facts["sample_contexts"] is not None]
        merged.facts["sample_contexts"] = decided[0] if decided else None
        for state in states:
            merged._add(state)
        merged.sample = join_samples([state.settle().sample for state in states])
        return merged

    def _add(self, other: FeatureState) -> None:
        mine, theirs = self.features, other.features
        for name in _COUNTS:
            mine[name] += theirs[name]
        for name in _SUMS:
            mine[name] += theirs[name]
            carry(mine[name])
        np.maximum(mine["max"], theirs["max"], out=mine["max"])
        for name, count in (
            ("top", "top_count"),
            ("bins", "bin_count"),
            ("drawn", "drawn_count"),
            ("sample", "sample_count"),
        ):
            flat = [arrays[name].reshape(-1, arrays[name].shape[-1]) for arrays in (mine, theirs)]
            counts = [arrays[count].reshape(-1) for arrays in (mine, theirs)]
            merge_lists(flat[0], counts[0], flat[1], counts[1], ORDERS[name], DISTINCT[name])
        for name in _TOTALS:
            getattr(self, name)[...] += getattr(other, name)
        self.kept |= other.kept
        self.done_G |= other.done_G
        self.rows += other.rows

    def _identity(self) -> dict[str, Any]:
        facts = {name: value for name, value in self.facts.items() if value is not None}
        return {**facts, **{f"config.{name}": value for name, value in self.config.to_dict().items()}}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        totals = {name: getattr(self, name) for name in (*_TOTALS, "kept", "done_G")}
        return {**self.features, **totals, **{f"sample.{name}": array for name, array in self.sample.arrays().items()}}

    def save(self, folder: Path) -> None:
        """Write the state; what is in the folder before stays whole until the new one is.

        Raises:
            DiskSpaceError, UnwritablePathError: if it cannot be written.
        """
        self.settle()
        folder.mkdir(parents=True, exist_ok=True)
        check_disk_space(folder, self.nbytes, "The state of the feature pass", reserve=64 << 20)
        numbers = [int(path.name.removeprefix("arrays-")) for path in folder.glob("arrays-*")]
        new = f"arrays-{max(numbers, default=0) + 1}"
        for path in folder.glob(".staging-*"):  # of a writer that was killed
            shutil.rmtree(path, ignore_errors=True)
        digests = {}
        with staging_folder(folder / new) as staging:
            for name, array in self._arrays().items():
                np.save(staging / f"{name}.npy", array, allow_pickle=False)
                digests[name] = _digest(array)
        body = {
            "format": FORMAT,
            "version": VERSION,
            "config": self.config.to_dict(),
            "facts": self.facts,
            "rows": self.rows,
            "arrays": new,
            "digests": digests,
        }
        write_json(folder / STATE, {**body, "digest": digest_json(body)})
        for path in folder.glob("arrays-*"):
            if path.name != new:
                shutil.rmtree(path, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> FeatureState:
        """Read a state and check every byte of it.

        Raises:
            InputError: if there is none.
            DamagedError: if a file is missing or changed.
            MismatchError: if another version wrote it.
        """
        body = _read(folder)
        facts = {name: value for name, value in body["facts"].items() if name not in ("key", "sample_contexts")}
        state = cls.new(AnalysisConfig.from_dict(body["config"]), facts)
        state.facts, state.rows = body["facts"], int(body["rows"])
        expected, loaded = state._arrays(), {}
        for name, digest in body["digests"].items():
            loaded[name] = _load_array(folder / body["arrays"] / f"{name}.npy", digest, expected.get(name))
        state.features = {name: loaded[name] for name in state.features}
        for name in (*_TOTALS, "kept", "done_G"):
            setattr(state, name, loaded[name])
        state.sample = CodedSample(**{name: loaded[f"sample.{name}"] for name in state.sample.arrays()})
        return state


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What two dictionaries do not agree on among the names that both have: ``name is 1 and 2``; digests of digests left out."""
    both = [name for name in one if name in other and name != "key"]
    return [f"{name} is {one[name]!r} and {other[name]!r}" for name in both if one[name] != other[name]]


_REDO = "Delete the folder and run the analysis again."


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / STATE).is_file():
        raise InputError(f"There is no state of a feature pass in {folder} ({STATE} is missing).")
    body = read_json(folder / STATE)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise MismatchError(f"{folder / STATE} is no state of a feature pass.")
    if body.get("version") != VERSION or body.get("digest") != digest_json(
        {n: v for n, v in body.items() if n != "digest"}
    ):
        if body.get("version") != VERSION:
            raise MismatchError(
                f"{folder} holds a state of version {body.get('version')!r}; this NeuronMap reads version {VERSION}.",
                hint=_REDO,
            )
        raise DamagedError(f"{folder / STATE} is damaged: its digest differs.", hint=_REDO)
    return body


def _digest(array: npt.NDArray[Any]) -> str:
    """Of the bytes of an array, without a copy of them."""
    return digest_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _load_array(path: Path, digest: str, like: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DamagedError(f"The state is damaged: {path} is missing.", hint=_REDO) from None
    except (ValueError, OSError, EOFError) as error:
        raise DamagedError(f"The state is damaged: {path} cannot be read ({error}).", hint=_REDO) from error
    if like is None or array.dtype != like.dtype or array.shape[1:] != like.shape[1:]:
        raise DamagedError(f"The state is damaged: {path} holds {array.dtype} {list(array.shape)}.", hint=_REDO)
    if _digest(array) != digest:
        raise DamagedError(f"The state is damaged: {path} was changed (its digest differs).", hint=_REDO)
    return array
