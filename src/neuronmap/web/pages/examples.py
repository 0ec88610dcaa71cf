"""Examples of all features, chosen by text, token, class, label and strength."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.web.explorer import Explorer
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.basis import Basis
from neuronmap.web.views.browser import ExampleFilter, ExamplePage, Kind, Order, example_page

__all__ = ["router"]

router = PageRouter()


class ExamplesPage(BaseModel):
    """Examples that meet the conditions."""

    wanted: ExampleFilter
    sae: str
    found: ExamplePage
    fault: str = Field(description="Why the conditions cannot be used; empty if they can.")
    hint: str
    saes: list[str] = Field(description="SAEs that have an analysis.")
    classes: list[str] = Field(description="Firing classes that there are.")
    basis: list[Basis] = Field(description="On what the examples shown rest.")


@router.page("/examples", "examples.html", nav="examples")
def examples(
    explorer: ExplorerOf,
    text: Annotated[
        str,
        Query(
            max_length=200, description="Text that stands in the example; case and kind of white space do not count."
        ),
    ] = "",
    token: Annotated[
        str, Query(max_length=100, description="Token at the peak, with or without a leading space.")
    ] = "",
    firing_class: Annotated[str, Query(alias="class", max_length=60, description="Firing class of the feature.")] = "",
    label: Annotated[str, Query(max_length=200, description="Text in the feature's label.")] = "",
    low: Annotated[
        float, Query(ge=0, le=1, allow_inf_nan=False, description="Least activation, over the feature's largest.")
    ] = 0.0,
    high: Annotated[
        float, Query(ge=0, le=1, allow_inf_nan=False, description="Largest activation, over the feature's largest.")
    ] = 1.0,
    kind: Annotated[Kind, Query(description="Kind of example; all when left out, the same firing once.")] = "",
    sort: Annotated[Order, Query(description="share: strongest first; feature: by number.")] = "share",
    sae: Annotated[str, Query(max_length=600, description="Of this SAE only.")] = "",
    after: Annotated[str, Query(max_length=800, description="Cursor: `next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ExamplesPage:
    """Examples across features and SAEs."""
    wanted = ExampleFilter(
        text=text,
        token=token.strip("\n"),
        firing_class=firing_class,
        label=label,
        low=low,
        high=high,
        kind=kind,
        sort=sort,
    )
    fault = hint = ""
    found = ExamplePage(examples=[], next=None, totals={}, building=[], without=[])
    if low > high:
        fault = f"The least share, {low:g}, is above the largest, {high:g}."
    else:
        try:
            found = example_page(explorer, wanted, sae=sae, after=after, limit=limit)
        except InputError as error:
            fault, hint = error.message, error.hint
    saes = [entry.id for entry in explorer.entries() if not entry.problem and explorer.analyses(entry)]
    shown = dict.fromkeys((one.sae, one.analysis) for one in found.examples)
    return ExamplesPage(
        wanted=wanted,
        sae=sae,
        found=found,
        fault=fault,
        hint=hint,
        saes=saes,
        classes=_classes(explorer, [sae] if sae in saes else saes[:4]),
        basis=[Basis.of(explorer.analysed(*pair)) for pair in shown],
    )


def _classes(explorer: Explorer, saes: list[str]) -> list[str]:
    """Firing classes of some SAEs' features."""
    found = {name for sae in saes for name in explorer.analysed(sae).store.queries.values_of("class") if name}
    return sorted(found)
