"""A prompt through the layers: one concept at every token and layer, and what the model would say at each layer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from neuronmap.abstraction.record import PromptConcept, Trajectory
from neuronmap.web.errors import WebError
from neuronmap.web.reports import OpenReport
from neuronmap.web.views.concepts.basis import ReportBasis
from neuronmap.web.views.concepts.plots import ShownPlot, shown_plot
from neuronmap.web.views.concepts.tables import evenly, shade

__all__ = ["GREY_SIGNS", "PromptPage", "prompt_page"]

GREY_SIGNS = {"position 0": "0", "not significant": "n", "out of domain": "d"}
"""Why a cell says nothing -> its letter."""
MOST_TOKENS = 48
"""Rows of a table; further tokens are on the next page."""
_LENS_LAYERS = 9


class Cell(BaseModel):
    """One token at one layer."""

    value: float | None = Field(description="Log-odds; null where the cell says nothing.")
    grey: str = Field(description="Why it says nothing; empty if it does.")
    kind: str = Field(description="Class of its shade.")

    @property
    def shown(self) -> str:
        """The value, or the letter of the reason."""
        if self.value is None:
            return GREY_SIGNS.get(self.grey, "?")
        return f"{self.value:+.1f}".replace("-", "−")


class TokenRow(BaseModel):
    """One token through the layers."""

    position: int
    token: str
    cells: list[Cell]
    peak: bool = Field(description="Whether it is the strongest token.")


class LensCell(BaseModel):
    """What the model would say after a token, were a layer the last one."""

    words: list[str] = Field(description="The three likeliest tokens.")
    probability: float | None = Field(description="Of the first.")
    kind: str = Field(description="Class of its shade.")


class LensRow(BaseModel):
    """One token in the logit lens."""

    position: int
    token: str
    cells: list[LensCell]


class PromptPage(BaseModel):
    """One prompt."""

    basis: ReportBasis
    number: int = Field(description="Counted from 0.")
    prompt: str
    tokens: list[str]
    layers: list[int]
    concept: str = Field(description="The concept that is shown; empty if none was followed.")
    concepts: list[dict[str, str]] = Field(description="Names and titles of all that were followed.")
    about: dict[str, Any] | None = Field(description="Peak and classes of the concept that is shown.")
    first: int = Field(description="Position of the first token that is listed.")
    rows: list[TokenRow]
    reasons: dict[str, int] = Field(description="How many cells say nothing, by reason.")
    lens_layers: list[int] = Field(description="Layers of the lens that are listed.")
    lens: list[LensRow] = Field(description="Empty without a lens.")
    detail: int | None = Field(description="Token whose whole lens is listed.")
    detail_rows: list[tuple[int, list[str], float | None]]
    plot: ShownPlot | None
    lens_plot: ShownPlot | None
    earlier: int | None = Field(description="First position of the page before.")
    later: int | None = Field(description="First position of the page after.")

    @property
    def shown_layers(self) -> list[int]:
        """Layers that the table has columns for."""
        return [self.layers[at] for at in evenly(len(self.layers))]


def prompt_page(
    found: OpenReport, number: int, concept: str = "", first: int = 0, token: int | None = None
) -> PromptPage:
    """The page of a prompt.

    Args:
        found: the report.
        number: of the prompt, from 0.
        concept: name; the first one when empty.
        first: position of the first token that is listed.
        token: whose lens is listed at every layer; the last one when None.

    Raises:
        WebError: 404, no such prompt, concept or token.
    """
    trajectory = found.prompt(number)
    chosen = _chosen(trajectory, concept)
    count = len(trajectory.tokens)
    for position in (first, token if token is not None else 0):
        if position >= count:
            raise WebError(404, "not_found", f"The prompt has no token {position}: it has 0 to {count - 1}.")
    places = range(first, min(first + MOST_TOKENS, count))
    plots = [shown_plot(plot, report=found.name) for plot in found.plots("prompt", str(number))]
    has_lens = trajectory.lens is not None and trajectory.lens_probability is not None
    detail = (count - 1 if token is None else token) if has_lens else None
    lens_at = evenly(len(trajectory.layers), _LENS_LAYERS) if has_lens else []
    name = chosen.concept if chosen is not None else ""
    return PromptPage(
        basis=ReportBasis.of(found),
        number=number,
        prompt=trajectory.prompt,
        tokens=trajectory.tokens,
        layers=trajectory.layers,
        concept=name,
        concepts=[{"name": one.concept, "title": one.title} for one in trajectory.concepts],
        about=_about(trajectory, chosen) if chosen is not None else None,
        first=first,
        rows=[_row(trajectory, chosen, at) for at in places] if chosen is not None else [],
        reasons=_reasons(chosen) if chosen is not None else {},
        lens_layers=[trajectory.layers[at] for at in lens_at],
        lens=[_lens_row(trajectory, at, lens_at) for at in places] if has_lens else [],
        detail=detail,
        detail_rows=_detail(trajectory, detail) if detail is not None else [],
        plot=next((one for one in plots if one.name == f"prompt-{number}-{name}"), None),
        lens_plot=next((one for one in plots if one.name == f"prompt-{number}-lens"), None),
        earlier=max(0, first - MOST_TOKENS) if first else None,
        later=first + MOST_TOKENS if first + MOST_TOKENS < count else None,
    )


def _chosen(trajectory: Trajectory, concept: str) -> PromptConcept | None:
    if not concept:
        return trajectory.concepts[0] if trajectory.concepts else None
    for one in trajectory.concepts:
        if one.concept == concept:
            return one
    names = ", ".join(one.concept for one in trajectory.concepts) or "none"
    raise WebError(404, "not_found", f"The prompt was not followed for '{concept}'.", hint=f"It was for {names}.")


def _about(trajectory: Trajectory, one: PromptConcept) -> dict[str, Any]:
    token = None if one.peak_token is None else trajectory.tokens[one.peak_token]
    return {
        "title": one.title,
        "classes": one.classes,
        "peak_layer": one.peak_layer,
        "peak_interval": one.peak_interval,
        "peak_token": one.peak_token,
        "peak_text": token,
    }


def _most(one: PromptConcept) -> float:
    told = [
        abs(value)
        for row, whys in zip(one.log_odds, one.grey, strict=True)
        for value, why in zip(row, whys, strict=True)
        if value is not None and not why
    ]
    return max([1.0, *told])


def _row(trajectory: Trajectory, one: PromptConcept, at: int) -> TokenRow:
    most = _most(one)
    cells = []
    for place in evenly(len(trajectory.layers)):
        why, value = one.grey[at][place], one.log_odds[at][place]
        told = None if why else value
        cells.append(Cell(value=told, grey=why, kind="grey" if told is None else shade(told, most=most)))
    return TokenRow(position=at, token=trajectory.tokens[at], cells=cells, peak=at == one.peak_token)


def _reasons(one: PromptConcept) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in one.grey:
        for why in row:
            if why:
                found[why] = found.get(why, 0) + 1
    return found


def _lens_row(trajectory: Trajectory, at: int, layers: list[int]) -> LensRow:
    words, chances = (trajectory.lens or [])[at], (trajectory.lens_probability or [])[at]
    cells = [LensCell(words=words[place], probability=chances[place], kind=shade(chances[place])) for place in layers]
    return LensRow(position=at, token=trajectory.tokens[at], cells=cells)


def _detail(trajectory: Trajectory, at: int) -> list[tuple[int, list[str], float | None]]:
    words, chances = (trajectory.lens or [])[at], (trajectory.lens_probability or [])[at]
    return [(layer, words[place], chances[place]) for place, layer in enumerate(trajectory.layers)]
