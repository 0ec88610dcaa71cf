"""What is behind a concept's curve: each condition left out, bits, and what a probe of this size can memorise."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.plots.look import BLUE, CHANCE, GREY, HUES, ORANGE, SYMBOLS, level_line, line, score_range
from neuronmap.abstraction.plots.plot_data import PlotData
from neuronmap.abstraction.plots.results import Named, curves_by_layer
from neuronmap.abstraction.record import ConceptResult, TrackingReport

__all__ = ["control_plot", "information_plot", "levels_plot"]


def levels_plot(report: TrackingReport, result: ConceptResult) -> PlotData | None:
    """Each level of the crossed nuisance, by probes that were trained on the others."""
    if result.cross is None:
        return None
    x = [float(layer) for layer in result.layers]
    lines: list[dict[str, Any]] = []
    named: Named = []
    for at, level in enumerate(result.cross.levels):
        name = level.level
        look: dict[str, Any] = {"symbol": SYMBOLS[at % len(SYMBOLS)], "legendgroup": name}
        hue = HUES[at % len(HUES)]
        lines.append(line(f"{name}: left out", x, level.score, hue, **look))
        lines.append(line(f"{name}: trained on it alone", x, level.alone, hue, dash="dot", **look))
        lines.append(line(f"{name}: trained on all", x, level.within, hue, dash="dash", visible="legendonly", **look))
        named += [(f"{name}, left out", level.score), (f"{name}, alone", level.alone), (f"{name}, all", level.within)]
    crossed = str(result.concept.get("crossed") or "the condition").replace("_", " ")
    about = (
        f"One hue for each level of {crossed}. Solid: probes trained on the other levels and tested on this one. "
        "Dotted: trained on this level alone. A solid line at chance (0.5) means that the code differs there; one "
        "far below chance, that the probes found something that goes against the label there."
    )
    yaxis = {"title": {"text": "AUC"}, "range": score_range(lines)}
    title = f"each level of {crossed} left out"
    return curves_by_layer(
        report, result, "levels", title, about, lines, named, yaxis, shapes=[level_line(CHANCE)], height=480
    )


def information_plot(report: TrackingReport, result: ConceptResult) -> PlotData:
    """Bits, which still differ where AUC is full."""
    x = [float(layer) for layer in result.layers]
    bits = line("usable information", x, result.within_bits, BLUE)
    about = (
        "Entropy of the labels minus the calibrated log-loss on the test split, in bits an item, within "
        "conditions. It still differs where AUC is 1 everywhere. Below 0 the probe is surer of itself than it may "
        "be."
    )
    named: Named = [
        ("within_bits", result.within_bits),
        ("within_balanced", result.within_balanced),
        ("calibration_error", result.calibration_error),
    ]
    yaxis = {"title": {"text": "bits an item"}}
    return curves_by_layer(
        report, result, "bits", "usable information", about, [bits], named, yaxis,
        shapes=[level_line(0.0)], height=340,
    )  # fmt: skip


def control_plot(report: TrackingReport, result: ConceptResult) -> PlotData | None:
    """The control task."""
    if result.control is None:
        return None
    control, x = result.control, [float(layer) for layer in result.layers]
    lines = [
        line("the concept, words shared", x, control.real, BLUE),
        line("random labels, words shared", x, control.shared, ORANGE, dash="dash", symbol="square"),
        line("random labels, words held out", x, control.heldout, GREY, dash="dot", symbol="diamond"),
    ]
    about = (
        "Control task of Hewitt and Liang (2019): every word type gets a random label. How well a probe learns "
        "those on words that it has seen says how much it can memorise; on held-out words it is chance by "
        f"construction. Selectivity is the concept minus random labels. Means over {control.labelings} labelings."
    )
    named: Named = [
        ("real", control.real),
        ("shared", control.shared),
        ("selectivity", control.selectivity),
        ("heldout", control.heldout),
    ]
    yaxis = {"title": {"text": "AUC"}, "range": score_range(lines)}
    return curves_by_layer(
        report, result, "control", "control task", about, lines, named, yaxis,
        shapes=[level_line(CHANCE)], height=380,
    )  # fmt: skip
