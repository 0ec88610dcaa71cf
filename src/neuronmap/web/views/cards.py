"""Features as cards: what one must see to know whether to look closer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from neuronmap.web.explorer import Analysed
from neuronmap.web.views.activations import Histogram, histogram
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.examples_of import ShownExample, shown_examples
from neuronmap.web.views.feature_table import Paging, TableForm, find, paging, table_form
from neuronmap.web.views.table_query import TableQuery
from neuronmap.web.views.token_lists import ShownToken, often_first, shown_tokens

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore

__all__ = ["Card", "CardsPage", "cards_page"]

CARDS_OF_A_PAGE, MOST_CARDS = 12, 48
_SNIPPETS = 3


class Card(BaseModel):
    """One feature, in short."""

    feature: int
    label: str
    status: str
    firing_class: str
    density: float
    max: float | None
    f1: float | None
    rule: str
    histogram: Histogram | None = Field(description="Of its firings; null if it never fired.")
    tokens: list[ShownToken] = Field(description="Tokens it fires on, by z.")
    promoted: list[ShownToken] = Field(description="Tokens it promotes, by direct logit.")
    suppressed: list[ShownToken]
    snippets: list[ShownExample] = Field(description="Its strongest examples, short.")


class CardsPage(BaseModel):
    """Some cards, and what comes after them."""

    basis: Basis
    form: TableForm
    paging: Paging
    cards: list[Card]
    more: str = Field(description="Address of the next cards alone; empty if there are none.")
    table: str = Field(description="The same features as a table.")


def cards_page(analysed: Analysed, query: TableQuery) -> CardsPage:
    """The cards of a page.

    Raises:
        InputError: an unknown column to sort by.
    """
    sae, store = analysed.entry.id, analysed.store
    conditions, faults = query.conditions(store)
    limit = min(query.limit or CARDS_OF_A_PAGE, MOST_CARDS)
    found = find(store, query, limit, None if faults else conditions)
    where = paging(sae, "cards", query, found, store.num_features)
    more = query.address(sae, "cards-more", after=found.features[-1]) if where.next else ""
    return CardsPage(
        basis=Basis.of(analysed),
        form=table_form(analysed, "cards", query, faults),
        paging=where,
        cards=[card(store, feature) for feature in found.features],
        more=more,
        table=query.address(sae, "features"),
    )


def card(store: FeatureStore, feature: int) -> Card:
    """The card of one feature."""
    record = store.feature(feature)
    row, hint, details = record.row, record.hint or {}, record.details
    return Card(
        feature=feature,
        label=record.label,
        status=row["status"],
        firing_class=str(hint.get("class") or ""),
        density=row["density"],
        max=row["max"],
        f1=hint.get("f1"),
        rule=str(hint.get("rule") or ""),
        histogram=histogram(record),
        tokens=shown_tokens(store, often_first(details["tokens"]), "count", 6),
        promoted=shown_tokens(store, details["promoted"], "value", 6),
        suppressed=shown_tokens(store, details["suppressed"], "value", 6),
        snippets=shown_examples(store, feature, "top", "snippet", _SNIPPETS),
    )
