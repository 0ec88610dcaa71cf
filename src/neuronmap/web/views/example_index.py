"""Which examples of an analysis hold a text or peak at a token: an index of flat arrays, made once and mapped from the disk.

    <home>/cache/examples/<first 16 digits of the key>-<version>/
        text.npy      uint8 [B]      bytes of all contexts, folded (see :func:`fold`)
        starts.npy    int64 [P + 1]  where in them each token begins; P = contexts x their length, a token's place
        feature.npy, kind.npy, group.npy, rank.npy, place.npy, share.npy   [N]  the examples, in the store's order
        first.npy     bool [N]       whether it is the first of its feature at its place (the same firing may be of several kinds)
        by_share.npy  int64 [N]      the examples, the largest share of their feature's maximum first

A text is looked for in the contexts and not in the examples: windows of examples overlap, so that they are many times the text.
Why this and no full-text engine: docs/decisions/0009-example-search.md.

Shapes: B bytes, P places, N examples, M matches, V tokens of the vocabulary.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from neuronmap.errors import DamagedError
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.storage.store import FeatureStore
from neuronmap.hashing import short
from neuronmap.paths import cache_folder, staging_folder
from neuronmap.web.caches import bound, touch

__all__ = ["ExampleIndex", "Phrase", "example_index", "fold", "index_folder"]

VERSION = 1
MOST_MATCHES = 2_000_000
"""Places of a text that are looked at; what is more frequent than that is cut off there."""

_COLUMNS = ("text", "starts", "feature", "kind", "group", "rank", "place", "share", "first", "by_share")
_LETTERS = [bytes([one]) for one in b"0123456789abcdefghijklmnopqrstuvwxyz"]
_IS_LETTER = np.isin(np.arange(256), [one[0] for one in _LETTERS])
_SPACES = bytes.maketrans(b"\t\n\r\x0b\x0c", b"     ")


def fold(text: str) -> bytes:
    """UTF-8 in which case and kinds of white space do not count; as many bytes as before.

    A letter whose lower case has another length (``İ``) stays as it is.
    """
    lowered = (low if len((low := one.lower()).encode()) == len(one.encode()) else one for one in text)
    return "".join(lowered).encode().translate(_SPACES)


class Phrase:
    """What a text is looked for as: whole words, any run of white space for any other; ``*`` at an end leaves the word open there.

    Args:
        text: not empty.
    """

    def __init__(self, text: str) -> None:
        folded = fold(text)
        inner = folded.removeprefix(b"*").removesuffix(b"*") or folded
        self._pattern = re.compile(rb" +".join(re.escape(part) for part in re.split(rb" +", inner)))
        # letters beyond ASCII have no edges: Chinese has no spaces between words
        self._begins = inner[:1] in _LETTERS and not folded.startswith(b"*")
        self._ends = inner[-1:] in _LETTERS and not folded.endswith(b"*")

    def spans(
        self, text_B: npt.NDArray[np.uint8], begins_C: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.int64]:
        """int64 [M, 2]: where it stands in folded text, first byte and one past the last.

        Args:
            text_B: the text.
            begins_C: where in it contexts begin, which are edges of words too.
        """
        found = self._pattern.finditer(
            text_B.data
        )  # begins with letters, which makes it quick; edges are looked at afterwards
        span_M2 = np.array([one.span() for one in islice(found, MOST_MATCHES)], np.int64).reshape(-1, 2)
        kept = np.ones(len(span_M2), np.bool_)
        for edge_M, beside, wanted in ((span_M2[:, 0], -1, self._begins), (span_M2[:, 1], 0, self._ends)):
            if not wanted:
                continue
            place_M = edge_M + beside
            inside = (place_M >= 0) & (place_M < len(text_B))
            if begins_C is not None:
                inside &= ~np.isin(edge_M, begins_C)
            kept &= ~(inside & _IS_LETTER[text_B[np.where(inside, place_M, 0)]])
        return span_M2[kept]


def _fold_token(data: bytes) -> bytes:
    try:
        return fold(data.decode())
    except UnicodeDecodeError:  # part of a character
        return data.lower().translate(_SPACES)


class ExampleIndex:
    """The arrays of one analysis.

    Args:
        folder: where they lie.
        store: the analysis they are of.

    Raises:
        DamagedError: a file cannot be read.
    """

    def __init__(self, folder: Path, store: FeatureStore) -> None:
        self.store = store
        try:
            found: dict[str, npt.NDArray[Any]] = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS
            }
        except (OSError, ValueError, EOFError) as error:
            raise DamagedError(
                f"The index of examples cannot be read: {error}.", hint="Delete the cache's folder `examples`."
            ) from error
        self._text, self._starts = found["text"], found["starts"]
        self.feature_N, self.kind_N, self.group_N, self.rank_N = (
            found[name] for name in ("feature", "kind", "group", "rank")
        )
        self.place_N, self.share_N, self.first_N = found["place"], found["share"], found["first"]
        self.by_share_N = found["by_share"]

    def __len__(self) -> int:
        return len(self.feature_N)

    @cached_property
    def _window(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First and last place of each example's window."""
        length = self.store.context_length
        place = np.asarray(self.place_N, np.int64)
        begin = place // length * length
        config = self.store.config
        return np.maximum(begin, place - config.before), np.minimum(begin + length - 1, place + config.after)

    def matches(self, text: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First and last place of each time that a text stands in a context, as :class:`Phrase` reads it."""
        span_M2 = Phrase(text).spans(self._text, np.asarray(self._starts[:: self.store.context_length]))
        first = np.searchsorted(self._starts, span_M2[:, 0], side="right") - 1
        last = np.searchsorted(self._starts, span_M2[:, 1] - 1, side="right") - 1
        whole = first // self.store.context_length == last // self.store.context_length
        return first[whole], last[whole]

    def holding(self, text: str) -> npt.NDArray[np.bool_]:
        """bool [N]: whether the text stands in the example's window."""
        first_M, last_M = self.matches(text)
        if not len(first_M):
            return np.zeros(len(self), np.bool_)
        places = len(self._starts) - 1
        before_P = np.cumsum(np.bincount(first_M, minlength=places)) - np.bincount(first_M, minlength=places)
        next_last_P = np.append(last_M, np.iinfo(np.int64).max)[
            before_P
        ]  # end of the next match that begins here or later
        begin_N, end_N = self._window
        return np.asarray(next_last_P[begin_N] <= end_N)

    def peaking_at(self, tokens: list[int]) -> npt.NDArray[np.bool_]:
        """bool [N]: whether the example's peak is one of these tokens."""
        wanted_V = np.zeros(self.store.vocabulary.size, np.bool_)
        wanted_V[tokens] = True
        return np.asarray(wanted_V[self._token_at[self.place_N]])

    @cached_property
    def _token_at(self) -> npt.NDArray[np.unsignedinteger]:
        return np.asarray(self.store._tokens).reshape(-1)


# --- making ------------------------------------------------------------------------------------------------------------


def index_folder(key: str) -> Path:
    """Where the index of the analysis with this key lies."""
    return cache_folder("examples") / f"{short(key, 16)}-{VERSION}"


def _build(store: FeatureStore, target: Path) -> ExampleIndex:
    """Make the index unless it is there."""
    if not target.is_dir():
        with suppress(FileExistsError), staging_folder(target) as staging:  # another server may be first
            for name, values in _arrays(store).items():
                np.save(staging / f"{name}.npy", values)
        bound("examples", keep=target)
    touch(target)
    return ExampleIndex(target, store)


def _arrays(store: FeatureStore) -> dict[str, npt.NDArray[Any]]:
    data = [_fold_token(store.vocabulary.bytes_of(token)) for token in range(store.vocabulary.size)]
    token_P = np.asarray(store._tokens).reshape(-1)
    width_V = np.array([len(one) for one in data], np.int64)
    starts = np.concatenate([[0], np.cumsum(width_V[token_P])])
    pieces = bytearray()
    for first in range(0, len(token_P), 1 << 20):
        pieces += b"".join([data[token] for token in token_P[first : first + (1 << 20)].tolist()])
    columns = ["feature", "kind", "group", "rank", "sequence", "position", "activation"]
    table = store.tables.read("examples", columns)
    feature = table["feature"].to_numpy()
    kinds = table["kind"].combine_chunks()
    names = kinds.dictionary.to_pylist()
    kind = np.array([EXAMPLE_KINDS.index(name) for name in names], np.int8)[kinds.indices.to_numpy()]
    place = table["sequence"].to_numpy().astype(np.int64) * store.context_length + table["position"].to_numpy()
    largest = store.tables.read("features", ["max"])["max"].to_numpy(zero_copy_only=False)[feature]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(table["activation"].to_numpy() / largest, posinf=0.0, neginf=0.0)
    order = np.lexsort((np.arange(len(feature)), place, feature))
    is_first = np.ones(len(feature), np.bool_)
    same = (feature[order][1:] == feature[order][:-1]) & (place[order][1:] == place[order][:-1])
    is_first[order[1:][same]] = False
    return {
        "text": np.frombuffer(bytes(pieces), np.uint8),
        "starts": starts,
        "feature": feature,
        "kind": kind,
        "group": table["group"].to_numpy(),
        "rank": table["rank"].to_numpy(),
        "place": place,
        "share": share.astype(np.float32),
        "first": is_first,
        "by_share": np.lexsort((np.arange(len(feature)), -share)),
    }


class _Indexes:
    """Indexes that are open or being made, a few at a time; made in a thread, so that no request hangs."""

    def __init__(self, most: int = 16) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="example-index")
        self._lock = threading.Lock()
        self._found: dict[Path, Future[ExampleIndex]] = {}
        self._most = most

    def get(self, store: FeatureStore, wait: float) -> ExampleIndex | None:
        target = index_folder(store.key)
        with self._lock:
            future = self._found.pop(target, None) or self._pool.submit(_build, store, target)
            self._found[target] = future  # the last used is last
            while len(self._found) > self._most:
                del self._found[next(iter(self._found))]
        try:
            return future.result(timeout=wait)
        except TimeoutError:
            return None
        except BaseException:
            with self._lock:
                self._found.pop(target, None)
            raise


_indexes = _Indexes()


def example_index(store: FeatureStore, wait: float = 1.0) -> ExampleIndex | None:
    """The index of an analysis; made when it is first asked for.

    Args:
        store: the analysis.
        wait: seconds that it may take.

    Returns:
        None while it is being made: ask again.

    Raises:
        DamagedError: the analysis or its index cannot be read.
        UnwritablePathError: the cache cannot be written.
    """
    return _indexes.get(store, wait)
