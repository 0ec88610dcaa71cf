"""Searching all features: by token, by promoted token, by label, by example text."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.features.storage.queries import Rows
from neuronmap.features.storage.schema import EXAMPLE_KINDS
from neuronmap.features.storage.store import FeatureStore
from neuronmap.features.storage.text import visible
from neuronmap.models.samples import SENTENCE_ENCODER
from neuronmap.web.asking import Asked
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.browser import FoundExample, shown_example
from neuronmap.web.views.example_index import ExampleIndex, example_index
from neuronmap.web.views.names import FeatureName, feature_names

if TYPE_CHECKING:
    from neuronmap.web.books import Books

__all__ = ["GROUPS", "Encoder", "Found", "FoundGroup", "Hit", "found_nothing", "hit_of", "search", "searched"]

GROUPS = {
    "fires_on": (
        "Fires on the token",
        "features that fire on this token in any case, by the harmonic mean of two shares: of its occurrences on which they fire, "
        "and of their firings that are on it",
    ),
    "promotes": ("Promotes the token", "features that have the token among those they promote, by direct logit"),
    "label": (
        "Label or top token",
        "features that people, models or rules gave a label with every word, or whose most typical tokens hold them",
    ),
    "text": (
        "Example text",
        "features with an example that holds the text, by how many of their strongest examples do",
    ),
}
"""Groups of results: title, and what was searched in what order."""

MOST_SAES = 16
"""SAEs that one search looks at, the newest first."""


class Hit(BaseModel):
    """A feature that was found."""

    sae: str
    analysis: str
    about: FeatureName
    why: str = Field(description="Why it was found.")
    value: float | None = Field(description="What it was sorted by.")
    example: FoundExample | None = Field(
        default=None, description="Its strongest example that holds the text; by meaning, its strongest of all."
    )


class FoundGroup(BaseModel):
    """Results of one kind."""

    name: str = Field(description="fires_on, promotes, label or text; meaning.")
    title: str
    about: str = Field(description="What was searched, in which order.")
    total: int = Field(
        description="Features found, in all SAEs that were searched; by meaning, features that have a text to compare."
    )
    totals: dict[str, int] = Field(description="The same for each SAE.")
    hits: list[Hit]


class Encoder(BaseModel):
    """The sentence encoder that meanings are compared with."""

    name: str = Field(default=SENTENCE_ENCODER.name)
    installed: bool = Field(default_factory=lambda: SENTENCE_ENCODER.path() is not None)
    install: str = Field(default=SENTENCE_ENCODER.install, description="The command that installs it.")
    digest: str = Field(default="", description="SHA-256 over its files; only of a search by meaning.")


class Found(BaseModel):
    """What a search found."""

    query: str
    by: Literal["words", "meaning"] = Field(description="Whether words were looked for, or what is near in meaning.")
    groups: list[FoundGroup]
    total: int
    searched: list[str] = Field(description="SAEs that were searched.")
    tokens: int = Field(description="Tokens of text in which examples were searched.")
    features: int = Field(description="Features that were searched.")
    building: list[str] = Field(
        description="SAEs whose text is still being read in: their examples, or their features by meaning, are not in the results yet."
    )
    without: list[str] = Field(description="SAEs that have no analysis, so that nothing is known of their features.")
    left_out: list[str] = Field(description="SAEs beyond the most that one search looks at.")
    number: int | None = Field(description="The query as the number of a feature, if it is one.")
    numbered: list[Hit] = Field(description="Features of that number.")
    basis: list[Basis] = Field(description="On what the figures rest, for each SAE that was searched.")
    encoder: Encoder = Field(default_factory=Encoder)
    asked: Asked | None = Field(default=None, description="By meaning: what the encoder is at, or why it failed.")


_Finder = Callable[[Analysed, str, int], tuple[int, list[Hit]]]


def search(explorer: Explorer, query: str, *, sae: str = "", limit: int = 8, wait: float = 1.0) -> Found:
    """Search one SAE or all, in the newest analysis of each.

    Args:
        explorer: the server's.
        query: a token, words of a label, a piece of text, or a number.
        sae: id; all when empty.
        limit: most results of a kind for each SAE.
        wait: seconds to wait for an index of examples that is being made.

    Raises:
        NotInLibraryError: no such SAE, or it has no analysis.
    """
    text = query.strip()
    number = int(text) if text.isdecimal() and len(text) < 9 else None
    groups = [
        FoundGroup(name=name, title=title, about=about, total=0, totals={}, hits=[])
        for name, (title, about) in GROUPS.items()
    ]
    found = found_nothing(text, groups)
    found.number = number
    for one in searched(explorer, sae, found):
        if not text:
            continue
        if number is not None and number < one.store.num_features:
            found.numbered.append(hit_of(one, number, "its number", None))
        index = example_index(one.store, wait)
        if index is None:
            found.building.append(one.entry.id)
        finders: list[_Finder] = [_firing, _promoting, _labelled(explorer.books), _holding(index)]
        for group, finder in zip(groups, finders, strict=True):
            total, hits = finder(one, text, limit)
            group.total += total
            group.totals |= {one.entry.id: total} if total else {}
            group.hits += hits
    found.total = sum(group.total for group in groups) + len(found.numbered)
    return found


def found_nothing(query: str, groups: list[FoundGroup], by: Literal["words", "meaning"] = "words") -> Found:
    """What a search begins with."""
    return Found(
        query=query,
        by=by,
        groups=groups,
        total=0,
        searched=[],
        tokens=0,
        features=0,
        building=[],
        without=[],
        left_out=[],
        number=None,
        numbered=[],
        basis=[],
    )


def searched(explorer: Explorer, sae: str, found: Found) -> list[Analysed]:
    """The analyses to search, and what they are written into ``found``.

    Args:
        explorer: the server's.
        sae: id; all when empty, the newest first.
        found: is told what is searched, what has no analysis and what is left out.

    Raises:
        NotInLibraryError: no such SAE, or it has no analysis.
    """
    opened: list[Analysed] = [explorer.analysed(sae)] if sae else []
    for entry in () if sae else explorer.entries():
        if entry.problem or not explorer.analyses(entry):
            found.without.append(entry.id)
        elif len(opened) == MOST_SAES:
            found.left_out.append(entry.id)
        else:
            opened.append(explorer.analysed(entry.id))
    for one in opened:
        found.searched.append(one.entry.id)
        found.basis.append(Basis.of(one))
        found.tokens += int(one.store.manifest["rows"])
        found.features += one.store.num_features
    return opened


def hit_of(one: Analysed, feature: int, why: str, value: float | None, example: FoundExample | None = None) -> Hit:
    """A feature that was found. ``value`` is what hits are sorted by."""
    about = feature_names(one.store, [feature])[0]
    return Hit(sae=one.entry.id, analysis=one.analysis.name, about=about, why=why, value=value, example=example)


def _firing(one: Analysed, text: str, limit: int) -> tuple[int, list[Hit]]:
    def match(row: dict[str, Any]) -> float:
        of_token, of_feature = row["share_of_token"], row["share_of_feature"]
        return float(2 * of_token * of_feature / ((of_token + of_feature) or 1.0))

    rows = _by_token(one.store, one.store.queries.firing_on, text, match)
    hits = []
    for row in rows[:limit]:
        why = f"fires on {row['share_of_token']:.0%} of {visible(row['token_text'])}, which is {row['share_of_feature']:.0%} of its firings"
        hits.append(hit_of(one, row["feature"], why, match(row)))
    return len(rows), hits


def _promoting(one: Analysed, text: str, limit: int) -> tuple[int, list[Hit]]:
    if "promoted" not in one.store.tables.names:  # analysed without a language model
        return 0, []
    rows = _by_token(one.store, one.store.queries.promoting, text, lambda row: float(row["logit"]))
    hits = [
        hit_of(one, row["feature"], f"promotes {visible(row['token_text'])}, logit {row['logit']:+.2f}", row["logit"])
        for row in rows[:limit]
    ]
    return len(rows), hits


def _by_token(
    store: FeatureStore, ask: Callable[..., Rows], text: str, value: Callable[[dict[str, Any]], float]
) -> list[dict[str, Any]]:
    """Rows of a token in any case, with and without a leading space: each feature once, by its best one, the largest value first."""
    tokens: list[int] = []
    for spelling in dict.fromkeys((text, text.lower(), text.capitalize(), text.upper())):
        with suppress(InputError):  # no token of this vocabulary
            tokens += store.queries.tokens_of(spelling)
    rows = [row for token in dict.fromkeys(tokens) for row in ask(token, limit=None)]
    best: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (-value(row), row["feature"])):
        best.setdefault(row["feature"], row)
    return list(best.values())


def _labelled(books: Books) -> _Finder:
    """Labels that people and models gave, the best first, then those of the rules."""

    def find(one: Analysed, text: str, limit: int) -> tuple[int, list[Hit]]:
        book = books.reading()
        said: dict[int, str] = {}
        for held in book.search(one.weights, text) if book is not None and one.weights else []:
            if held.label.feature < one.store.num_features:
                said.setdefault(held.label.feature, f"called “{held.label.text}” by {held.label.author.name}")
        rows = [row for row in one.store.queries.search_labels(text, limit=None) if row["feature"] not in said]
        hits = [hit_of(one, feature, why, None) for feature, why in list(said.items())[:limit]]
        hits += [hit_of(one, row["feature"], _where(row, text), row["f1"]) for row in rows[: limit - len(hits)]]
        return len(said) + len(rows), hits

    return find


def _where(row: dict[str, Any], text: str) -> str:
    """Where in what the rules say of a feature the words stand."""
    words = text.lower().split()
    places = {
        "label": row["label"],
        "output label": row["output_label"],
        "top token": row["top_token_text"],
        "token of highest lift": row["top_lift_text"],
        "top promoted token": row["top_promoted_text"],
    }
    where = [name for name, value in places.items() if value and any(word in value.lower() for word in words)]
    return f"in its {' and '.join(where)}"


def _holding(index: ExampleIndex | None) -> _Finder:
    def find(one: Analysed, text: str, limit: int) -> tuple[int, list[Hit]]:
        if index is None:
            return 0, []
        firing_N = np.asarray(index.share_N) > 0
        rows = np.flatnonzero(index.holding(text) & np.asarray(index.first_N) & firing_N)
        if not len(rows):
            return 0, []
        features = one.store.num_features
        is_top = np.asarray(index.kind_N) == EXAMPLE_KINDS.index("top")
        tops_F = np.bincount(index.feature_N[is_top], minlength=features)
        holding_F = np.bincount(index.feature_N[rows[is_top[rows]]], minlength=features)
        best_F = np.zeros(features, np.float32)
        np.maximum.at(best_F, index.feature_N[rows], index.share_N[rows])
        found = np.unique(index.feature_N[rows])
        order = found[np.lexsort((found, -best_F[found], -holding_F[found]))]
        hits = []
        for feature in order[:limit].tolist():
            own = rows[index.feature_N[rows] == feature]
            row = int(own[np.argmax(index.share_N[own])])
            count = int(holding_F[feature])
            why = f"in {count} of its {tops_F[feature]} strongest examples" if count else "in a weaker example"
            hits.append(hit_of(one, feature, why, float(count), _example(one, index, row)))
        return len(found), hits

    return find


def _example(one: Analysed, index: ExampleIndex, row: int) -> FoundExample:
    feature = int(index.feature_N[row])
    wanted = (int(index.group_N[row]), int(index.rank_N[row]))
    examples = one.store.examples(feature, EXAMPLE_KINDS[index.kind_N[row]])
    example = next(each for each in examples if (each.group, each.rank) == wanted)
    return shown_example(one.entry.id, one.analysis.name, example, feature_names(one.store, [feature])[0])
