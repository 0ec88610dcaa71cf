"""Everything of one feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from neuronmap.features.export.records import finite
from neuronmap.web.errors import WebError
from neuronmap.web.opened import OpenAnalysis
from neuronmap.web.own_text import MOST_FOLLOWING, Kept, OwnText, own_text
from neuronmap.web.views.activations import Histogram, histogram
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.example_tabs import ExampleTabs, example_tabs
from neuronmap.web.views.examples_of import Around, Kind
from neuronmap.web.views.label import LabelEvidence, label_evidence
from neuronmap.web.views.labels.panel import LabelPanel
from neuronmap.web.views.relations import Relations, relations
from neuronmap.web.views.token_lists import ShownToken, TokenStatistic, shown_tokens, token_statistics

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureRecord

__all__ = ["PARTS", "Addresses", "FeaturePage", "FeatureQuery", "feature_page"]

Part = Literal["histogram", "logits", "tokens", "examples", "relations", "positions"]
PARTS: tuple[Part, ...] = ("histogram", "logits", "tokens", "examples", "relations", "positions")
"""Parts of the page that an embedded one may be made of."""
_EMBEDDED = "histogram,logits,examples"


class FeatureQuery(BaseModel):
    """What of a feature is shown, as it stands in the address."""

    analysis: str = Field(default="", max_length=100, description="Name of the analysis; the newest when left out.")
    tab: Kind = Field(default="top", description="Which examples.")
    bin: Annotated[int | None, Field(ge=0, le=63)] = Field(
        default=None, description="Bin of the histogram, for `tab=bin`."
    )
    ctx: Around = Field(default="window", description="How much text is shown around each peak.")
    all: bool = Field(default=False, description="All stored examples of the tab, not the first of each group.")
    text: str = Field(
        default="",
        max_length=MOST_FOLLOWING,
        description="A text of your own that follows from feature to feature.",
    )
    kept: Kept = ""
    embed: Literal["", "0", "1"] = Field(default="", description="1: without head and foot, for an iframe.")
    plots: str = Field(
        default="", max_length=200, description=f"Parts of an embedded page: {', '.join(PARTS)}; with commas between."
    )

    def parts(self) -> list[Part]:
        """Parts that are shown; all of them unless embedded."""
        if self.embed != "1":
            return list(PARTS)
        wanted = (self.plots or _EMBEDDED).split(",")
        return [part for part in PARTS if part in wanted]


class Addresses(BaseModel):
    """Where to go from a feature. Empty: nowhere."""

    page: str = Field(description="This feature, without anything else.")
    permalink: str = Field(description="This page with the analysis named, so that it stays the same.")
    iframe: str = Field(description="The same, to be embedded.")
    previous: str = Field(description="The next lower feature that is alive.")
    next: str = Field(description="The next higher one.")
    random: str = Field(description="One that is drawn anew each time.")
    go: str = Field(description="Takes the number of a feature as `number`.")
    steer: str
    compare: str
    similar: str
    text: str = Field(description="The text page with this feature.")
    effects: str = Field(description="Takes a POST: what happens to the model without this feature.")
    bins: str = Field(description="Examples of a bin of the histogram, whose number is put at the end.")
    strip: str = Field(description="The text shaded by this feature; empty without a text.")


class FeaturePage(BaseModel):
    """One feature."""

    basis: Basis
    feature: int
    status: str = Field(description="never, rare (under 10 firings), alive or dense.")
    firing_class: str = Field(description="Firing class of the hints; empty without hints.")
    label: LabelEvidence
    name: str = Field(
        default="", description="The best label that people or models gave it, else that of its rule; may be empty."
    )
    name_by: str = Field(default="", description="Who gave that label; empty for the rules.")
    labels: LabelPanel | None = Field(
        default=None, description="All that was said of it; null where that is not looked up."
    )
    row: dict[str, Any] = Field(description="Its columns of features.parquet.")
    histogram: Histogram | None
    positions: list[int] = Field(description="Firings in each sixteenth of the context.")
    promoted: list[ShownToken] = Field(description="Tokens with the largest direct logits.")
    suppressed: list[ShownToken] = Field(description="Tokens with the smallest.")
    logit_histogram: list[int] = Field(description="Tokens in 64 bins of (logit - mean) / std, from -8 to 8.")
    tokens: list[TokenStatistic] = Field(description="Tokens it fires on, by z.")
    previous_tokens: list[TokenStatistic]
    next_tokens: list[TokenStatistic]
    input_tokens: list[ShownToken] = Field(description="Tokens whose embedding the encoder scores highest.")
    relations: Relations
    examples: ExampleTabs
    text: str = Field(description="The text that goes along.")
    kept: str = Field(default="", description="Digest by which addresses name it, where it is too long for them.")
    text_gone: str = Field(default="", description="Why the text that the address names is not there.")
    parts: list[Part]
    to: Addresses

    @property
    def all_parts(self) -> tuple[str, ...]:
        """Parts that an embedded page may be made of."""
        return PARTS

    def bin_links(self, url: Callable[[str], str]) -> list[str]:
        """Address of the examples of each bar of the histogram; empty for bars without firings."""
        first, counts = (self.histogram.first, self.histogram.counts) if self.histogram else (0, [])
        return [url(f"{self.to.bins}{first + at}#examples") if count else "" for at, count in enumerate(counts)]

    @property
    def logit_titles(self) -> list[str]:
        """What each bar of the logit histogram says."""
        size = 16 / max(len(self.logit_histogram), 1)
        return [
            f"{-8 + at * size:+.2f} to {-8 + (at + 1) * size:+.2f} standard deviations: {count:,} tokens"
            for at, count in enumerate(self.logit_histogram)
        ]

    @property
    def position_titles(self) -> list[str]:
        """What each bar of the positions says."""
        size = self.basis.context_length / max(len(self.positions), 1)
        return [
            f"positions {round(at * size)} to {round((at + 1) * size) - 1}: {count:,} firings"
            for at, count in enumerate(self.positions)
        ]


def feature_page(analysed: OpenAnalysis, feature: int, query: FeatureQuery, origin: str) -> FeaturePage:
    """The page of a feature.

    Args:
        analysed: the analysis.
        feature: a valid number.
        query: what is shown.
        origin: scheme, host and base path, for links that go elsewhere.
    """
    store = analysed.store
    record = store.feature(feature)
    details = record.details
    own, gone = (OwnText(query.text), "") if analysed.home.alone else _pinned(query)
    given = store.given([feature]).get(feature)
    return FeaturePage(
        basis=Basis.of(analysed),
        feature=feature,
        status=record.row["status"],
        firing_class=str((record.hint or {}).get("class") or ""),
        label=label_evidence(record),
        name=given.text if given is not None else record.label,
        name_by=given.author if given is not None else "",
        row=finite(record.row),
        histogram=histogram(record),
        positions=list(details["positions"] or []),
        promoted=shown_tokens(store, details["promoted"], "value"),
        suppressed=shown_tokens(store, details["suppressed"], "value"),
        logit_histogram=list(details["logit_histogram"] or []),
        tokens=token_statistics(store, details["tokens"]),
        previous_tokens=token_statistics(store, details["previous_tokens"]),
        next_tokens=token_statistics(store, details["next_tokens"]),
        input_tokens=shown_tokens(store, details["input_tokens"], "value"),
        relations=relations(record),
        examples=example_tabs(record, query.tab, query.ctx, query.bin, query.all),
        text=own.text,
        kept=own.kept,
        text_gone=gone,
        parts=query.parts(),
        to=_addresses(analysed, record, query, own, origin),
    )


def _pinned(query: FeatureQuery) -> tuple[OwnText, str]:
    """The text that goes along, and why there is none though the address names one: the page is shown without it."""
    try:
        return own_text(query.text, query.kept), ""
    except WebError as error:
        return OwnText(), f"{error.message} {error.hint}"


def _addresses(
    analysed: OpenAnalysis, record: FeatureRecord, query: FeatureQuery, own: OwnText, origin: str
) -> Addresses:
    home, store, feature = analysed.home, analysed.store, record.feature
    follows = {"analysis": query.analysis, **own.query, "ctx": "" if query.ctx == "window" else query.ctx}
    shown = {
        **follows,
        "analysis": "" if home.alone else home.analysis,
        "tab": "" if query.tab == "top" else query.tab,
        "bin": query.bin,
    }

    def other(number: int | None) -> str:
        return "" if number is None else home.path("feature", number, **follows)

    def beside(address: str) -> str:
        """What needs more than the analysis."""
        return "" if home.alone else address

    plots = query.plots or _EMBEDDED
    return Addresses(
        page=home.path("feature", feature),
        permalink=origin + home.path("feature", feature, **shown, all="1" if query.all else ""),
        iframe=beside(origin + home.path("feature", feature, **shown, embed="1", plots=plots)),
        previous=other(store.nearest_alive(feature, -1)),
        next=other(store.nearest_alive(feature, 1)),
        random=home.path("feature", "random", **follows) if store.alive.any() else "",
        go=home.path("feature"),
        steer=beside(home.path("steer", feature=feature)),
        compare=beside(home.path("compare", f=feature)),
        similar=beside(home.path("similar", feature=feature)),
        text=beside(f"/text?{_encoded(sae=home.sae, feature=feature, **own.query)}"),
        effects=beside(home.path("feature", feature, "effects", analysis=query.analysis)),
        bins=home.path("feature", feature, **follows, tab="bin") + "&bin=",
        strip=beside(home.path("text-strip", feature=feature, **own.query, analysis=query.analysis))
        if own.text
        else "",
    )


def _encoded(**query: Any) -> str:
    from urllib.parse import urlencode

    return urlencode({name: value for name, value in query.items() if value != ""})
