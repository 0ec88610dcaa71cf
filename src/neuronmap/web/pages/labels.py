"""Labels: what is said of a feature, all labels of an SAE, people's lists, blind tasks and what they come to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Form, Query, Request
from fastapi.responses import Response

from neuronmap.errors import InputError
from neuronmap.web.addresses import base_path, is_own_path, lead_to
from neuronmap.web.caching import etag, unchanged
from neuronmap.web.downloads import csv_download, jsonl_download
from neuronmap.web.errors import responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.rendering import render, sae_path
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.feature_number import missing_feature, number_of
from neuronmap.web.views.labels.answering import said_answer, said_fields
from neuronmap.web.views.labels.blind import BlindPage, BlindResults, answer_task, blind_page, blind_results
from neuronmap.web.views.labels.panel import label_panel
from neuronmap.web.views.labels.saying import act_of, saying_of
from neuronmap.web.views.labels.table import (
    EXPORTED,
    LabelQuery,
    LabelTable,
    ListsPage,
    exported_rows,
    label_table,
    lists_page,
)
from neuronmap.web.views.labels.who import NAME_COOKIE, name_cookie, who_asks, who_writes

__all__ = ["router"]

router = PageRouter()

Asked = Annotated[LabelQuery, Query()]
Seed = Annotated[
    int, Query(ge=0, lt=2**31, description="Decides the questions: reviewers with the same one can be compared.")
]
_YEAR_S = 365 * 86_400


# --- one feature -------------------------------------------------------------------------------------------------------


@router.post("/sae/{sae:path}/-/feature/{number}/said", include_in_schema=False)
def say(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    number: str,
    fields: Annotated[dict[str, str], Depends(said_fields)],
) -> Response:
    """Something is said of a feature; back to its page, or to its panel alone."""
    analysed = explorer.analysed(sae)
    feature = number_of(analysed, number)
    if feature is None:
        response: Response = missing_feature(request, analysed, number)
        return response
    act = act_of(saying_of(fields), who_writes(request), analysed.weights, feature)
    book = explorer.books.writing()
    book.say(act)
    return said_answer(request, label_panel(book, analysed.weights, feature, who_asks(request), analysed.home))


@router.post("/labels/name", include_in_schema=False)
def choose_name(
    request: Request,
    name: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Remember a name in this browser."""
    if who_asks(request).fixed:
        raise InputError("Your name here is that of your account.")
    held = name_cookie(name)
    answer = lead_to(request, next if is_own_path(next) else "/")
    answer.set_cookie(
        NAME_COOKIE,
        held,
        max_age=_YEAR_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path=base_path(request) or "/",
    )
    return answer


# --- all labels of an SAE ------------------------------------------------------------------------------------------------


@router.page("/sae/{sae:path}/-/labels", "labels/table.html")
def labels(explorer: ExplorerOf, sae: str, query: Asked) -> LabelTable:
    """All labels of an SAE in a table: filter by author, method, score, conflict; sort, page."""
    entry = explorer.entry(sae)
    return label_table(explorer.books.reading(), entry.id, entry.weights_digest or "", query)


@router.get(
    "/sae/{sae:path}/-/labels.csv",
    tags=["pages"],
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}, "description": "The table."}, **responses(404, 422)},
)
def labels_csv(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> Response:
    """All labels of an SAE that meet the conditions, as CSV."""
    return _exported(request, explorer, sae, query, "csv")


@router.get(
    "/sae/{sae:path}/-/labels.jsonl",
    tags=["pages"],
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "The rows."}, **responses(404, 422)},
)
def labels_jsonl(request: Request, explorer: ExplorerOf, sae: str, query: Asked) -> Response:
    """The same as JSON lines. With authors, votes and history as they were said: `/api/sae/labels/acts`."""
    return _exported(request, explorer, sae, query, "jsonl")


def _no_formulas(row: dict[str, Any]) -> dict[str, Any]:
    """Texts that a spreadsheet would run as a formula stand behind an apostrophe: anybody may have written them."""
    return {
        name: f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
        for name, value in row.items()
    }


def _exported(
    request: Request, explorer: Explorer, sae: str, query: LabelQuery, form: Literal["csv", "jsonl"]
) -> Response:
    entry, book = explorer.entry(sae), explorer.books.reading()
    weights = entry.weights_digest or ""
    version = book.version(weights) if book is not None else ""
    tag = etag(f"{form} {weights} {version} {query.model_dump_json()}".encode())
    if (same := unchanged(request, tag)) is not None:
        return same
    rows = exported_rows(book, weights, query)
    if form == "csv":
        return csv_download(f"{sae}-labels.csv", EXPORTED, map(_no_formulas, rows), tag)
    return jsonl_download(f"{sae}-labels.jsonl", rows, tag)


@router.page("/labels/lists", "labels/lists.html")
def lists(request: Request, explorer: ExplorerOf) -> ListsPage:
    """Bookmarks and other lists: one's own, and everybody else's."""
    saes = {entry.weights_digest: entry.id for entry in explorer.entries() if entry.weights_digest}
    return lists_page(explorer.books.reading(), who_asks(request), saes)


# --- blind tasks ----------------------------------------------------------------------------------------------------------


@router.page("/sae/{sae:path}/-/labels/blind", "labels/blind.html")
def blind(request: Request, explorer: ExplorerOf, sae: str, seed: Seed = 0) -> BlindPage:
    """The next blind task: does this label say that the feature fires in this passage?"""
    who = who_asks(request)
    return blind_page(explorer.books.reading(), explorer.analysed(sae), sae, seed, who.name, who.fixed)


@router.post("/sae/{sae:path}/-/labels/blind", include_in_schema=False)
def answer_blind(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    task: Annotated[str, Form(max_length=64)],
    said: Annotated[Literal["yes", "no", "unknown"], Form()],
    seed: Annotated[int, Form(ge=0, lt=2**31)] = 0,
) -> Response:
    """Write an answer down, and go on."""
    answer = {"yes": True, "no": False, "unknown": None}[said]
    analysed = explorer.analysed(sae)
    answer_task(explorer.books.writing(), analysed, seed, task, answer, who_writes(request))
    if request.headers.get("hx-request") == "true":
        who = who_asks(request)
        page = blind_page(explorer.books.reading(), analysed, sae, seed, who.name, who.fixed)
        return render(request, "labels/_task.html", {"page": page})
    return lead_to(request, sae_path(sae, "labels", "blind", seed=seed or None))


@router.page("/sae/{sae:path}/-/labels/results", "labels/results.html")
def results(explorer: ExplorerOf, sae: str) -> BlindResults:
    """What blind tasks came to: people's and machines' labels by one protocol, and whether reviewers agree."""
    entry = explorer.entry(sae)
    return blind_results(explorer.books.reading(), sae, entry.weights_digest or "")
