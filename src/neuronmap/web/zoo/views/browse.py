"""Browsing the zoo, and asking which SAEs fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.zoo.views import SearchHit

if TYPE_CHECKING:
    from neuronmap.zoo.people.principal import Principal
    from neuronmap.zoo.registry.registry import Registry

__all__ = ["BrowsePage", "CompatiblePage", "browse_page", "compatible_page"]

_SORTS = {
    "relevance": "best first",
    "newest": "newest first",
    "stars": "most stars",
    "downloads": "most pulled",
    "metric:explained_variance": "explained variance",
    "l0": "smallest L0",
    "width": "fewest features",
    "-width": "most features",
    "name": "by name",
}
_PAGE = 24
_FACETS = 8


class Asked(BaseModel):
    """The form as it was filled in."""

    q: str = ""
    kind: str = ""
    model: str = ""
    layer: int | None = None
    architecture: str = ""
    tag: str = ""
    component: str = ""
    width_min: int | None = None
    width_max: int | None = None
    l0_min: float | None = None
    l0_max: float | None = None
    metric: str = ""
    licence: str = ""
    author: str = ""
    all_versions: bool = False
    sort: str = "relevance"

    @property
    def more(self) -> bool:
        """Whether one of the conditions that are folded away is set."""
        folded = (self.component, self.metric, self.licence, self.author, self.all_versions)
        ranges = (self.width_min, self.width_max, self.l0_min, self.l0_max)
        return any(folded) or any(value is not None for value in ranges)

    @property
    def any(self) -> bool:
        """Whether there is any condition."""
        return self != Asked(sort=self.sort)


class Choice(BaseModel):
    """A value that the search can be narrowed to."""

    value: str
    count: int = Field(description="Hits with it.")


class BrowsePage(BaseModel):
    """What is published here."""

    title: str
    about: str = Field(description="Which zoo this is.")
    namespace: str = Field(description="The only namespace that is looked at; empty for all.")
    action: str = Field(description="Address of the search.")
    asked: Asked = Field(description="The conditions.")
    kinds: list[str] = Field(description="Kinds of artefacts.")
    sorts: dict[str, str] = Field(description="Orders, and what they are called.")
    facets: list[tuple[str, str, list[Choice]]] = Field(description="(title, parameter, values) to narrow down by.")
    hits: list[SearchHit] = Field(description="This page of what was found.")
    next: str | None = Field(description="Cursor of the next page.")
    total: int | None = Field(description="How many there are; on the first page only.")
    filtered: bool = Field(description="Whether there is any condition.")
    problem: str = Field(default="", description="Why the search cannot be understood.")
    server: str = Field(
        default="", description="Address of this zoo for others to type; empty for the one of this machine."
    )


def browse_page(
    registry: Registry,
    principal: Principal,
    given: Mapping[str, str],
    *,
    about: str,
    namespace: str = "",
    server: str = "",
) -> BrowsePage:
    """What a search finds.

    Args:
        registry: the zoo.
        principal: who asks.
        given: the form's values; empty ones do not count.
        about: which zoo this is.
        namespace: look only there.
        server: address of this zoo for others to type; empty for the one of this machine.
    """
    from neuronmap.zoo.records import list_kinds
    from neuronmap.zoo.search.query import Query

    values: dict[str, Any] = {name: value for name, value in given.items() if value.strip()}
    query, asked, problem = Query(limit=_PAGE), Asked(), ""
    try:
        known = {name: value for name, value in values.items() if name in Asked.model_fields or name == "cursor"}
        many: dict[str, Any] = {name: (known.pop(name),) for name in ("tag", "metric") if name in known}
        query = Query.read({**known, **many, "limit": _PAGE, **({"namespace": namespace} if namespace else {})})
        shown = query.model_dump(exclude={"cursor", "limit", "namespace", "hook", "d_in", "private"}, exclude_none=True)
        asked = Asked(**{**shown, "tag": next(iter(query.tag), ""), "metric": next(iter(query.metric), "")})
        found = registry.search(principal, query)
    except InputError as error:
        found, problem = None, error.message
    facets: list[tuple[str, str, list[Choice]]] = []
    if found is not None and query.cursor is None and found.hits:
        counted = registry.facets(principal, query)
        groups = (
            ("kind", "kind", counted.kinds),
            ("model", "model", counted.models),
            ("architecture", "architecture", counted.architectures),
            ("licence", "licence", counted.licences),
        )
        facets = [
            (title, name, [Choice(value=one.value, count=one.count) for one in group[:_FACETS]])
            for title, name, group in groups
        ]
    return BrowsePage(
        title=f"{namespace} in the zoo" if namespace else "Analysis Zoo",
        about=about,
        namespace=namespace,
        action=f"/zoo/{namespace}" if namespace else "/zoo",
        asked=asked,
        kinds=[kind.name for kind in list_kinds()],
        sorts=_SORTS,
        facets=facets,
        hits=list(found.hits) if found is not None else [],
        next=found.next if found is not None else None,
        total=found.total if found is not None else None,
        filtered=asked.any,
        problem=problem,
        server=server,
    )


class Fitting(BaseModel):
    """One SAE and why it fits."""

    hit: SearchHit
    verdict: str = Field(description="How well it fits, in words.")
    usable: bool = Field(description="Whether it is for this model, not merely of its width.")
    reasons: list[str] = Field(description="What agrees, what differs, what is not known.")


class CompatiblePage(BaseModel):
    """Which SAEs fit a model."""

    model: str
    layer: int | None
    component: str
    d_in: int | None
    models: list[str] = Field(description="Models that SAEs here were made for.")
    hits: list[Fitting] = Field(description="The best first.")
    problem: str = Field(default="", description="Why the question cannot be understood.")


_VERDICTS = {
    "exact": "Made for exactly this model",
    "name": "Made for this model",
    "declared": "Said to fit by its authors",
    "revision": "Made for other weights of this model",
    "tokenizer": "Another model with this tokenizer",
    "width": "Another model of this width",
}


def compatible_page(registry: Registry, principal: Principal, given: Mapping[str, str]) -> CompatiblePage:
    """Which SAEs fit a model and a place in it.

    Args:
        registry: the zoo.
        principal: who asks.
        given: model, layer, component, d_in, model_digest, tokenizer_digest; empty ones do not count.
    """
    from neuronmap.zoo.search.query import CompatibilityQuery, Query

    fields = CompatibilityQuery.model_fields
    values = {name: value for name, value in given.items() if value.strip() and name in fields}
    hits: list[Fitting] = []
    problem = ""
    query = None
    if values:
        try:
            query = CompatibilityQuery.read({**values, "limit": 50})
            for one in registry.compatible(principal, query).hits:
                plain = SearchHit(**{name: getattr(one, name) for name in SearchHit.model_fields})
                hits.append(
                    Fitting(hit=plain, verdict=_VERDICTS[one.fit], usable=one.usable, reasons=list(one.reasons))
                )
        except InputError as error:
            problem = error.message
    models = registry.facets(principal, Query(kind="SAE_MODEL")).models
    return CompatiblePage(
        model=(query.model or "") if query is not None else given.get("model", "")[:200],
        layer=query.layer if query is not None else None,
        component=(query.component or "") if query is not None else "",
        d_in=query.d_in if query is not None else None,
        models=[one.value for one in models],
        hits=hits,
        problem=problem,
    )
