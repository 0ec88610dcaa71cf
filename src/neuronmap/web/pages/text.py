"""A text of one's own: which features fire on it, token by token."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from neuronmap.errors import NeuronMapError
from neuronmap.web.addresses import is_own_path, lead_to
from neuronmap.web.asking import PATIENCE_S, Asked, ask, checked, problem_of
from neuronmap.web.errors import Problem, WebError
from neuronmap.web.explorer import Explorer
from neuronmap.web.live.answers import TextAnswer
from neuronmap.web.live.requests import MOST_CHARACTERS, MOST_TOKENS, TextRequest
from neuronmap.web.own_text import Kept, OwnText, addressed, own_text
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.tokens import ShownPiece, level

__all__ = ["router"]

router = PageRouter()

_TOKEN_TITLE = 3
"""Features named in a token's title."""
_MOST_TYPED = 2_000_000
"""Characters that a form may send: as much as any request, so that a text that is too long is told so in its own page."""


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
    kept: str = Field(default="", description="Digest by which addresses name the text, where it is too long for them.")
    feature: int | None = Field(description="The feature whose activation is shown.")
    token: int | None = Field(description="The token whose features are listed.")
    order: str | None
    max_density: float | None
    asked: Asked
    tokens: list[TextToken] = Field(default_factory=list)
    on_token: list[FeatureOnToken] = Field(default_factory=list)
    shows: str = Field(default="", description="What the shading means.")

    @property
    def own(self) -> dict[str, str]:
        """The text as addresses name it."""
        return OwnText(self.text, self.kept).query

    def address(self, **changes: object) -> str:
        """Of this page with another feature or token, without the base path."""
        given: dict[str, Any] = {"sae": self.sae, "analysis": self.analysis, **self.own}
        given |= {"feature": self.feature, "token": self.token}
        given |= {"order": self.order, "max_density": self.max_density, **changes}
        return f"/text?{urlencode({name: value for name, value in given.items() if value not in (None, '')})}"


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
    kept: Annotated[Kept, Query()] = "",
) -> TextPage:
    """Type a text and see which features fire."""
    own = own_text(text, kept)
    return await _page(explorer, sae, analysis, own, feature, token, order, max_density)


@router.post("/text", include_in_schema=False, response_class=HTMLResponse)
async def type_text(
    request: Request,
    explorer: ExplorerOf,
    text: Annotated[str, Form(max_length=_MOST_TYPED)] = "",
    sae: Annotated[str, Form(max_length=300)] = "",
    analysis: Annotated[str, Form(max_length=100)] = "",
    feature: Annotated[str, Form(max_length=10)] = "",
    order: Annotated[str, Form(max_length=12)] = "",
    max_density: Annotated[str, Form(max_length=12)] = "",
) -> Response:
    """From the form to the address of the result: a text of any length, which stays in the form where it is too long."""
    text = text.replace("\r\n", "\n")
    if len(text) > MOST_CHARACTERS:
        page = await _page(explorer, sae, analysis, OwnText(), feature, None, order, max_density)
        page = page.model_copy(update={"text": text, "asked": Asked(state="failed", problem=_too_long(text))})
        return render(request, "text.html", {"page": page, "nav": "text"}, status=422)
    given = {"sae": sae, "analysis": analysis, **addressed(text).query}
    given |= {"feature": feature.strip(), "order": order, "max_density": max_density}
    return lead_to(request, f"/text?{urlencode({name: value for name, value in given.items() if value})}")


@router.post("/text/pin", include_in_schema=False)
def pin(
    request: Request,
    text: Annotated[str, Form(max_length=_MOST_TYPED)] = "",
    to: Annotated[str, Form(max_length=2000)] = "/text",
) -> Response:
    """From the test box of a page back to it, with the text in its address.

    Raises:
        WebError: 422, the text is too long to be run, or the address is none of this server.
    """
    text = text.replace("\r\n", "\n")
    if len(text) > MOST_CHARACTERS:
        problem = _too_long(text)
        raise WebError(422, problem.code, problem.message, hint=problem.hint)
    if not is_own_path(to):
        raise WebError(
            422, "invalid_request", "A text is pinned to a page of this server.", hint="Use the page's own form."
        )
    query = urlencode(addressed(text).query) if text else ""
    return lead_to(request, f"{to}{'&' if '?' in to else '?'}{query}" if query else to)


def _too_long(text: str) -> Problem:
    return Problem(
        code="text_too_long",
        message=f"The text has {len(text):,} characters; at most {MOST_CHARACTERS:,} are taken.",
        hint=f"The model reads its first {MOST_TOKENS:,} tokens, so a part of it is enough.",
        status=422,
    )


async def _page(
    explorer: Explorer,
    sae: str,
    analysis: str | None,
    own: OwnText,
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
        text=own.text,
        kept=own.kept,
        feature=number,
        token=token,
        order=order or None,
        max_density=_density(max_density),
        asked=Asked(),
    )
    if not own.text.strip() or not chosen:
        return page
    values: dict[str, Any] = {
        "sae": chosen,
        "analysis": analysis or None,
        "text": own.text,
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
    answer = await run_in_threadpool(_called, explorer, chosen, analysis, TextAnswer(**asked.answer))
    return page.model_copy(update={"asked": asked, **_shown(answer, token)})


def _called(explorer: Explorer, sae: str, analysis: str | None, answer: TextAnswer) -> TextAnswer:
    """The answer with the labels that people and models gave; those of the rules are in it already."""
    if answer.rests_on.analysis is None or explorer.books.reading() is None:
        return answer
    features = {one.feature for some in answer.top for one in some} | {one.feature for one in answer.ranking}
    given = explorer.analysed(sae, analysis).store.given(sorted(features))
    labels = {**answer.labels, **{feature: one.text for feature, one in given.items()}}
    ranking = [one.model_copy(update={"label": labels.get(one.feature, "")}) for one in answer.ranking]
    return answer.model_copy(update={"labels": labels, "ranking": ranking})


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
        own_text(given.get("text", "")[:MOST_CHARACTERS], given.get("kept", "")),
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
    kept: Annotated[Kept, Query()] = "",
) -> HTMLResponse:
    """A text shaded by one feature."""
    fragment = StripFragment(asked=Asked())
    try:
        question = checked(
            TextRequest,
            {
                "sae": sae,
                "analysis": analysis or None,
                "text": own_text(text, kept).text,
                "features": (feature,),
                "top": 0,
                "ranking": 0,
            },
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
