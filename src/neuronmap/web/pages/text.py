"""A text of one's own: which features fire on it, token by token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from neuronmap.errors import NeuronMapError
from neuronmap.web.asking import PATIENCE_S, Asked, ask, checked, problem_of
from neuronmap.web.explorer import Explorer, ExplorerOf
from neuronmap.web.live.answers import TextAnswer
from neuronmap.web.live.requests import MOST_CHARACTERS, TextRequest
from neuronmap.web.rendering import PageRouter, render
from neuronmap.web.tokens import ShownPiece, level

__all__ = ["router"]

router = PageRouter()

_TOKEN_TITLE = 3
"""Features named in a token's title."""


class TextToken(BaseModel):
    """A piece of the text as the page shows it."""

    shown: str
    token: int = Field(description="Its first token.")
    shade: int = Field(description="0 to 20.")
    title: str
    peak: bool = False
    special: bool = False
    masked: bool = False


class FeatureOnToken(BaseModel):
    """A feature on the chosen token."""

    feature: int
    activation: float
    relative: float | None
    label: str


class TextPage(BaseModel):
    """A text, what fires on it, and one feature or token looked at closely."""

    saes: list[str] = Field(description="Ids of SAEs that texts can be run through.")
    sae: str
    analysis: str | None
    text: str
    feature: int | None = Field(description="The feature whose activation is shown.")
    token: int | None = Field(description="The token whose features are listed.")
    order: str | None
    max_density: float | None
    asked: Asked
    tokens: list[TextToken] = Field(default_factory=list)
    on_token: list[FeatureOnToken] = Field(default_factory=list)
    shows: str = Field(default="", description="What the shading means.")


def _sae_choices(explorer: Explorer) -> list[str]:
    found = [entry for entry in explorer.entries() if not entry.problem]
    analysed = [entry.id for entry in found if explorer.analyses(entry)]
    return analysed + [entry.id for entry in found if entry.id not in analysed]


@router.page("/text", "text.html", nav="text")
async def text_page(
    explorer: ExplorerOf,
    sae: Annotated[str, Query(max_length=300)] = "",
    analysis: Annotated[str | None, Query(max_length=100)] = None,
    text: Annotated[str, Query(max_length=MOST_CHARACTERS)] = "",
    feature: Annotated[str, Query(max_length=10)] = "",
    token: Annotated[int | None, Query(ge=0, lt=100_000)] = None,
    order: Annotated[str | None, Query(max_length=12)] = None,
    max_density: Annotated[str, Query(max_length=12)] = "",
) -> TextPage:
    """Type a text and see which features fire."""
    return await _page(explorer, sae, analysis, text, feature, token, order, max_density)


async def _page(
    explorer: Explorer,
    sae: str,
    analysis: str | None,
    text: str,
    feature: str,
    token: int | None,
    order: str | None,
    max_density: str,
    patience: float = PATIENCE_S,
) -> TextPage:
    saes = _sae_choices(explorer)
    chosen = sae or (saes[0] if saes else "")
    number = int(feature) if feature.isdecimal() else None
    page = TextPage(
        saes=saes,
        sae=chosen,
        analysis=analysis or None,
        text=text,
        feature=number,
        token=token,
        order=order or None,
        max_density=_density(max_density),
        asked=Asked(),
    )
    if not text.strip() or not chosen:
        return page
    values: dict[str, Any] = {
        "sae": chosen,
        "analysis": analysis or None,
        "text": text,
        "features": () if number is None else (number,),
        "order": order or None,
        "max_density": page.max_density,
    }
    try:
        request = checked(TextRequest, values)
    except NeuronMapError as error:
        return page.model_copy(update={"asked": Asked(state="failed", problem=problem_of(error))})
    asked = await ask(explorer, request, patience)
    if asked.answer is None:
        return page.model_copy(update={"asked": asked})
    return page.model_copy(update={"asked": asked, **_shown(TextAnswer(**asked.answer), token)})


def _density(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1 else None


def _shown(answer: TextAnswer, token: int | None) -> dict[str, Any]:
    """The answer as the page shows it: shaded by the chosen feature, or by what the features leave unexplained."""
    trace = answer.traces[0] if answer.traces else None
    if trace is not None:
        values = [value or 0.0 for value in trace.activations]
        largest, what = (
            trace.largest or 1.0,
            f"activation of feature {trace.feature} over its largest, {trace.largest:.3g}",
        )
    else:
        values = [0.0 if share is None else min(max(1 - share, 0.0), 1.0) for share in answer.explained]
        largest, what = 1.0, "share of the token that the features do not explain"
    best = max(range(len(values)), key=values.__getitem__, default=0)
    shown = []
    for piece in answer.pieces:
        inside = range(piece.start, piece.stop)
        value = max((values[at] for at in inside), default=0.0)
        shown.append(
            TextToken(
                shown=piece.shown,
                token=piece.start,
                shade=level(value / largest),
                title=_title(answer, piece.start, value, trace is not None),
                peak=trace is not None and value > 0 and best in inside,
                special=piece.special,
                masked=bool(piece.masked),
            )
        )
    on_token = []
    if token is not None and token < len(answer.top):
        on_token = [
            FeatureOnToken(feature=one, activation=value, relative=relative, label=answer.labels.get(one, ""))
            for one, value, relative in answer.top[token]
        ]
    return {"tokens": shown, "on_token": on_token, "shows": what}


def _title(answer: TextAnswer, token: int, value: float, is_activation: bool) -> str:
    if answer.masked[token]:
        return f"masked ({answer.masked[token]}): no row of the SAE"
    share = answer.explained[token]
    lines = [f"activation {value:.3g}" if is_activation else f"{share or 0:.0%} explained"]
    for one, strength, _ in answer.top[token][:_TOKEN_TITLE]:
        lines.append(f"#{one} {answer.labels.get(one, '')} {strength:.3g}".replace("  ", " "))
    return "\n".join(lines)


@router.get("/text/result", include_in_schema=False, response_class=HTMLResponse)
async def text_result(request: Request, explorer: ExplorerOf) -> HTMLResponse:
    """The part of the page that waits for the answer."""
    given = request.query_params
    token = given.get("token", "")
    page = await _page(
        explorer,
        given.get("sae", ""),
        given.get("analysis"),
        given.get("text", "")[:MOST_CHARACTERS],
        given.get("feature", "")[:10],
        int(token) if token.isdecimal() and len(token) < 6 else None,
        given.get("order"),
        given.get("max_density", "")[:12],
        patience=20.0,
    )
    return render(request, "_text_result.html", {"page": page})


class StripFragment(BaseModel):
    """One feature on a text, for the test box of its page."""

    asked: Asked
    pieces: list[ShownPiece] = Field(default_factory=list)
    largest: float = 1.0
    peak: int | None = None
    most: float = 0.0


@router.get("/sae/{sae:path}/-/text-strip", include_in_schema=False, response_class=HTMLResponse)
async def text_strip(
    request: Request,
    explorer: ExplorerOf,
    sae: str,
    feature: Annotated[int, Query(ge=0, lt=2**31)],
    text: Annotated[str, Query(max_length=MOST_CHARACTERS)] = "",
    analysis: Annotated[str | None, Query(max_length=100)] = None,
) -> HTMLResponse:
    """A text shaded by one feature."""
    fragment = StripFragment(asked=Asked())
    try:
        question = checked(
            TextRequest,
            {"sae": sae, "analysis": analysis or None, "text": text, "features": (feature,), "top": 0, "ranking": 0},
        )
        asked = await ask(explorer, question, patience=20.0)
    except NeuronMapError as error:
        asked = Asked(state="failed", problem=problem_of(error))
    fragment.asked = asked
    if asked.answer is not None:
        answer = TextAnswer(**asked.answer)
        trace = answer.traces[0]
        values = [value or 0.0 for value in trace.activations]
        fragment.pieces = [
            ShownPiece(
                text=piece.text,
                shown=piece.shown,
                value=max(values[piece.start : piece.stop], default=0.0),
                special=piece.special,
                masked=bool(piece.masked),
            )
            for piece in answer.pieces
        ]
        fragment.largest, fragment.most = trace.largest or 1.0, max(values, default=0.0)
        strongest = max(range(len(fragment.pieces)), key=lambda at: fragment.pieces[at].value, default=0)
        fragment.peak = strongest if fragment.most > 0 else None
    return render(request, "_text_strip.html", {"page": fragment})
