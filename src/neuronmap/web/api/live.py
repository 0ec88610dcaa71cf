"""Texts run through models, for scripts: what is quick is answered at once, the rest with 202 and the address of a call."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from neuronmap.web.addresses import base_path
from neuronmap.web.errors import responses
from neuronmap.web.explorer import Explorer
from neuronmap.web.live.answers import EffectsAnswer, RestsOn, SteerAnswer, TextAnswer
from neuronmap.web.live.calls import Call
from neuronmap.web.live.requests import MOST_TOKENS, EffectsRequest, LiveRequest, SteerRequest, TextRequest
from neuronmap.web.routing import ExplorerOf

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["live"])

_PATIENCE_S = 2.0
_MOST_PATIENCE_S = 60.0

Prefer = Annotated[
    str | None,
    Header(max_length=100, description="`wait=20` waits so many seconds for the answer, at most 60; 2 when left out."),
]
CallId = Annotated[str, Path(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$")]


class CallError(BaseModel):
    """Why a call failed."""

    code: str
    message: str
    hint: str


class CallDocument(BaseModel):
    """A request on its way through the process that runs models."""

    id: str
    operation: str
    sae: str | None
    state: Literal["waiting", "loading", "running", "done", "failed"]
    created: str = Field(description="ISO 8601, UTC.")
    seconds: float | None = Field(description="How long it took from its turn on, once it is finished.")
    progress: dict[str, Any] | None = Field(description="Title, done, total and unit of the work under way.")
    error: CallError | None = Field(description="Why it failed.")
    answer: dict[str, Any] | None = Field(
        default=None,
        description="The answer of its operation, once it is done: what the route itself answers when it is quick.",
    )


class TopFeaturesRequest(BaseModel):
    """A text of which every token's strongest features are wanted."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"sae": "demo", "text": "The winter was long.", "top": 5}]}
    )

    sae: str = Field(min_length=1, max_length=300, description="Id of the SAE.")
    analysis: str | None = Field(
        default=None, min_length=1, max_length=100, description="Name of the analysis; the newest when left out."
    )
    text: str = Field(min_length=1, max_length=20_000, description="The text, at most 20,000 characters.")
    top: int = Field(default=10, ge=1, le=256, description="Features of each token, at most.")
    order: Literal["activation", "relative"] | None = Field(
        default=None,
        description="Relative to each feature's largest activation when left out and there is an analysis.",
    )
    max_density: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Leave out features that fire on a larger share of tokens; needs an analysis.",
    )
    max_tokens: int = Field(default=MOST_TOKENS, ge=1, le=MOST_TOKENS, description="Most tokens of the text.")


class FeatureOfToken(BaseModel):
    """A feature that fires on a token."""

    feature: int
    label: str
    activation: float
    relative: float | None = Field(
        description="Activation over its largest in the analysis; null if that is not known."
    )


class TokenLine(BaseModel):
    """A token with its features."""

    position: int
    token_id: int
    text: str = Field(description="Text of the piece it is shown in: tokens that share a character have the same.")
    masked: str = Field(description="first, special or outlier where the SAE says nothing; empty where it does.")
    active: int = Field(description="Features that fire on it.")
    features: list[FeatureOfToken]


class TopFeatures(BaseModel):
    """The strongest features of every token of a text."""

    rests_on: RestsOn
    tokens: list[TokenLine]
    notes: list[str]


_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": CallDocument, "description": "Not finished: ask again at the address in the header Location."},
    **responses(404, 409, 422, 429, 503, 504),
}


@router.post("/text", summary="Which features fire on a text", response_model=TextAnswer, responses=_ACCEPTED)
async def text(explorer: ExplorerOf, request: Request, body: TextRequest, prefer: Prefer = None) -> Response:
    """Tokens, their strongest features, a ranking over the text, and the activation of chosen features on every token."""
    return await _respond(explorer, request, body, prefer)


@router.post(
    "/top_features", summary="The strongest features of each token", response_model=TopFeatures, responses=_ACCEPTED
)
async def top_features(
    explorer: ExplorerOf, request: Request, body: TopFeaturesRequest, prefer: Prefer = None
) -> Response:
    """The same as `text`, by token. Where it is answered with 202, the call holds the answer of `text`."""
    call = await _called(explorer, TextRequest(**body.model_dump(), ranking=0), prefer)
    return _by_token(call.result()) if call.finished else _accepted(request, call)


@router.post("/steer", summary="Change features while the model runs", response_model=SteerAnswer, responses=_ACCEPTED)
async def steer(explorer: ExplorerOf, request: Request, body: SteerRequest, prefer: Prefer = None) -> Response:
    """A prompt continued, or a text scored: clean, steered, and with random directions of the same length."""
    return await _respond(explorer, request, body, prefer)


@router.post("/effects", summary="Take a feature out of the model", response_model=EffectsAnswer, responses=_ACCEPTED)
async def effects(explorer: ExplorerOf, request: Request, body: EffectsRequest, prefer: Prefer = None) -> Response:
    """What changes in the loss and in the predicted tokens when a feature is taken out where it fires."""
    return await _respond(explorer, request, body, prefer)


@router.get("/calls/{number}", summary="A request to a model", responses=responses(404, 422))
async def call(
    explorer: ExplorerOf,
    number: CallId,
    wait: Annotated[float, Query(ge=0, le=_MOST_PATIENCE_S, description="Seconds to wait for the end.")] = 0.0,
) -> CallDocument:
    """State and answer. Finished calls are kept for ten minutes."""
    found = explorer.live.call(number)
    await found.wait(wait)
    return _document(found)


@router.delete("/calls/{number}", summary="Stop a request to a model", responses=responses(404, 422))
async def cancel(explorer: ExplorerOf, number: CallId) -> CallDocument:
    """Stop a call that waits or runs, within two seconds; a finished one stays as it is."""
    found = explorer.live.cancel(number)
    await found.wait(_PATIENCE_S + 1.0)
    return _document(found)


# --- answers ---------------------------------------------------------------------------------------------------------


async def _called(explorer: Explorer, asked: LiveRequest, prefer: str | None) -> Call:
    explorer.entry(asked.sae)  # a name that is not there is said at once
    found = explorer.live.submit(asked)
    await found.wait(_patience(prefer))
    return found


async def _respond(explorer: Explorer, request: Request, asked: LiveRequest, prefer: str | None) -> Response:
    found = await _called(explorer, asked, prefer)
    return JSONResponse(found.result()) if found.finished else _accepted(request, found)


def _patience(prefer: str | None) -> float:
    """Seconds of ``Prefer: wait=N`` (RFC 7240)."""
    found = re.search(r"\bwait\s*=\s*(\d{1,4})\b", prefer or "")
    return min(float(found[1]), _MOST_PATIENCE_S) if found else _PATIENCE_S


def _accepted(request: Request, found: Call) -> Response:
    headers = {"Location": f"{base_path(request)}/api/sae/calls/{found.id}", "Retry-After": "1"}
    return JSONResponse(_document(found).model_dump(mode="json"), 202, headers=headers)


def _document(found: Call) -> CallDocument:
    return CallDocument(**found.to_dict(), answer=found.answer)


def _by_token(answer: dict[str, Any]) -> Response:
    texts = [""] * len(answer["token_ids"])
    for piece in answer["pieces"]:
        texts[piece["start"] : piece["stop"]] = [piece["text"]] * (piece["stop"] - piece["start"])
    labels = {int(feature): label for feature, label in answer["labels"].items()}
    tokens = [
        {
            "position": at,
            "token_id": token,
            "text": texts[at],
            "masked": answer["masked"][at],
            "active": answer["active"][at],
            "features": [
                {"feature": feature, "label": labels.get(feature, ""), "activation": activation, "relative": relative}
                for feature, activation, relative in answer["top"][at]
            ],
        }
        for at, token in enumerate(answer["token_ids"])
    ]
    return JSONResponse({"rests_on": answer["rests_on"], "tokens": tokens, "notes": answer["notes"]})
