"""Labels of an SAE in a table, the features that somebody disagrees about, people's lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from neuronmap.web.views.labels.panel import ShownLabel, shown_label
from neuronmap.web.views.labels.who import Who

if TYPE_CHECKING:
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.interpretation.labels.held import HeldLabel

__all__ = [
    "EXPORTED",
    "AuthorCount",
    "LabelQuery",
    "LabelTable",
    "ListedFeature",
    "ListsPage",
    "exported_rows",
    "label_table",
    "lists_page",
]

ROWS = 50
EXPORTED = (
    "feature", "side", "label", "explanation", "author", "author_kind", "method", "at", "protocol", "score", "low", "high",
    "up", "down", "flags", "comments", "disputed", "id",
)  # fmt: skip
"""Columns of an export."""


class LabelQuery(BaseModel):
    """Which labels, in which order, as it stands in the address."""

    text: str = Field(default="", max_length=200, description="Words that all stand in the label or its explanation.")
    author: str = Field(default="", max_length=200, description="Name of the author.")
    author_kind: Literal["", "person", "model", "rule"] = Field(default="", description="Who it is by.")
    method: str = Field(default="", max_length=120, description="How it came about.")
    side: Literal["", "input", "output"] = Field(
        default="", description="What it fires on, or what it makes the model say."
    )
    conflict: Literal["", "1", "0"] = Field(
        default="", description="1: only those that somebody disagrees with; 0: the others."
    )
    min_low: float | None = Field(
        default=None, ge=-1, le=1, allow_inf_nan=False, description="Least low end of the score's 95 % interval."
    )
    sort: Literal[
        "feature", "-feature", "text", "-text", "author", "-author", "method", "-method", "score", "-score", "votes",
        "-votes", "at", "-at",
    ] = Field(default="feature", description="In which order; with - in front from the largest down.")  # fmt: skip
    after: str = Field(default="", max_length=32, description="Id of the last label of the page before.")
    limit: int = Field(default=ROWS, ge=1, le=500, description="Labels of a page.")

    def conditions(self) -> dict[str, Any]:
        """As the book takes them."""
        return {
            "text": self.text,
            "author": self.author or None,
            "author_kind": self.author_kind or None,
            "method": self.method or None,
            "side": self.side or None,
            "conflict": None if self.conflict == "" else self.conflict == "1",
            "min_low": self.min_low,
        }


class AuthorCount(BaseModel):
    """An author, and how many of their labels hold."""

    name: str
    kind: str
    labels: int


class LabelTable(BaseModel):
    """One page of the labels of an SAE."""

    sae: str = Field(description="Id of the SAE.")
    weights: str = Field(description="Digest of its weights, by which labels know it.")
    labels: list[ShownLabel]
    total: int = Field(description="Labels that meet the conditions, on all pages.")
    next: str = Field(description="What `after` takes for the next page; empty on the last.")
    all_labels: int = Field(description="Labels of the SAE that hold.")
    features: int = Field(description="Features that have one.")
    conflicts: int = Field(description="Labels that somebody disagrees with.")
    acts: int = Field(description="All that was ever said of its features.")
    authors: list[AuthorCount]
    query: LabelQuery


def label_table(book: LabelBook | None, sae: str, weights: str, query: LabelQuery) -> LabelTable:
    """A page of labels.

    Args:
        book: None where nobody has said anything yet.
        sae: id of the SAE.
        weights: digest of its weights.
        query: which.

    Raises:
        InputError: the label to go on from is gone.
    """
    found: list[HeldLabel] = []
    more, total, summary = False, 0, None
    if book is not None and weights:
        asked = query.conditions()
        found = book.labels(weights, **asked, sort=query.sort, limit=query.limit + 1, after=query.after or None)
        more, found = len(found) > query.limit, found[: query.limit]
        total, summary = book.count(weights, **asked), book.summary(weights)
    return LabelTable(
        sae=sae,
        weights=weights,
        labels=[shown_label(one) for one in found],
        total=total,
        next=found[-1].id if more else "",
        all_labels=summary.labels if summary else 0,
        features=summary.features if summary else 0,
        conflicts=summary.conflicts if summary else 0,
        acts=summary.acts if summary else 0,
        authors=[
            AuthorCount(name=name, kind=kind, labels=count)
            for kind, name, count in (summary.authors if summary else ())
        ],
        query=query,
    )


def exported_rows(book: LabelBook | None, weights: str, query: LabelQuery) -> Iterator[dict[str, Any]]:
    """All labels that meet the conditions, as rows of :data:`EXPORTED`."""
    after: str | None = None
    while book is not None and weights:
        page = book.labels(weights, **query.conditions(), sort=query.sort, limit=1000, after=after)
        for held in page:
            label, score = held.label, held.score
            yield {
                "feature": label.feature,
                "side": label.side,
                "label": label.text,
                "explanation": label.explanation,
                "author": label.author.name,
                "author_kind": label.author.kind,
                "method": label.method,
                "at": label.at,
                "protocol": score.protocol if score else None,
                "score": score.value if score else None,
                "low": score.low if score else None,
                "high": score.high if score else None,
                "up": held.up,
                "down": held.down,
                "flags": len(held.flags),
                "comments": held.comments,
                "disputed": held.conflict,
                "id": held.id,
            }
        if len(page) < 1000:
            return
        after = page[-1].id


class ListedFeature(BaseModel):
    """A feature on a list."""

    list: str
    by: str
    sae: str = Field(description="Id of the SAE in the library; empty where it has none with these weights.")
    weights: str
    feature: int
    label: str = Field(description="The best label that people and models gave it; empty if nobody did.")
    note: str
    at: str


class ListsPage(BaseModel):
    """What is on people's lists."""

    who: str
    lists: dict[str, list[ListedFeature]] = Field(description="The asker's, by name.")
    others: list[ListedFeature] = Field(description="Everybody else's, the newest first.")


def lists_page(book: LabelBook | None, who: Who, saes: dict[str, str]) -> ListsPage:
    """The lists.

    Args:
        book: None where nobody has said anything yet.
        who: who looks.
        saes: id by digest of the weights.
    """
    page = ListsPage(who=who.name, lists={}, others=[])
    if book is None:
        return page
    found = book.lists()
    numbers: dict[str, list[int]] = {}
    for one in found:
        numbers.setdefault(one.sae, []).append(one.feature)
    labels = {sae: book.best(sae, features) for sae, features in numbers.items()}
    for one in found:
        best = labels[one.sae].get(one.feature)
        shown = ListedFeature(
            list=one.name,
            by=one.author.name,
            sae=saes.get(one.sae, ""),
            weights=one.sae,
            feature=one.feature,
            label=best.label.text if best is not None else "",
            note=one.note,
            at=one.at,
        )
        if one.author.name == who.name:
            page.lists.setdefault(one.name, []).append(shown)
        else:
            page.others.append(shown)
    return page
