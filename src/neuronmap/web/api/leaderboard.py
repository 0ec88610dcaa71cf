"""``/api/sae/leaderboard``: SAEs of one model and hook side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from neuronmap.hub.leaderboard_record import Leaderboard, table_rows
from neuronmap.web.downloads import csv_response
from neuronmap.web.errors import responses
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.views.concepts.plots import PlotDocument
from neuronmap.web.views.leaderboard import BoardQueryOf, board_of, board_plot

__all__ = ["router"]

router = APIRouter(prefix="/api/sae", tags=["SAEs"])

_PlotName = Annotated[str, Path(max_length=200, description="front, or metric-NAME for a column.", examples=["front"])]


@router.get("/leaderboard", summary="SAEs of one model and hook side by side", responses=responses(422))
def board(explorer: ExplorerOf, asked: BoardQueryOf) -> Leaderboard:
    """Stored evaluations that may be compared, ranked; those that were refused, with what differs and what to do."""
    return board_of(explorer, asked)


@router.get(
    "/leaderboard.csv",
    summary="The table of the leaderboard, as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **responses(422)},
)
def board_csv(explorer: ExplorerOf, asked: BoardQueryOf) -> Response:
    """One row an SAE; an empty cell is not established or was not measured."""
    return csv_response("leaderboard.csv", *table_rows(board_of(explorer, asked)))


@router.get(
    "/leaderboard/plots/{plot}.csv",
    summary="Data of a plot of the leaderboard, as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **responses(404, 422)},
)
def plot_csv(explorer: ExplorerOf, plot: _PlotName, asked: BoardQueryOf) -> Response:
    """The numbers of the plot, one row each; an empty cell is not established or was not measured."""
    found = board_plot(board_of(explorer, asked), plot)
    rows = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    return csv_response(f"leaderboard-{found.name}.csv", found.columns, rows)


@router.get("/leaderboard/plots/{plot}", summary="A plot of the leaderboard", responses=responses(404, 422))
def plot(explorer: ExplorerOf, plot: _PlotName, asked: BoardQueryOf) -> PlotDocument:
    """What it shows, its numbers, and a figure as Plotly takes it."""
    return board_plot(board_of(explorer, asked), plot)
