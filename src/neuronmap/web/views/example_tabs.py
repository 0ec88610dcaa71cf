"""The tabs of a feature's examples: strongest, parts of the distribution, bins, at random, hard negatives."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from neuronmap.web.views.activations import bin_range
from neuronmap.web.views.examples_of import Around, Kind, ShownExample, shown

if TYPE_CHECKING:
    from neuronmap.features.storage.store import Example, FeatureRecord

__all__ = ["BinLink", "ExampleGroup", "ExampleTab", "ExampleTabs", "example_tabs"]

_FEW = {"top": 12, "quantile": 3, "bin": 24, "random": 10, "hard": 10}
"""Examples shown of each group before all are asked for."""
_HEADS: dict[Kind, tuple[str, str]] = {
    "top": ("Top", "The strongest firings, one of each context; firings after the same tokens count once."),
    "quantile": (
        "Quantiles",
        "Drawn from groups of equally many firings, the strongest group first: what a typical firing looks like, which the top "
        "examples do not show.",
    ),
    "bin": ("Bins", "All stored examples whose activation is in one bar of the histogram."),
    "random": ("Random", "Places drawn from the whole text where the feature is silent in the whole window."),
    "hard": ("Hard negatives", "One of the feature's own top tokens, and yet it does not fire."),
}


class ExampleTab(BaseModel):
    """One tab."""

    kind: Kind
    head: str
    count: int = Field(description="Stored examples; of bins, how many are not empty.")


class ExampleGroup(BaseModel):
    """Examples that belong together."""

    head: str = Field(description="Empty where there is only one group.")
    examples: list[ShownExample]
    left_out: int = Field(description="Stored examples that are not shown.")


class BinLink(BaseModel):
    """A bin of the histogram that is not empty."""

    bin: int
    low: float
    high: float
    firings: int
    examples: int = Field(description="Stored examples in it.")


class ExampleTabs(BaseModel):
    """The tab that is open."""

    tab: Kind
    about: str
    around: Around
    tabs: list[ExampleTab]
    groups: list[ExampleGroup]
    bins: list[BinLink] = Field(description="Of the tab of bins.")
    bin: int | None = Field(description="The bin that is shown.")
    nearest: int | None = Field(description="The nearest bin with stored examples, where that one has none.")
    left_out: int
    stored: tuple[int, int] = Field(description="Tokens before and after each peak whose activations are stored.")


def example_tabs(record: FeatureRecord, tab: Kind, around: Around, number: int | None, everything: bool) -> ExampleTabs:
    """The open tab of a feature.

    Args:
        record: the feature.
        tab: which tab.
        around: how much text.
        number: the bin, for the tab of bins; the fullest with examples when left out.
        everything: show all stored examples, not the first few of each group.
    """
    found = record.store.examples(record.feature)
    bins = _bins(record, found)
    chosen = number
    held = [one for one in bins if one.examples]
    if tab == "bin" and chosen is None:
        chosen = max(held, key=lambda one: one.firings).bin if held else None
    groups = [
        _group(head, examples, around, None if everything else _FEW[tab])
        for head, examples in _grouped(record, tab, chosen, found)
    ]
    counts = {kind: sum(1 for example in found if example.kind == kind) for kind in _HEADS}
    counts["bin"] = len(bins)
    return ExampleTabs(
        tab=tab,
        about=_HEADS[tab][1],
        around=around,
        tabs=[ExampleTab(kind=kind, head=head, count=counts[kind]) for kind, (head, _) in _HEADS.items()],
        groups=groups,
        bins=bins if tab == "bin" else [],
        bin=chosen if tab == "bin" else None,
        nearest=_nearest(held, chosen) if tab == "bin" else None,
        left_out=sum(group.left_out for group in groups),
        stored=(record.store.config.before, record.store.config.after),
    )


def _nearest(held: list[BinLink], chosen: int | None) -> int | None:
    bins = [one.bin for one in held]
    if chosen is None or chosen in bins or not bins:
        return None
    return min(bins, key=lambda one: abs(one - chosen))


def _grouped(
    record: FeatureRecord, tab: Kind, number: int | None, found: list[Example]
) -> list[tuple[str, list[Example]]]:
    """(head, examples) of the open tab."""
    if tab == "bin":
        if number is None:
            return []
        low, high = bin_range(record, number)
        inside = {
            (one.sequence, one.position): one for one in found if one.activation > 0 and _bin_of(record, one) == number
        }
        examples = sorted(inside.values(), key=lambda one: -one.activation)
        return [(f"Activation {low:.3g} to {high:.3g}", examples)] if examples else []
    mine = [one for one in found if one.kind == tab]
    if tab != "quantile":
        return [("", mine)] if mine else []
    mine.sort(key=lambda one: (-one.group, one.rank))
    last = record.store.config.quantiles
    groups = []
    for group, members in groupby(mine, key=lambda one: one.group):
        end = ", the strongest" if group == last - 1 else ", the weakest" if group == 0 else ""
        groups.append((f"Part {group + 1} of {last}{end}", list(members)))
    return groups


def _group(head: str, examples: list[Example], around: Around, most: int | None) -> ExampleGroup:
    kept = examples[:most]
    return ExampleGroup(head=head, examples=[shown(one, around) for one in kept], left_out=len(examples) - len(kept))


def _bin_of(record: FeatureRecord, example: Example) -> int:
    edges: Any = record.store.edges
    return int(min(max(edges.searchsorted(example.activation, side="right") - 1, 0), len(edges) - 2))


def _bins(record: FeatureRecord, found: list[Example]) -> list[BinLink]:
    held: dict[int, set[tuple[int, int]]] = {}
    for example in found:
        if example.activation > 0:
            held.setdefault(_bin_of(record, example), set()).add((example.sequence, example.position))
    filled = [(at, count) for at, count in enumerate(record.details["histogram"] or []) if count]
    return [
        BinLink(bin=at, low=low, high=high, firings=count, examples=len(held.get(at, ())))
        for (at, count), (low, high) in zip(filled, (bin_range(record, at) for at, _ in filled), strict=True)
    ]
