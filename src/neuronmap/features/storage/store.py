"""``FeatureStore``: a finished analysis, read from disk. No torch, and no table is read before it is asked for.

Shapes: F features, C contexts of T tokens, V vocabulary, W tokens of an example's window.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from neuronmap.errors import DamagedError, InputError
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.storage.files import Tables
from neuronmap.features.storage.manifest import REDO
from neuronmap.features.storage.migrations import bring_up_to_date
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.storage.text import Piece, Vocabulary
from neuronmap.features.storage.verified import read_verified

if TYPE_CHECKING:
    import pyarrow as pa

    from neuronmap.features.storage.queries import FeatureQueries

__all__ = ["Example", "FeatureRecord", "FeatureStore", "GivenLabel"]

TOKENS_FILE, KEPT_FILE = "tokens.npy", "kept.npy"
ALIVE = ("alive", "dense")
_AROUND = 16  # tokens beside a window that its first and last characters may need


class GivenLabel(NamedTuple):
    """A label that somebody gave a feature, which goes before that of the rules.

    Attributes:
        text: the label.
        author: who gave it.
        disputed: whether somebody disagrees.
    """

    text: str
    author: str
    disputed: bool


def _nobody(features: Sequence[int]) -> Mapping[int, GivenLabel]:
    del features
    return {}


@dataclass(frozen=True, eq=False)
class Example:
    """One example of a feature: a window of a context, and where in it the feature fires.

    Attributes:
        feature: number of the feature.
        kind: top, quantile, bin, random or hard.
        group: quantile group (0 the weakest) or bin of the histogram; 0 otherwise.
        rank: order within kind and group, from 0.
        sequence: the context.
        position: place of the peak in the context.
        activation: activation there; 0 for random and hard.
        start: place of the window's first token in the context.
        token_ids: int64 [W], the window's tokens; fewer at the context's ends.
        activations: float32 [W], 0 where it does not fire.
        store: the store it is from.
    """

    feature: int
    kind: str
    group: int
    rank: int
    sequence: int
    position: int
    activation: float
    start: int
    token_ids: npt.NDArray[np.int64]
    activations: npt.NDArray[np.float32]
    store: FeatureStore = field(repr=False)

    @property
    def peak(self) -> int:
        """Place of the peak in the window."""
        return self.position - self.start

    @property
    def document(self) -> str:
        """Where the peak's document comes from."""
        return self.store.document_of(self.sequence, self.position)

    @property
    def text(self) -> str:
        """The window's text."""
        return "".join(piece.text for piece in self.pieces())

    def pieces(self) -> list[Piece]:
        """The window as it is shown; ``start`` and ``stop`` count its tokens.

        A character that lies across the window's edge is shown whole.
        """
        stop = self.start + len(self.token_ids)
        first = max(0, self.start - _AROUND)
        around = self.store.context(self.sequence)[first : stop + _AROUND]
        begin, end = self.start - first, stop - first
        return [
            Piece(piece.text, max(piece.start, begin) - begin, min(piece.stop, end) - begin, piece.special)
            for piece in self.store.vocabulary.pieces(around)
            if piece.stop > begin and piece.start < end
        ]


@dataclass(frozen=True, eq=False)
class FeatureRecord:
    """What a store knows of one feature.

    Attributes:
        feature: its number.
        row: its row of ``features.parquet``.
        hint: its row of ``hints.parquet``; None where the analysis has none.
        store: the store it is from.
    """

    feature: int
    row: dict[str, Any]
    hint: dict[str, Any] | None
    store: FeatureStore = field(repr=False)

    @cached_property
    def details(self) -> dict[str, Any]:
        """Its row of ``details.parquet``: histograms, tokens, neighbours, logits."""
        return self.store._one("details", self.feature)

    @property
    def label(self) -> str:
        """The hint's short label; empty if there is none."""
        return str(self.hint["label"] or "") if self.hint is not None else ""

    @property
    def alive(self) -> bool:
        """Whether it fired often enough to be looked at: status alive or dense."""
        return self.row["status"] in ALIVE


class FeatureStore:
    """A finished analysis of one SAE. Open it with :meth:`open`; several threads may read at once.

    Args:
        path: the folder.
        manifest: its checked manifest.

    Attributes:
        given: what people and models call features, by number; nothing unless whoever opened the store says where that is known from.

    Example:
        >>> with FeatureStore.open("analysis") as store:
        ...     record = store.feature(7)
        ...     for example in store.examples(7, "top"):
        ...         print(example.activation, "".join(piece.shown for piece in example.pieces()))
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.tables = Tables(path, frozenset(manifest["files"]))
        self.given: Callable[[Sequence[int]], Mapping[int, GivenLabel]] = _nobody

    @classmethod
    def open(cls, folder: str | Path, verify: bool = False) -> Self:
        """Open a store; one of an older version is brought up to date first.

        Every digest is checked at the first opening (about a second per GB), and afterwards those of files whose size or time of
        modification has changed; ``verified.json`` in the folder keeps what was checked.

        Args:
            folder: where it lies.
            verify: read every byte and check every digest again.

        Raises:
            InputError: no store lies there.
            MismatchError: it is of another kind, or of a version that this NeuronMap does not read.
            DamagedError: a file is missing, cut off or changed; names it.
        """
        path = Path(folder).expanduser()
        bring_up_to_date(path)
        return cls(path, read_verified(path, verify=verify))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FeatureStore {self.path}: {self.num_features:,} features, {self.manifest['rows']:,} tokens>"

    def close(self) -> None:
        """Let go of files and of the connection of :attr:`queries`."""
        self.tables.close()
        if "queries" in self.__dict__:
            self.queries.close()
            del self.__dict__["queries"]

    # --- what was analysed -------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """Digest of all that decides the content."""
        return str(self.manifest["key"])

    @property
    def num_features(self) -> int:
        """F."""
        return int(self.manifest["features"])

    @property
    def num_contexts(self) -> int:
        """C."""
        return int(self.manifest["contexts"])

    @property
    def context_length(self) -> int:
        """T."""
        return int(self.manifest["context_length"])

    @property
    def facts(self) -> dict[str, Any]:
        """Identities of SAE, model and corpus, mask, digests."""
        return dict(self.manifest["facts"])

    @property
    def overview(self) -> dict[str, Any]:
        """Figures over the whole dictionary."""
        return dict(self.manifest["overview"])

    @cached_property
    def config(self) -> AnalysisConfig:
        """The settings of the pass."""
        return AnalysisConfig(**self.manifest["config"])

    @cached_property
    def edges(self) -> npt.NDArray[np.float64]:
        """float64 [65]: edges of the histograms' bins."""
        return np.array(self.manifest["edges"], np.float64)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Bytes and text of every token."""
        return Vocabulary.from_table(self.tables.read("vocabulary", ["bytes", "special"]))

    @cached_property
    def queries(self) -> FeatureQueries:
        """Filters, sorts and searches over all features."""
        from neuronmap.features.storage.queries import FeatureQueries

        return FeatureQueries(self)

    # --- features ----------------------------------------------------------------------------------------------------

    @cached_property
    def alive(self) -> npt.NDArray[np.bool_]:
        """bool [F]: status alive or dense, which is at least 10 firings."""
        import pyarrow as pa
        import pyarrow.compute as pc

        status = self.tables.read("features", ["status"]).column(0)
        return np.asarray(pc.is_in(status, value_set=pa.array(ALIVE)), np.bool_)

    def nearest_alive(self, feature: int, step: int = 0) -> int | None:
        """The nearest alive feature by number.

        Args:
            feature: any number; need not be a feature.
            step: 1 = the next one above, -1 = the next one below, 0 = the nearer of the two or the feature itself.

        Returns:
            None if there is none on that side.
        """
        ids = np.flatnonzero(self.alive)
        if step > 0:
            ids = ids[ids > feature]
        elif step < 0:
            ids = ids[ids < feature]
        return int(ids[np.argmin(np.abs(ids - feature))]) if len(ids) else None

    def check_feature(self, feature: int) -> int:
        """The number, if there is such a feature.

        Raises:
            InputError: gives the valid range and the nearest alive feature.
        """
        try:
            number = operator.index(feature)
        except TypeError as error:
            raise InputError(f"{feature!r} is not the number of a feature.") from error
        if not 0 <= number < self.num_features:
            near = self.nearest_alive(number)
            raise InputError(
                f"There is no feature {number}: features are 0 to {self.num_features - 1}.",
                hint="" if near is None else f"The nearest one that is alive is {near}.",
            )
        return number

    def feature(self, feature: int) -> FeatureRecord:
        """What is known of one feature. Reads one row group of each table, and of ``details`` when that is looked at.

        Raises:
            InputError: no such feature; gives the valid range and the nearest alive one.
        """
        number = self.check_feature(feature)
        hint = self._one("hints", number) if "hints" in self.tables.names else None
        return FeatureRecord(number, self._one("features", number), hint, self)

    def examples(self, feature: int, kind: str | None = None) -> list[Example]:
        """Examples of a feature, by kind (top, quantile, bin, random, hard), group and rank.

        Args:
            feature: its number.
            kind: only these.

        Raises:
            InputError: no such feature or kind.
        """
        number = self.check_feature(feature)
        if kind is not None and kind not in EXAMPLE_KINDS:
            raise InputError(f"There are no examples of kind {kind!r}. Kinds: {', '.join(EXAMPLE_KINDS)}.")
        rows = self.tables.rows("examples", number).to_pylist()
        rows = [row for row in rows if kind is None or row["kind"] == kind]
        rows.sort(key=lambda row: (EXAMPLE_KINDS.index(row["kind"]), row["group"], row["rank"]))
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, Any]) -> Example:
        position = row["position"]
        start = max(0, position - self.config.before)
        ids = self.context(row["sequence"])[start : position + self.config.after + 1]
        activations = np.zeros(len(ids), np.float32)
        activations[np.array(row["offsets"], np.int64) + position - start] = row["activations"]
        activations[position - start] = row["activation"]  # as it was, not rounded
        return Example(
            feature=row["feature"],
            kind=row["kind"],
            group=row["group"],
            rank=row["rank"],
            sequence=row["sequence"],
            position=position,
            activation=row["activation"],
            start=start,
            token_ids=ids,
            activations=activations,
            store=self,
        )

    def _one(self, table: str, feature: int) -> dict[str, Any]:
        rows = self.tables.rows(table, feature).to_pylist()
        if len(rows) != 1:
            raise DamagedError(
                f"The feature store {self.path} is damaged: {table}.parquet has {len(rows)} rows of feature {feature}.",
                hint=REDO,
            )
        return dict(rows[0])

    # --- text --------------------------------------------------------------------------------------------------------

    def context(self, sequence: int) -> npt.NDArray[np.int64]:
        """int64 [T]: the tokens of a context.

        Raises:
            InputError: no such context.
        """
        return np.asarray(self._tokens[self._checked(sequence)], np.int64)

    def kept(self, sequence: int) -> npt.NDArray[np.bool_]:
        """bool [T]: which positions of a context were analysed; the others were masked.

        Raises:
            InputError: no such context.
        """
        bits = np.unpackbits(self._kept[self._checked(sequence)], count=self.context_length)
        return bits.astype(np.bool_)

    def document_of(self, sequence: int, position: int) -> str:
        """Where the document at a place comes from (file, ``file.jsonl:17``, row); empty before the first document.

        A separator belongs to the document before it.

        Raises:
            InputError: no such context or position.
        """
        if not 0 <= position < self.context_length:
            raise InputError(f"There is no position {position}: a context has {self.context_length} tokens.")
        place = self._checked(sequence) * self.context_length + position
        starts, ids = self._documents
        document = int(np.searchsorted(starts, place, side="right")) - 1
        return str(ids[document].as_py()) if document >= 0 else ""

    def _checked(self, sequence: int) -> int:
        if not 0 <= sequence < self.num_contexts:
            raise InputError(f"There is no context {sequence}: contexts are 0 to {self.num_contexts - 1}.")
        return int(sequence)

    @cached_property
    def _documents(self) -> tuple[npt.NDArray[np.int64], pa.ChunkedArray]:
        table = self.tables.read("documents", ["id", "sequence", "position"])
        sequence = table["sequence"].to_numpy().astype(np.int64)
        return sequence * self.context_length + table["position"].to_numpy(), table["id"]

    @cached_property
    def _tokens(self) -> npt.NDArray[np.unsignedinteger]:
        return self._mapped(TOKENS_FILE, (self.num_contexts, self.context_length), ("<u2", "<u4"))

    @cached_property
    def _kept(self) -> npt.NDArray[np.uint8]:
        return self._mapped(KEPT_FILE, (self.num_contexts, -(-self.context_length // 8)), ("|u1",))

    def _mapped(self, name: str, shape: tuple[int, int], kinds: tuple[str, ...]) -> npt.NDArray[Any]:
        try:
            found: npt.NDArray[Any] = np.load(self.path / name, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise DamagedError(
                f"The feature store {self.path} is damaged: {name} cannot be read ({error}).", hint=REDO
            ) from error
        if found.shape != shape or found.dtype.str not in kinds:
            raise DamagedError(
                f"The feature store {self.path} is damaged: {name} holds {found.dtype} {found.shape}, not {shape}.",
                hint=REDO,
            )
        return found
