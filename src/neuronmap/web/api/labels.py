"""``/api/sae/labels``: what people, language models and rules say of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from neuronmap.errors import InputError, WebError
from neuronmap.web.api.features import checked_number
from neuronmap.web.caching import etag, unchanged
from neuronmap.web.downloads import json_lines
from neuronmap.web.errors import responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.parameters import Number, SAEInQuery
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.labels.blind import BlindPage, BlindResults, answer_task, blind_page, blind_results
from neuronmap.web.views.labels.panel import LabelPanel, ShownLabel, label_panel, shown_label
from neuronmap.web.views.labels.saying import Saying, act_of
from neuronmap.web.views.labels.table import LabelQuery, LabelTable, ListsPage, label_table, lists_page
from neuronmap.web.views.labels.who import who_asks, who_writes

__all__ = ["router"]

router = APIRouter(prefix="/api/sae/labels", tags=["labels"])

_NAME = Field(
    default=None, max_length=200,
    description="Your name; that of the cookie, or of this machine's user, when left out. Where accounts are, it is your account's.",
)  # fmt: skip
Seed = Annotated[
    int, Query(ge=0, lt=2**31, description="Decides the questions: reviewers with the same one can be compared.")
]


class SayRequest(BaseModel):
    """What somebody says of a feature."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"sae": "demo", "feature": 7, "author": "Ada", "said": {"kind": "label", "text": "names of colours"}},
                {"sae": "demo", "feature": 7, "said": {"kind": "listing", "name": "bookmarks"}},
            ]
        },
    )

    sae: str = Field(min_length=1, max_length=600, description="Id of the SAE.")
    feature: int = Field(ge=0, lt=2**31, description="Number of the feature.")
    author: str | None = _NAME
    said: Saying = Field(description="A label, vote, comment, flag, listing, or what is taken back.")


class SaidAnswer(BaseModel):
    """What was written down."""

    act: dict[str, Any] = Field(description="The act, with its id; it never changes.")


class AnswerRequest(BaseModel):
    """An answer to a blind task."""

    model_config = ConfigDict(extra="forbid")

    sae: str = Field(min_length=1, max_length=600, description="Id of the SAE.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the questions.")
    task: str = Field(min_length=1, max_length=64, description="Name of the task.")
    said: bool | None = Field(description='Yes, no, or null for "cannot tell".')
    author: str | None = _NAME


class ConflictItem(BaseModel):
    """Labels of one feature and side that somebody disagrees about."""

    feature: int
    side: str
    labels: list[ShownLabel]


class ConflictList(BaseModel):
    """Features that somebody disagrees about."""

    sae: str
    conflicts: list[ConflictItem]


class FoundLabels(BaseModel):
    """Labels that hold all words."""

    query: str
    labels: list[ShownLabel]


class ListQuery(LabelQuery):
    """Which labels of which SAE."""

    sae: str = Field(min_length=1, max_length=600, description="Id of the SAE.", examples=["demo"])


def _weights(explorer: Explorer, sae: str) -> str:
    """Digest of the weights of an SAE.

    Raises:
        NotInLibraryError: there is none of that id.
        InputError: it has no digest.
    """
    entry = explorer.entry(sae)
    if not entry.weights_digest:
        raise InputError(f"{sae} has no digest, so nothing can be said of its features: {entry.problem}")
    return entry.weights_digest


@router.get("", summary="Labels of an SAE that hold", responses=responses(404, 422))
def labels(explorer: ExplorerOf, query: Annotated[ListQuery, Query()]) -> LabelTable:
    """Filtered, in an order, page by page; neither replaced by a new wording nor taken back."""
    return label_table(explorer.books.reading(), query.sae, _weights(explorer, query.sae), query)


@router.post("", status_code=201, summary="Say something of a feature", responses=responses(404, 409, 422))
def say(request: Request, explorer: ExplorerOf, asked: SayRequest) -> SaidAnswer:
    """Label, vote, comment, flag, list, or take back. The author is a person; nobody speaks for others where accounts are. A label that the
    author has given the feature already, word for word, is answered with the first, and nothing is added."""
    author = who_writes(request, asked.author)
    weights = _weights(explorer, asked.sae)
    checked_number(explorer.analysed(asked.sae), asked.feature)
    act = explorer.books.writing().say(act_of(asked.said, author, weights, asked.feature))
    return SaidAnswer(act=act.to_dict())


@router.get("/feature", summary="Everything that was said of a feature", responses=responses(404, 422))
def feature(request: Request, explorer: ExplorerOf, sae: SAEInQuery, feature: Number) -> LabelPanel:
    """All labels side by side with scores, votes, flags and comments, and the history with what holds no more."""
    return label_panel(explorer.books.reading(), _weights(explorer, sae), feature, who_asks(request))


@router.get("/conflicts", summary="Features that somebody disagrees about", responses=responses(404, 422))
def conflicts(
    explorer: ExplorerOf,
    sae: SAEInQuery,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
) -> ConflictList:
    """Different labels by different authors on one side, or votes against one. Nothing is decided."""
    weights, book = _weights(explorer, sae), explorer.books.reading()
    found = book.conflicts(weights, limit=limit) if book is not None else []
    items = [
        ConflictItem(feature=one.feature, side=one.side, labels=[shown_label(held) for held in one.labels])
        for one in found
    ]
    return ConflictList(sae=sae, conflicts=items)


@router.get("/search", summary="Labels by words", responses=responses(404, 422))
def search(
    explorer: ExplorerOf,
    q: Annotated[
        str, Query(min_length=1, max_length=200, description="Words that all stand in the label or its explanation.")
    ],
    sae: Annotated[str, Query(max_length=600, description="Of this SAE only; all when left out.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 50,
) -> FoundLabels:
    """People's, models' and rules' labels, those for tables first."""
    weights, book = _weights(explorer, sae) if sae else None, explorer.books.reading()
    found = book.search(weights, q, limit=limit) if book is not None else []
    return FoundLabels(query=q, labels=[shown_label(one) for one in found])


@router.get(
    "/acts",
    summary="All acts of an SAE, as JSON lines",
    response_class=Response,
    responses={
        200: {"content": {"application/x-ndjson": {}}, "description": "One act a line, the oldest first."},
        **responses(404, 422),
    },
)
def acts(
    request: Request,
    explorer: ExplorerOf,
    sae: SAEInQuery,
    kind: Annotated[
        list[Literal["label", "score", "comment", "vote", "flag", "listing", "verdict", "retract"]],
        Query(max_length=8, description="Only these acts; all when left out."),
    ] = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """Everything that was said, with authors, times, judgements and history: what `neuronmap sae labels import` reads."""
    weights, book = _weights(explorer, sae), explorer.books.reading()
    tag = etag(f"{weights} {book.version(weights) if book else ''} {sorted(kind)}".encode())
    if (same := unchanged(request, tag)) is not None:
        return same

    def lines() -> Iterator[str]:
        from neuronmap.interpretation.labels.exchange import export_acts

        if book is not None:
            yield from json_lines(export_acts(book, weights, kinds=kind or None))

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"ETag": tag})


@router.get("/act", summary="One act with all that it says", responses=responses(404, 422))
def act(
    explorer: ExplorerOf,
    id: Annotated[str, Query(pattern=r"^[0-9a-f]{32}$", description="Of the act.")],
) -> SaidAnswer:
    """A score with every judgement, a label with its evidence."""
    book = explorer.books.reading()
    try:
        if book is None:
            raise InputError("Nobody has said anything yet.")
        return SaidAnswer(act=book.get(id).to_dict())
    except InputError as error:
        raise WebError(404, "not_found", error.message) from None


@router.get("/lists", summary="Bookmarks and other lists")
def lists(request: Request, explorer: ExplorerOf) -> ListsPage:
    """One's own, and everybody else's."""
    saes = {entry.weights_digest: entry.id for entry in explorer.entries() if entry.weights_digest}
    return lists_page(explorer.books.reading(), who_asks(request), saes)


@router.get("/task", summary="The next blind task", responses=responses(404, 409, 422))
def task(request: Request, explorer: ExplorerOf, sae: SAEInQuery, seed: Seed = 0) -> BlindPage:
    """Does this label say that the feature fires in this passage? Neither the author nor the truth is told."""
    who = who_asks(request)
    return blind_page(explorer.books.reading(), explorer.analysed(sae), sae, seed, who.name, who.fixed)


@router.post("/answer", summary="Answer a blind task", responses=responses(404, 409, 422))
def answer(request: Request, explorer: ExplorerOf, asked: AnswerRequest) -> BlindPage:
    """Write the answer down, and give the next task."""
    author = who_writes(request, asked.author)
    analysed = explorer.analysed(asked.sae)
    answer_task(explorer.books.writing(), analysed, asked.seed, asked.task, asked.said, author)
    return blind_page(explorer.books.reading(), analysed, asked.sae, asked.seed, author.name, who_asks(request).fixed)


@router.get("/results", summary="What blind tasks came to", responses=responses(404, 422))
def results(explorer: ExplorerOf, sae: SAEInQuery) -> BlindResults:
    """People's and machines' labels by one protocol, shuffled labels beside them, and Krippendorff's alpha among reviewers."""
    return blind_results(explorer.books.reading(), sae, _weights(explorer, sae))
