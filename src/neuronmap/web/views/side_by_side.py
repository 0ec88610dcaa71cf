"""Two to four features side by side, of one SAE or of several, and how near they are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.features.export.records import finite
from neuronmap.features.storage.text import Vocabulary, visible
from neuronmap.web import charts
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.browser import FoundExample, shown_example
from neuronmap.web.views.names import FeatureName, feature_names
from neuronmap.web.views.neighbours import cosines, decoder_rows, links

__all__ = ["MOST", "FeatureColumn", "FeaturePair", "SideBySide", "side_by_side"]

MOST = 4
_TOKENS, _EXAMPLES = 8, 4


class TokenFigure(BaseModel):
    """A token with a number: share of firings, or direct logit."""

    token: str = Field(description="Whitespace visible.")
    value: float


class FeatureColumn(BaseModel):
    """One feature."""

    sae: str
    key: str = Field(description="What stands for it in the address.")
    about: FeatureName
    figures: dict[str, float | None] = Field(
        description="Density, firings, mean, median, largest, precision and recall of the rule."
    )
    rule: str = Field(description="The rule behind the label; empty if there is none.")
    edges: list[float] = Field(description="Of the histogram, from the first to the last bin that holds a firing.")
    counts: list[int]
    tokens: list[TokenFigure] = Field(description="Tokens it fires on, by z, with their share of its firings.")
    promoted: list[TokenFigure] = Field(description="Tokens with the largest direct logits.")
    suppressed: list[TokenFigure]
    examples: list[FoundExample]
    basis: Basis

    @property
    def histogram(self) -> Markup:
        """Firings by activation."""
        ends = [
            f"{self.edges[at]:.3g} to {self.edges[at + 1]:.3g}: {count:,} firings"
            for at, count in enumerate(self.counts)
        ]
        low, high = (f"{self.edges[0]:.3g}", f"{self.edges[-1]:.3g}") if self.counts else ("", "")
        return charts.bars(
            self.counts, ends, f"Firings of feature {self.about.feature} by activation", low=low, high=high
        )


class FeaturePair(BaseModel):
    """How near two of them are."""

    a: str
    b: str
    cosine: float | None = Field(description="Of the decoder rows, from the weights; null where the widths differ.")
    jaccard: float | None = Field(
        description="Of their firing; null where no list of the analysis has the pair, or they are of different SAEs."
    )
    together: int | None = Field(description="Sampled tokens on which both fire; null likewise.")
    note: str


class SideBySide(BaseModel):
    """Features beside each other."""

    sae: str = Field(description="The SAE that plain numbers belong to.")
    columns: list[FeatureColumn]
    pairs: list[FeaturePair]
    room: int = Field(description="How many more may be added.")
    basis: Basis


def side_by_side(explorer: Explorer, sae: str, features: Sequence[str], analysis: str = "") -> SideBySide:
    """Put features beside each other.

    Args:
        explorer: the server's.
        sae: the SAE that plain numbers belong to.
        features: ``12``, or ``other/sae:12``; doubles count once.
        analysis: of that SAE; the newest when empty.

    Raises:
        InputError: more than four, or no such feature.
        NotInLibraryError: no such SAE, or one without an analysis.
    """
    chosen = list(dict.fromkeys(_parsed(sae, one) for one in features if one.strip()))
    if len(chosen) > MOST:
        raise InputError(
            f"{len(chosen)} features were given; at most {MOST} stand side by side.",
            hint="Take some out of the address.",
        )
    home = explorer.analysed(sae, analysis)
    opened = {name: home if name == sae else explorer.analysed(name) for name, _ in chosen}
    columns = [_column(opened[name], number, sae) for name, number in chosen]
    rows = {(name, number): decoder_rows(opened[name].entry, [number]) for name, number in chosen}
    pairs = [_pair(opened, a, b, rows, sae) for a, b in combinations(chosen, 2)]
    return SideBySide(sae=sae, columns=columns, pairs=pairs, room=MOST - len(columns), basis=Basis.of(home))


def _parsed(sae: str, text: str) -> tuple[str, int]:
    name, _, number = text.strip().rpartition(":")
    if not number.isdecimal() or len(number) > 9:
        raise InputError(
            f"{text!r} is not a feature.", hint="Give a number, or the id of an SAE, a colon and a number."
        )
    return name or sae, int(number)


def _key(home: str, sae: str, feature: int) -> str:
    return str(feature) if sae == home else f"{sae}:{feature}"


def _column(analysed: Analysed, feature: int, home: str) -> FeatureColumn:
    store = analysed.store
    found = store.feature(feature)
    record: dict[str, Any] = finite({**found.row, **(found.hint or {})})
    details = found.details
    about = feature_names(store, [feature])[0]
    histogram = details["histogram"] or []
    filled = [at for at, count in enumerate(histogram) if count]
    first, stop = (filled[0], filled[-1] + 1) if filled else (0, 0)
    largest = about.max or 0.0
    names = ("density", "firings", "mean", "q50", "max", "precision", "recall", "f1")
    tops = store.examples(feature, "top")[:_EXAMPLES]
    return FeatureColumn(
        sae=analysed.entry.id,
        key=_key(home, analysed.entry.id, feature),
        about=about,
        figures={name: record.get(name) for name in names},
        rule=str(record.get("rule") or ""),
        edges=[min(float(edge), largest) for edge in store.edges[first : stop + 1]] if filled else [],
        counts=histogram[first:stop],
        tokens=_tokens(store.vocabulary, details["tokens"], "share"),
        promoted=_tokens(store.vocabulary, details["promoted"], "value"),
        suppressed=_tokens(store.vocabulary, details["suppressed"], "value"),
        examples=[shown_example(analysed.entry.id, analysed.analysis.name, one, about) for one in tops],
        basis=Basis.of(analysed),
    )


def _tokens(vocabulary: Vocabulary, entries: list[dict[str, Any]] | None, value: str) -> list[TokenFigure]:
    first = (entries or [])[:_TOKENS]
    return [TokenFigure(token=visible(vocabulary.text_of(one["token"])), value=one[value] or 0.0) for one in first]


def _pair(
    opened: dict[str, Analysed], a: tuple[str, int], b: tuple[str, int], rows: dict[tuple[str, int], Any], home: str
) -> FeaturePair:
    one, other = opened[a[0]], opened[b[0]]
    same_width = rows[a].shape == rows[b].shape
    found = FeaturePair(
        a=_key(home, *a),
        b=_key(home, *b),
        cosine=float(cosines(rows[a], rows[b])[0, 0]) if same_width else None,
        jaccard=None,
        together=None,
        note="",
    )
    if a[0] == b[0]:
        known = links(one.store, [a[1], b[1]])
        pair = known[a[1]].firing.get(b[1]) or known[b[1]].firing.get(a[1])
        if pair is None:
            found.note = f"Neither is among the {one.store.config.neighbours} that the analysis lists for the other."
        else:
            found.jaccard, found.together = pair.jaccard, pair.together
    elif not same_width:
        found.note = "Their decoders have different widths: there is no cosine."
    elif (one.entry.model, one.entry.hook) != (other.entry.model, other.entry.hook):
        found.note = "They read different places: directions there need not mean the same."
    else:
        found.note = "Co-firing across SAEs is counted when the SAEs are compared."
    return found
