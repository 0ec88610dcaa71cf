"""Features as cards: what one must see to know whether to look closer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from pydantic import BaseModel, Field, PrivateAttr, computed_field

from neuronmap.web.opened import OpenAnalysis
from neuronmap.web.rendering import environment
from neuronmap.web.views.activations import Histogram, histogram
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.examples_of import ShownExample, shown_examples
from neuronmap.web.views.feature_table import Paging, TableForm, find, paging, table_form
from neuronmap.web.views.table_query import TableQuery
from neuronmap.web.views.token_lists import ShownToken, often_first, shown_tokens

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore, GivenLabel

__all__ = ["Card", "CardsPage", "cards_page"]

CARDS_OF_A_PAGE, MOST_CARDS = 12, 48
_SNIPPETS = 3


class Card(BaseModel):
    """One feature, in short."""

    feature: int
    label: str
    label_by: str = Field(default="", description="Who gave the label; empty for the rules.")
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

    _analysed: OpenAnalysis = PrivateAttr()
    _given: Mapping[int, Any] = PrivateAttr(default_factory=dict)

    basis: Basis
    form: TableForm
    paging: Paging
    features: list[int]
    more: str = Field(description="Address of the next cards alone; empty if there are none.")
    table: str = Field(description="The same features as a table.")

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def cards(self) -> list[Card]:
        """One card a feature; a page asks for :meth:`html` instead."""
        return [card(self._analysed.store, feature, self._given.get(feature)) for feature in self.features]

    def html(self, feature: int, url: Callable[[str], str]) -> Markup:
        """The card of a feature as part of a page; worked out once, since an analysis does not change.

        Args:
            feature: its number.
            url: adds the base path to an address.
        """
        address = url(self._analysed.home.path("feature", feature, analysis=self.form.values["analysis"]))
        given = self._given.get(feature)

        def made() -> Markup:
            shown = card(self._analysed.store, feature, given)
            return Markup(environment().get_template("_card.html").render(card=shown, address=address))

        return self._analysed.fragments.get(("card", address, given), made)


def cards_page(analysed: OpenAnalysis, query: TableQuery) -> CardsPage:
    """The cards of a page.

    Raises:
        InputError: an unknown column to sort by.
    """
    home, store = analysed.home, analysed.store
    conditions, faults = query.conditions(store)
    limit = min(query.limit or CARDS_OF_A_PAGE, MOST_CARDS)
    found = find(analysed, query, limit, None if faults else conditions)
    where = paging(home, "cards", query, found, store.num_features)
    more = query.address(home, "cards-more", after=found.features[-1]) if where.next else ""
    page = CardsPage(
        basis=Basis.of(analysed),
        form=table_form(analysed, "cards", query, faults),
        paging=where,
        features=found.features,
        more=more,
        table=query.address(home, "features"),
    )
    page._analysed, page._given = analysed, store.given(found.features)
    return page


def card(store: FeatureStore, feature: int, given: GivenLabel | None = None) -> Card:
    """The card of one feature.

    Args:
        store: the analysis.
        feature: its number.
        given: the label that somebody gave it, if anybody has.
    """
    record = store.feature(feature)
    row, hint, details = record.row, record.hint or {}, record.details
    return Card(
        feature=feature,
        label=given.text if given is not None else record.label,
        label_by=given.author if given is not None else "",
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
