"""Examples of all features: chosen by text, token, class, label and strength, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from neuronmap.errors import InputError, NotInLibraryError
from neuronmap.features.storage.conditions import Filter
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.storage.store import Example, FeatureStore
from neuronmap.paths import public_name
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.tokens import ShownPiece
from neuronmap.web.views.example_index import ExampleIndex, example_index
from neuronmap.web.views.names import FeatureName, feature_names

__all__ = ["ExampleFilter", "ExamplePage", "FoundExample", "example_page", "shown_example"]

Kind = Literal["", "top", "quantile", "bin", "random", "hard"]
Order = Literal["share", "feature"]


class ExampleFilter(BaseModel):
    """Which examples are wanted; empty texts are no condition."""

    text: str = ""
    token: str = ""
    firing_class: str = ""
    label: str = ""
    low: float = 0.0
    high: float = 1.0
    kind: Kind = ""
    sort: Order = "share"


class FoundExample(BaseModel):
    """One example with its feature."""

    sae: str
    analysis: str
    feature: FeatureName
    kind: str = Field(description="top, quantile, bin, random or hard.")
    group: int = Field(description="Quantile group or bin of the histogram; 0 otherwise.")
    rank: int
    activation: float = Field(description="At the peak; 0 for random and hard.")
    share: float = Field(description="The same over the feature's largest activation.")
    document: str = Field(description="Where the text comes from.")
    sequence: int = Field(description="Context.")
    position: int = Field(description="Place of the peak in the context.")
    peak: int = Field(description="The piece that holds the peak.")
    pieces: list[ShownPiece]


class ExamplePage(BaseModel):
    """Some of the examples that meet the conditions, in their order."""

    examples: list[FoundExample]
    next: str | None = Field(description="Cursor of the next page; null at the end.")
    totals: dict[str, int] = Field(
        description="Examples that meet the conditions, for each SAE that was looked at for this page."
    )
    building: list[str] = Field(description="SAEs whose index is being made: not looked at yet, ask again.")
    without: list[str] = Field(description="SAEs that have no analysis.")


def shown_example(sae: str, analysis: str, example: Example, feature: FeatureName) -> FoundExample:
    """An example as pages show it."""
    pieces = example.pieces()
    shown = [
        ShownPiece(
            text=piece.text,
            shown=piece.shown,
            value=float(example.activations[piece.start : piece.stop].max()) if piece.stop > piece.start else 0.0,
            special=piece.special,
        )
        for piece in pieces
    ]
    return FoundExample(
        sae=sae,
        analysis=analysis,
        feature=feature,
        kind=example.kind,
        group=example.group,
        rank=example.rank,
        activation=float(example.activation),
        share=float(example.activation) / feature.max if feature.max else 0.0,
        document=public_name(example.document),
        sequence=example.sequence,
        position=example.position,
        peak=next((at for at, piece in enumerate(pieces) if piece.start <= example.peak < piece.stop), 0),
        pieces=shown,
    )


def example_page(
    explorer: Explorer,
    wanted: ExampleFilter,
    *,
    sae: str = "",
    analysis: str = "",
    after: str = "",
    limit: int = 20,
    wait: float = 1.0,
) -> ExamplePage:
    """One page, SAE after SAE, the newest first.

    Args:
        explorer: the server's.
        wanted: conditions and order.
        sae: only of this one; all when empty.
        analysis: of that SAE; the newest when empty.
        after: cursor of the page before.
        limit: most examples.
        wait: seconds to wait for an index that is being made.

    Raises:
        NotInLibraryError: no such SAE, or it has no analysis.
        InputError: a cursor that is none of ours, or a token that no SAE's vocabulary has.
    """
    found = ExamplePage(examples=[], next=None, totals={}, building=[], without=[])
    begun_row, begun_name, begun_sae = _cursor(after)
    faults: list[InputError] = []
    last = after or None
    for one in _analysed(explorer, sae, analysis, found.without, begun_sae, begun_name):
        if len(found.examples) >= limit:  # an SAE is left
            found.next = last
            break
        index = example_index(one.store, wait)
        if index is None:
            found.building.append(one.entry.id)
            found.next = last if found.examples else None
            break
        try:
            chosen_N = _chosen(index, wanted)
        except InputError as error:  # a token that this vocabulary has not
            faults.append(error)
            continue
        beyond = begun_row if one.entry.id == begun_sae else None
        rows, more = _rows(index, chosen_N, wanted.sort, beyond, limit - len(found.examples))
        found.totals[one.entry.id] = int(chosen_N.sum())
        found.examples += _examples(one, index, rows)
        if len(rows):
            last = f"{rows[-1]}~{one.analysis.name}~{one.entry.id}"
        if more:
            found.next = last
            break
    if faults and not found.totals and not found.building:
        raise faults[0]
    return found


def _cursor(after: str) -> tuple[int | None, str, str]:
    if not after:
        return None, "", ""
    row, _, rest = after.partition("~")
    name, _, sae = rest.partition("~")
    if not row.isdecimal() or not name or not sae:
        raise InputError(f"{after!r} is not the cursor of a page.", hint="Use `next` of the page before, or none.")
    return int(row), name, sae


def _analysed(
    explorer: Explorer, sae: str, analysis: str, without: list[str], begun_sae: str, begun_name: str
) -> Iterator[Analysed]:
    """SAEs to look at, from the one that the cursor is in; a cursor stays in the analysis that it began in."""
    if sae:
        yield explorer.analysed(sae, begun_name if begun_sae == sae else analysis)
        return
    entries = [entry for entry in explorer.entries() if not entry.problem]
    ids = [entry.id for entry in entries]
    if begun_sae and begun_sae not in ids:
        raise NotInLibraryError(f"There is no SAE '{begun_sae}' any more, where this page goes on.", hint="Begin anew.")
    for entry in entries[ids.index(begun_sae) if begun_sae else 0 :]:
        if explorer.analyses(entry):
            yield explorer.analysed(entry.id, begun_name if entry.id == begun_sae else None)
        else:
            without.append(entry.id)


def _chosen(index: ExampleIndex, wanted: ExampleFilter) -> npt.NDArray[np.bool_]:
    """bool [N]: which examples meet the conditions; of the same firing in several kinds the first, unless one kind is wanted."""
    chosen = np.asarray(index.kind_N) == EXAMPLE_KINDS.index(wanted.kind) if wanted.kind else np.array(index.first_N)
    share = np.asarray(index.share_N)
    if wanted.low > 0:
        chosen &= share >= np.float32(wanted.low)
    if wanted.high < 1:
        chosen &= share <= np.float32(wanted.high)
    features = _features(index.store, wanted)
    if features is not None:
        chosen &= features[index.feature_N]
    if wanted.token:
        chosen &= index.peaking_at(index.store.queries.tokens_of(wanted.token))
    if wanted.text and chosen.any():
        chosen &= index.holding(wanted.text)
    return chosen


def _features(store: FeatureStore, wanted: ExampleFilter) -> npt.NDArray[np.bool_] | None:
    """bool [F]: features that meet the conditions on features; None if there are none."""
    where = [Filter("class", "=", wanted.firing_class)] if wanted.firing_class else []
    where += [Filter("label", "~", wanted.label)] if wanted.label else []
    if not where:
        return None
    found = np.zeros(store.num_features, np.bool_)
    found[store.queries.select(where, limit=None, columns=["feature"]).features] = True
    return found


def _rows(
    index: ExampleIndex, chosen_N: npt.NDArray[np.bool_], sort: Order, beyond: int | None, limit: int
) -> tuple[npt.NDArray[np.int64], bool]:
    """The next examples of those chosen, and whether more follow."""
    if beyond is not None and beyond >= len(index):
        raise InputError(f"The cursor names example {beyond}, but there are {len(index):,}.", hint="Begin anew.")
    if sort == "share":
        order = np.asarray(index.by_share_N)
        start = 0 if beyond is None else int(np.flatnonzero(order == beyond)[0]) + 1
        found = order[start:][chosen_N[order[start:]]]
    else:
        found = np.flatnonzero(chosen_N)
        found = found if beyond is None else found[np.searchsorted(found, beyond, side="right") :]
    return found[:limit], len(found) > limit


def _examples(one: Analysed, index: ExampleIndex, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[FoundExample]:
    kept: dict[int, tuple[FeatureName, dict[tuple[Any, ...], Example]]] = {}
    found = []
    for row in rows:
        feature = int(index.feature_N[row])
        if feature not in kept:
            by_rank = {(each.kind, each.group, each.rank): each for each in one.store.examples(feature)}
            kept[feature] = feature_names(one.store, [feature])[0], by_rank
        about, by_rank = kept[feature]
        key = (EXAMPLE_KINDS[index.kind_N[row]], int(index.group_N[row]), int(index.rank_N[row]))
        found.append(shown_example(one.entry.id, one.analysis.name, by_rank[key], about))
    return found
