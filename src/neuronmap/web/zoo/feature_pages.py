"""Features of a published analysis, looked at where it lies: the explorer's table, cards and page of a feature, without pulling anything.

Everything in such a store is a stranger's. What cannot be read, or makes no sense, is said with status 409; it never is a fault of the
server. Who may see the version may see its features, and nobody else: that is asked anew with every request.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from jinja2 import UndefinedError

from neuronmap.errors import DamagedError, MismatchError, NeuronMapError, NotInZooError, WebError
from neuronmap.web.addresses import base_path, lead_to
from neuronmap.web.caching import unchanged
from neuronmap.web.downloads import csv_download, csv_response, jsonl_download
from neuronmap.web.errors import responses
from neuronmap.web.logs import logger
from neuronmap.web.opened import OpenAnalysis
from neuronmap.web.rendering import render
from neuronmap.web.routing import PageRouter
from neuronmap.web.views.cards import CardsPage, cards_page
from neuronmap.web.views.feature import FeaturePage, FeatureQuery, feature_page
from neuronmap.web.views.feature_number import missing_feature, number_of
from neuronmap.web.views.feature_table import FeatureTable, feature_table, filtered_rows
from neuronmap.web.views.labels.answering import said_answer, said_fields
from neuronmap.web.views.labels.panel import label_panel
from neuronmap.web.views.labels.saying import act_of, saying_of
from neuronmap.web.views.labels.who import who_asks, who_writes
from neuronmap.web.views.plot_data import PLOTS, plot_rows
from neuronmap.web.views.table_query import TableQuery
from neuronmap.web.views.unreadable import or_faults
from neuronmap.web.zoo.access import ContextOf, context_of
from neuronmap.web.zoo.asked import Name, Reader, Version, reference_of
from neuronmap.web.zoo.looking import PublishedHome

if TYPE_CHECKING:
    from neuronmap.web.books import Books

__all__ = ["router"]

_ERRORS = (401, 403, 404, 409, 422, 429, 503, 507)
_HERE = "/zoo/{namespace}/{name}/{version}"
_NO_SENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, UndefinedError, ValueError)
"""What our own code raises when a number or a text of a store is not what it must be."""


class _StoreRoute(APIRoute):
    """A route that reads a stranger's store: what is wrong with it is an error of the store, named as people know it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            return await _said(request, handler)

        return answered


async def _said(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    import duckdb
    import pyarrow as pa

    try:
        return await handler(request)
    except (DamagedError, MismatchError) as error:
        name, folder = getattr(request.state, "looked_at", ("", ""))
        message = error.message.replace(folder, name) if folder else error.message
        raise type(error)(message, hint="Tell who published it: a new version is needed.") from error
    except (*_NO_SENSE, pa.ArrowException, duckdb.Error) as error:
        if isinstance(error, NeuronMapError):  # some are a ValueError or a KeyError, too
            raise
        name, _ = getattr(request.state, "looked_at", ("", ""))
        if not name:
            raise  # nothing of a store was read as yet
        # not the whole trace: showing what its frames hold would read the store again
        place = traceback.extract_tb(error.__traceback__)[-1]
        fault = {"kind": type(error).__name__, "said": str(error)[:200], "at": f"{place.filename}:{place.lineno}"}
        logger("neuronmap.zoo").warning("store", reference=name, path=request.url.path, **fault)
        raise DamagedError(
            f"The feature store {name} is damaged: what it holds here makes no sense ({type(error).__name__}).",
            hint="Tell who published it: a new version is needed.",
        ) from error


def _looked_at(
    request: Request, context: ContextOf, reader: Reader, namespace: Name, name: Name, version: Version
) -> Iterator[OpenAnalysis]:
    """The analysis of an address, open for as long as the answer takes.

    Raises:
        NotInZooError: no such version, or not for them; or it was deleted.
    """
    found = context.registry.show(reader, reference_of(namespace, name, version))
    if found.state == "deleted":
        context.looking.forget(found.digest)
        raise NotInZooError(f"{found.reference} was deleted: {found.reason}", hint="What is left is its manifest.")
    request.state.looked_at = (found.reference, str(context.looking.reading.folder(found.digest)))
    with context.looking.at(found) as opened:
        yield OpenAnalysis(opened.store, PublishedHome.of(found), opened.worked_out, _books(request))


def _books(request: Request) -> Books:
    """The book of labels: that of the explorer, where the zoo is a part of one."""
    explorer = getattr(request.app.state, "explorer", None)
    found: Books = context_of(request.app).books if explorer is None else explorer.books
    return found


Looked = Annotated[OpenAnalysis, Depends(_looked_at)]
Asked = Annotated[TableQuery, Query()]
Shown = Annotated[FeatureQuery, Query()]
Number = Annotated[str, Path(max_length=40, description="Number of the feature.")]

router = PageRouter(route_class=_StoreRoute)


@router.page(f"{_HERE}/features", "features.html", nav="zoo", errors=_ERRORS)
def published_features(request: Request, looked: Looked, query: Asked) -> FeatureTable:
    """Features of a published analysis in a table: filter, sort, choose columns, page."""
    table: FeatureTable = or_faults(request, "features.html", feature_table(looked, query))
    return table


@router.page(f"{_HERE}/cards", "cards.html", nav="zoo", errors=_ERRORS)
def published_cards(request: Request, looked: Looked, query: Asked) -> CardsPage:
    """The same features as cards: label, histogram, tokens, three snippets."""
    page: CardsPage = or_faults(request, "cards.html", cards_page(looked, query))
    return page


@router.get(f"{_HERE}/cards-more", include_in_schema=False, response_class=HTMLResponse)
def more_published_cards(request: Request, looked: Looked, query: Asked) -> Response:
    """The next cards only, for a page that already shows the first ones."""
    return render(request, "_cards.html", {"page": cards_page(looked, query)})


def _of_type(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {}}, "description": "The table."}, **responses(*_ERRORS)}


@router.get(f"{_HERE}/features.csv", tags=["pages"], response_class=Response, responses=_of_type("text/csv"))
def published_features_csv(request: Request, looked: Looked, query: Asked) -> Response:
    """All features of a published analysis that meet the conditions, as CSV: every column, or those of `columns`."""
    tag = looked.etag_of(request)
    if (same := unchanged(request, tag)) is not None:
        return same
    columns, rows = filtered_rows(looked.store, query)
    return csv_download(f"{looked.home.title}-features.csv", columns, rows, tag)


@router.get(
    f"{_HERE}/features.jsonl", tags=["pages"], response_class=Response, responses=_of_type("application/x-ndjson")
)
def published_features_jsonl(request: Request, looked: Looked, query: Asked) -> Response:
    """The same as JSON lines."""
    tag = looked.etag_of(request)
    if (same := unchanged(request, tag)) is not None:
        return same
    _, rows = filtered_rows(looked.store, query)
    return jsonl_download(f"{looked.home.title}-features.jsonl", rows, tag)


@router.get(f"{_HERE}/features/go", include_in_schema=False)
def go_to_published(
    request: Request, looked: Looked, number: Annotated[str, Query(max_length=40)] = "", ctx: str = ""
) -> Response:
    """From the box for a number to the feature."""
    return lead_to(request, looked.home.path("feature", number.strip().lstrip("#") or "0", ctx=ctx[:20]))


@router.get(f"{_HERE}/features/random", include_in_schema=False)
def random_published(request: Request, looked: Looked, ctx: str = "") -> Response:
    """A feature that is alive, drawn anew each time."""
    answer = lead_to(request, looked.home.path("feature", looked.store.queries.random_alive(), ctx=ctx[:20]))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.page(f"{_HERE}/features/{{number}}", "feature.html", nav="zoo", errors=_ERRORS)
def published_feature(request: Request, looked: Looked, number: Number, query: Shown) -> FeaturePage:
    """One feature of a published analysis: label and evidence, histogram, logits, examples, tokens, relations."""
    found = number_of(looked, number)
    if found is None:
        missing: FeaturePage = missing_feature(request, looked, number)
        return missing
    page = feature_page(looked, found, query, f"{request.url.scheme}://{request.url.netloc}{base_path(request)}")
    page.labels = label_panel(_books(request).reading(), looked.weights, found, who_asks(request), looked.home)
    return page


@router.post(f"{_HERE}/features/{{number}}/said", include_in_schema=False)
def say_of_published(
    request: Request, looked: Looked, number: Number, fields: Annotated[dict[str, str], Depends(said_fields)]
) -> Response:
    """Something is said of a feature, by whoever is signed in; back to its page, or to its panel alone."""
    found = number_of(looked, number)
    if found is None:
        response: Response = missing_feature(request, looked, number)
        return response
    author = who_writes(request)  # before anything is said of what was sent
    act = act_of(saying_of(fields), author, looked.weights, found)
    book = _books(request).writing()
    book.say(act)
    return said_answer(request, label_panel(book, looked.weights, found, who_asks(request), looked.home))


@router.get(
    f"{_HERE}/features/{{number}}/plot/{{plot}}.csv",
    tags=["pages"],
    response_class=Response,
    responses=_of_type("text/csv"),
)
def published_plot_csv(
    request: Request,
    looked: Looked,
    number: Number,
    plot: Annotated[str, Path(max_length=40, description=f"One of {', '.join(PLOTS)}.")],
) -> Response:
    """The data of a plot of the feature's page."""
    found = number_of(looked, number)
    if found is None:
        response: Response = missing_feature(request, looked, number)
        return response
    if plot not in PLOTS:
        raise WebError(404, "not_found", f"There is no plot {plot!r}.", hint=f"There are: {', '.join(PLOTS)}.")
    columns, rows = plot_rows(looked.store.feature(found), plot)
    return csv_response(f"{looked.home.title}-{found}-{plot}.csv", columns, rows)
