"""A prompt through the layers: one heat map a concept, and the logit lens."""

from __future__ import annotations

import math
from typing import Any

from neuronmap.abstraction.plots.look import (
    DIVERGING,
    FOR_SCALE,
    INK,
    LIGHT,
    NOTHING,
    heat,
    layer_axis,
    layout,
    short_digest,
)
from neuronmap.abstraction.plots.plot_data import Cell, PlotData
from neuronmap.abstraction.record import PromptConcept, TrackingReport, Trajectory

__all__ = ["trajectory_plots"]

_SIGNS = {"position 0": "0", "not significant": "n", "out of domain": "d"}
_TOKEN_WIDE = 34
_WORD_WIDE = 78
_LONGEST = 11


def trajectory_plots(trajectory: Trajectory, report: TrackingReport | None = None, number: int = 0) -> list[PlotData]:
    """The plots of one prompt.

    Args:
        trajectory: the prompt followed.
        report: where its concepts were measured, for the notes.
        number: which of the report's prompts it is, for the names of the plots.
    """
    found = [_concept_plot(trajectory, one, report, number) for one in trajectory.concepts]
    if trajectory.lens is not None and trajectory.lens_probability is not None:
        found.append(_lens_plot(trajectory, number))
    return found


def _layout(trajectory: Trajectory, wide: int, **more: Any) -> dict[str, Any]:
    """Tokens from left to right, layers upwards; as wide as many tokens need."""
    places = list(range(len(trajectory.tokens)))
    made = layout(
        height=110 + max(240, 15 * len(trajectory.layers)),
        xaxis={
            "tickmode": "array", "tickvals": places, "ticktext": [_shown(token) for token in trajectory.tokens], "title": {"text": "Token"},
            "showgrid": False, "zeroline": False, "automargin": True, "range": [-0.5, len(places) - 0.5],
        },
        yaxis=layer_axis(trajectory.layers, showgrid=False),
        **FOR_SCALE,
        **more,
    )  # fmt: skip
    if wide * len(places) > 760:
        made["width"] = 160 + wide * len(places)
    return made


def _shown(token: str) -> str:
    """A token with its spaces and line ends visible, and nothing that Plotly would take for markup."""
    text = token.replace("\n", "⏎").replace("\t", "⇥")
    if text != text.lstrip(" ") or text != text.rstrip(" ") or not text:
        text = text.replace(" ", "␣") or "∅"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _concept_plot(trajectory: Trajectory, one: PromptConcept, report: TrackingReport | None, number: int) -> PlotData:
    layers, tokens = trajectory.layers, trajectory.tokens
    told = [
        [value if not why else None for value, why in zip(*row, strict=True)]
        for row in zip(one.log_odds, one.grey, strict=True)
    ]
    most = max([1.0, *(abs(value) for row in told for value in row if value is not None)])
    chances = [[None if value is None else 1 / (1 + math.exp(-value)) for value in row] for row in told]
    x = list(range(len(tokens)))
    hover = f"%{{text}}, layer %{{y}}<br>log-odds of {one.classes[-1]}: %{{z:.2f}} (probability %{{customdata:.2f}})"
    names = [[_shown(token)] * len(layers) for token in tokens]
    main = heat(
        x, layers, _turned(told), scale=DIVERGING, low=-most, high=most, bar=f"log-odds of {one.classes[-1]}", hover=hover,
        text=_turned(names), customdata=_turned(chances),
    )  # fmt: skip
    figure = {
        "data": [main, _grey_cells(one, x, layers, names), *_peak(one)],
        "layout": _layout(trajectory, _TOKEN_WIDE, showlegend=False),
    }
    rows: list[list[Cell]] = [
        [at, token, layer, one.log_odds[at][place], one.grey[at][place] or None]
        for at, token in enumerate(tokens)
        for place, layer in enumerate(layers)
    ]
    return PlotData(
        f"prompt-{number}-{one.concept}",
        f"{one.title} in “{_short(trajectory.prompt)}”",
        f"How sure the probe of each layer is at each token: orange for {one.classes[-1]}, blue for "
        f"{one.classes[0]}, white undecided. Grey cells say nothing: 0 position 0, n no significant probe at that "
        "layer, d the token is unlike what the probe was made for. "
        f"{_peak_text(trajectory, one)}{_notes(report, one.concept)}",
        ["position", "token", "layer", "log_odds", "grey"],
        rows,
        figure,
    )


def _turned(rows: list[list[Any]]) -> list[list[Any]]:
    """Token by layer -> layer by token."""
    return [list(column) for column in zip(*rows, strict=True)]


def _grey_cells(one: PromptConcept, x: list[int], layers: list[int], names: list[list[str]]) -> dict[str, Any]:
    grey = [[1.0 if why else None for why in row] for row in one.grey]
    signs = [[_SIGNS.get(why, "?" if why else "") for why in row] for row in one.grey]
    said = [
        [f"{name}: {why}" if why else "" for name, why in zip(*row, strict=True)]
        for row in zip(names, one.grey, strict=True)
    ]
    cells = heat(
        x,
        layers,
        _turned(grey),
        scale=[[0, NOTHING], [1, NOTHING]],
        low=0,
        high=1,
        bar="",
        hover="%{customdata}, layer %{y}",
    )
    return {
        **cells,
        "showscale": False,
        "text": _turned(signs),
        "texttemplate": "%{text}",
        "textfont": {"size": 10, "color": INK},
        "customdata": _turned(said),
    }


def _peak(one: PromptConcept) -> list[dict[str, Any]]:
    """The strongest cell and the layers that cannot be told from it: dark, with a light rim, to be seen on every hue."""
    if one.peak_layer is None or one.peak_token is None:
        return []
    made = []
    for hue, thick in (("#ffffff", 6), (INK, 2)):
        mark: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": "peak",
            "x": [one.peak_token],
            "y": [one.peak_layer],
            "hovertemplate": "peak<extra></extra>",
            "marker": {"symbol": "circle-open", "size": 14, "color": hue, "line": {"width": thick, "color": hue}},
        }
        if one.peak_interval is not None and one.peak_interval[0] < one.peak_interval[1]:
            low, high = one.peak_interval
            mark["error_y"] = {
                "type": "data", "symmetric": False, "array": [high - one.peak_layer],
                "arrayminus": [one.peak_layer - low], "color": hue, "thickness": thick, "width": 5,
            }  # fmt: skip
        made.append(mark)
    return made


def _peak_text(trajectory: Trajectory, one: PromptConcept) -> str:
    if one.peak_layer is None or one.peak_token is None:
        return "No cell says anything: no peak."
    interval = (
        f" (layers {one.peak_interval[0]} to {one.peak_interval[1]} cannot be told from it)"
        if one.peak_interval
        else ""
    )
    return f"Circle: strongest at “{trajectory.tokens[one.peak_token].strip()}”, layer {one.peak_layer}{interval}."


def _notes(report: TrackingReport | None, name: str) -> str:
    for result in report.concepts if report is not None else []:
        if result.concept["name"] == name and report is not None:
            return (
                f" Probes from {result.clusters.get('train', 0):,} training clusters ({result.items:,} items); seed "
                f"{report.settings.get('seed', 0)}; data {short_digest(result.dataset_digest)}; model "
                f"{report.model['name']}."
            )
    return ""


def _lens_plot(trajectory: Trajectory, number: int) -> PlotData:
    lens, chances = trajectory.lens or [], trajectory.lens_probability or []
    layers, tokens = trajectory.layers, trajectory.tokens
    best = [[_shown(words[0]) if words else "" for words in row] for row in lens]
    three = [[", ".join(_shown(word) for word in words) for words in row] for row in lens]
    trace = heat(
        list(range(len(tokens))), layers, _turned(chances), scale=LIGHT, low=0, high=1, bar="probability",
        hover="layer %{y}: %{customdata}<br>probability of the first %{z:.2f}",
        text=[[_cut(word) for word in row] for row in _turned(best)],
        texttemplate="%{text}", textfont={"size": 11, "color": INK}, customdata=_turned(three),
    )  # fmt: skip
    made = _layout(trajectory, _WORD_WIDE)
    made["height"] = 110 + max(240, 20 * len(layers))
    rows: list[list[Cell]] = [
        [at, token, layer, *[*lens[at][place], "", "", ""][:3], chances[at][place]]
        for at, token in enumerate(tokens)
        for place, layer in enumerate(layers)
    ]
    return PlotData(
        f"prompt-{number}-lens",
        f"Logit lens of “{_short(trajectory.prompt)}”",
        "The likeliest next token if each layer's activation went straight through the final norm and the "
        "unembedding, coloured by its probability. The model was not trained for that: early layers are unreliable.",
        ["position", "token", "layer", "first", "second", "third", "probability"],
        rows,
        {"data": [trace], "layout": made},
    )


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"


def _short(text: str, most: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
