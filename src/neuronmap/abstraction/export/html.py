"""One self-contained page of a report: opens from a disk or an e-mail, no network, readable without scripts.

Plotly's script comes from the Python package and is written into the page (about 5 MB). Text, tables and the numbers of each plot need no
script. Colours follow the reader's light or dark preference.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files

from neuronmap.abstraction.export.words import (
    COMPLEXITY_ABOUT,
    COMPLEXITY_HEADS,
    FLOW_HEADS,
    PROMPT_HEADS,
    SUMMARY_HEADS,
    VERDICTS,
    complexity_cells,
    flow_cells,
    prompt_cells,
    summary_cells,
)
from neuronmap.abstraction.plots import (
    PlotData,
    complexity_plot,
    concept_plots,
    flow_plot,
    similarity_plots,
    trajectory_plots,
)
from neuronmap.abstraction.record import ConceptResult, TrackingReport

__all__ = ["report_html"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


def report_html(report: TrackingReport) -> str:
    """The page as one string of HTML."""
    name = str(report.model["name"])
    title = f"Abstraction report: {name}"
    seed = report.settings.get("seed")
    parts = [
        f"<h1>{_text(title)}</h1>",
        _facts(report),
        _list("Warnings", report.warnings),
        _contents(report),
        _summary(report),
        *(_concept(report, result) for result in report.concepts),
        _complexity(report),
    ]
    if report.similarity is not None:
        parts.append('<h2 id="layers">Layers beside each other</h2>')
        parts += [_plot(plot) for plot in similarity_plots(report.similarity, seed=seed, model=name)]
    if report.between is not None:
        parts.append(f'<h2 id="between">Layers of {_text(name)} and {_text(str(report.between.other_model))}</h2>')
        parts += [_plot(plot) for plot in similarity_plots(report.between, seed=seed, model=name)]
    parts += [_prompt(report, number) for number in range(len(report.trajectories))]
    if report.flow is not None:
        parts.append('<h2 id="flow">Features through the layers</h2>')
        parts.append(_table("Features of each kind, for each pair of neighbours", FLOW_HEADS, flow_cells(report.flow)))
        parts.append(_plot(flow_plot(report.flow, seed=seed)))
    parts.append(_settings(report))
    return _framed(title, "\n".join(part for part in parts if part))


def _framed(title: str, body: str) -> str:
    own = files("neuronmap.abstraction.export")
    style, script = ((own / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{_text(title)}</title>'
        f"<style>{style}</style></head>\n<body>\n<noscript><p class='warn'>Plots need JavaScript. Everything that "
        "they show is in the tables and in the numbers below "
        f"them.</p></noscript>\n{body}\n<script>{_script(plotly)}</script>\n<script>{script}</script>\n</body></html>\n"
    )


def _facts(report: TrackingReport) -> str:
    model = report.model
    facts = [
        ("model", " ".join(str(part) for part in (model.get("name"), model.get("revision")) if part)),
        ("architecture", f"{model.get('architecture')}, {report.blocks} blocks"),
        ("model digest", str(model.get("model_digest") or "not known")),
        (
            "measured",
            f"{report.created} by NeuronMap {report.code_version}, preset {report.preset}, seed "
            f"{report.settings.get('seed')}",
        ),
        ("layers", f"{len(report.layers)}: {', '.join(str(layer) for layer in report.layers)}; 0 is the embedding"),
        ("time", ", ".join(f"{part} {seconds:.0f} s" for part, seconds in report.seconds.items())),
    ]
    rows = "".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in facts)
    return f"<table>{rows}</table>"


def _contents(report: TrackingReport) -> str:
    links = [(_anchor(result), str(result.concept["title"])) for result in report.concepts]
    links += [("complexity", "Complexity")] if complexity_cells(report) else []
    links += [("layers", "Layers beside each other")] if report.similarity is not None else []
    if report.between is not None:
        links.append(("between", f"Layers of {report.model['name']} and {report.between.other_model}"))
    links += [(f"prompt-{at}", f"“{one.prompt}”") for at, one in enumerate(report.trajectories)]
    links += [("flow", "Features through the layers")] if report.flow is not None else []
    items = "".join(f'<li><a href="#{_text(to)}">{_text(name)}</a></li>' for to, name in links)
    return f"<nav aria-label='Contents'><ul>{items}</ul></nav>"


def _summary(report: TrackingReport) -> str:
    if not report.concepts:
        return ""
    verdicts = {result.summary.verdict for result in report.concepts}
    said = "; ".join(f"<b>{_text(verdict)}</b>: {_text(VERDICTS[verdict])}" for verdict in sorted(verdicts))
    caption = (
        "Layers with 95 % intervals (emergence 90 %); bits: the most usable information at any layer, within "
        "conditions. – is not established."
    )
    rows = [summary_cells(result) for result in report.concepts]
    return f"<h2>In short</h2>{_table(caption, SUMMARY_HEADS, rows)}<p class='soft'>{said}.</p>"


def _concept(report: TrackingReport, result: ConceptResult) -> str:
    concept = result.concept
    parts = [
        f'<h2 id="{_text(_anchor(result))}">{_text(str(concept["title"]))}</h2>',
        f"<p>{_text(str(concept['contrast']))} Read {_text(str(concept['read_rule']))}.</p>",
        f"<p><b>{_text(result.summary.verdict)}</b>: {_text(result.summary.statement)}</p>",
        _list("What to keep in mind", result.warnings),
        _examples(result),
        *(_plot(plot) for plot in concept_plots(report, str(concept["name"]))),
    ]
    return "\n".join(part for part in parts if part)


def _examples(result: ConceptResult) -> str:
    lines = []
    for example in result.examples:
        text, span = str(example.get("text", "")), example.get("span")
        marked = _text(text)
        if isinstance(span, list | tuple) and len(span) == 2:
            start, stop = int(span[0]), int(span[1])
            marked = f"{_text(text[:start])}<b>{_text(text[start:stop])}</b>{_text(text[stop:])}"
        lines.append(f"<p class='ex'>{marked} <span class='soft'>{_text(str(example.get('label', '')))}</span></p>")
    return (
        f"<details open><summary>Examples; the word that is read is marked</summary>{''.join(lines)}</details>"
        if lines
        else ""
    )


def _complexity(report: TrackingReport) -> str:
    rows = complexity_cells(report)
    if not rows:
        return ""
    caption = (
        "For this model and this data. Order is by half depth, then code length; nothing is summed up. Of the "
        f"columns, {COMPLEXITY_ABOUT}. – is not established or not measured."
    )
    return f'<h2 id="complexity">Complexity</h2>{_table(caption, COMPLEXITY_HEADS, rows, "short")}{_plot(complexity_plot(report))}'


def _prompt(report: TrackingReport, number: int) -> str:
    trajectory = report.trajectories[number]
    plots = "".join(_plot(plot) for plot in trajectory_plots(trajectory, report, number))
    head = f'<h2 id="prompt-{number}">Prompt: “{_text(trajectory.prompt)}”</h2>'
    caption = "Where each concept is strongest. Log-odds are calibrated on the concept's own examples."
    return f"{head}{_table(caption, PROMPT_HEADS, prompt_cells(trajectory))}{plots}"


def _settings(report: TrackingReport) -> str:
    shown = json.dumps({"settings": report.settings, "model": report.model}, indent=2, ensure_ascii=False)
    return f"<h2>Settings</h2><details><summary>Every setting, and the model's identity</summary><pre>{_text(shown)}</pre></details>"


def _plot(plot: PlotData) -> str:
    name = _text(plot.name)
    data = json.dumps(plot.figure, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    height = int(plot.figure["layout"].get("height", 420))
    return (
        f'<h3 id="plot-{name}">{_text(plot.title)}</h3><figure data-plot="{name}">'
        f'<div class="plot" style="min-height:{height}px" role="img" aria-label="{_text(plot.title)}"></div>'
        f'<script type="application/json">{data}</script><figcaption>{_text(plot.about)}</figcaption></figure>'
        f'<details data-csv="{name.replace(":", "-")}.csv"><summary>Numbers ({len(plot.rows):,} rows)</summary>'
        f"<pre>{_text(plot.csv())}</pre></details>"
    )


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return (
        f"<div class='warn'><p>{_text(title)}:</p><ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul></div>"
    )


def _anchor(result: ConceptResult) -> str:
    return f"concept-{result.concept['name']}"


def _script(source: str) -> str:
    """A script that can stand in a page: nothing in it ends the element."""
    return source.replace("</script", "<\\/script")


def _text(text: str) -> str:
    """Text for HTML, where NUL is not allowed."""
    return html.escape(text.replace("\x00", "\ufffd"))
