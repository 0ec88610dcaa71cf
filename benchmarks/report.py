"""The page docs/quality.md and its plots, from the newest results of ground_truth.py and quality.py.

    make report                            # or: python benchmarks/report.py
    python benchmarks/report.py --check    # writes nothing; exit code 1 where the page is not what the files give

reads ``benchmarks/results/ground-truth-<preset>-<date>.json`` and ``l0-sweep-<preset>-<date>.json`` (the newest of each preset) and
``quality-<date>.json`` (the newest in which peers took part), and measures nothing itself. What a table does not hold was not measured.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from defaults_report import draw
from defaults_report import lines as defaults_lines
from ground_truth_plot import PLOTTED, Point, curves, save_sweep
from neuronmap.evaluation.synthetic import GroundTruth
from quality_plot import save_plots
from quality_report import sheet

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
PAGE, PLOTS = DOCS / "quality.md", DOCS / "images" / "quality"
FIGURES = (
    ("f1_latent_mean", "F1"),
    ("f1", "F1, one to one"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("cosine", "signed cosine"),
    ("recovered", "recovered at 0.9"),
    ("mmcs_truth", "MMCS of truths"),
    ("mmcs_latent", "MMCS of latents"),
    ("absorption_rate", "absorbed"),
    ("amplitude_r2", "amplitude R²"),
    ("explained_variance", "EV"),
    ("l0", "L0"),
)
LIBRARIES = {"neuronmap": "tab:blue", "saelens": "tab:orange", "dictionary_learning": "tab:green"}


class Figure(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of the seeds.
        spread: standard deviation over seeds; the standard error of the one seed there is.
        values: one for each seed.
    """

    mean: float
    spread: float | None
    values: list[float]

    def shown(self, places: int) -> str:
        return f"{self.mean:.{places}f}" + ("" if self.spread is None else f" ± {self.spread:.{places}f}")


_SETTINGS = ("synthetic", "latents", "rows", "measure_rows", "batch")
"""What two ground-truth records must have in common to stand in one table."""
_DATED = re.compile(r" \((\d{4}-\d\d-\d\d)\)$")


def newest(pattern: str, wanted: str | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """File name and content of the newest results of each kind, by what comes before the date.

    Args:
        pattern: of the file names.
        wanted: a word that the content must hold.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in sorted(RESULTS.glob(pattern), key=lambda file: file.stem[-10:]):
        text = file.read_text(encoding="utf-8")
        if "-quick" not in file.stem and (wanted is None or wanted in text):
            found[re.sub(r"-\d{4}-\d\d-\d\d$", "", file.stem)] = (file.name, json.loads(text))
    return found


def with_earlier(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A ground-truth record with the recipes that only an earlier one of equal settings has; their labels tell its date."""
    runs, have = list(record["runs"]), {run["recipe"] for run in record["runs"]}
    for file in sorted(RESULTS.glob(re.sub(r"\d{4}-\d\d-\d\d\.json$", "*.json", name)), reverse=True):
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.name < name and "-quick" not in file.stem else {}
        if earlier and all(earlier[one] == record[one] for one in _SETTINGS):
            more = [run for run in earlier["runs"] if run["recipe"] not in have]
            runs += [{**run, "setting": f"{run['setting']} ({earlier['date']})"} for run in more]
            have |= {run["recipe"] for run in more}
    return {**record, "runs": runs}


def figure(truths: list[dict[str, Any]], name: str) -> Figure | None:
    """One figure of several seeds' records; None where it is undefined."""
    rows = [row for truth in truths for row in GroundTruth.from_dict(truth).rows() if row.name == name]
    values = [row.value for row in rows if row.value is not None]
    if not values:
        return None
    return Figure(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else rows[0].error, values)


def groups_of(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Recipe and sparsity -> the records of its seeds, best F1 first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        groups.setdefault(f"{run['recipe']}; {run['setting']}", []).append(run["truth"])

    def f1(name: str) -> float:
        found = figure(groups[name], "f1_latent_mean")
        return -1.0 if found is None else found.mean

    return {name: groups[name] for name in sorted(groups, key=f1, reverse=True)}


def truth_section(name: str, record: dict[str, Any], plots: Path) -> list[str]:
    """Text, table and picture of one synthetic model."""
    synthetic, facts, baselines = record["synthetic"], record["facts"], record["baselines"]
    probes, groups = baselines["probes_f1"], groups_of(record)
    seeds = " or ".join(str(count) for count in sorted({len(truths) for truths in groups.values()}))
    lines = [
        f"### {synthetic['name']}",
        "",
        f"{synthetic['features']:,} true features in {synthetic['d_in']} dimensions, {facts['l0']:.1f} of them in a row; interference "
        f"sqrt(L0 / d) {facts['interference']:.2f}, mean largest cosine with another {facts['mean_max_overlap']:.2f}. "
        f"{record['latents']:,} latents, {record['rows']:,} rows in steps of {record['batch']:,}; measured on {record['measure_rows']:,} "
        f"others. {seeds} seed(s), with a date where a row is from an earlier file; ± is the standard deviation over seeds (of one seed, "
        "the error by resampling). Logistic probes trained "
        f"on the truth reach F1 {probes['value']:.3f} [{probes['low']:.3f}, {probes['high']:.3f}] on {probes['count']} drawn "
        f"from all features; {_among_frequent(baselines)} `oracle` has all {synthetic['features']:,} true directions with a linear "
        "encoder, so it reads rare features too, which its F1 is a mean over. "
        f"{_most_recovered(record)}"
        f"File: `benchmarks/results/{name}`.",
        "",
        "| | " + " | ".join(title for _, title in FIGURES) + " |",
        "| --- |" + " --- |" * len(FIGURES),
        *(row(label, [truth]) for label, truth in baselines["measured"].items()),
        *(row(f"**{label}**", truths) for label, truths in groups.items()),
        "",
    ]
    picture = f"ground-truth-{synthetic['name']}.svg"
    draw_truth(groups, baselines.get("probes_frequent_f1") or probes, plots / picture)
    return [*lines, f"![F1 by recipe, with the probes' F1 as a line](images/quality/{picture})", ""]


def sweep_section(name: str, record: dict[str, Any], plots: Path) -> list[str]:
    """Picture and table of one L0 sweep."""
    synthetic = record["synthetic"]
    picture = f"l0-sweep-{synthetic['name']}.svg"
    save_sweep(record, plots / picture)
    by_figure = {figure: curves(record, figure) for figure, _ in PLOTTED}
    lines = [
        f"### {synthetic['name']}, L0 swept",
        "",
        f"{record['latents']:,} latents, {record['rows']:,} rows in steps of {record['batch']:,}, fewer than above; measured on "
        f"{record['measure_rows']:,} others. Means over seeds, in brackets the lowest and highest; the dashed line is the true L0 "
        f"({record['facts']['l0']:.1f}), the grey band what probes reach. File: `benchmarks/results/{name}`{_from_earlier(record)}.",
        "",
        f"![Figures against L0](images/quality/{picture})",
        "",
        "| recipe | L0 | " + " | ".join(title for _, title in PLOTTED) + " |",
        "| --- | --- |" + " --- |" * len(PLOTTED),
    ]
    for recipe, points in by_figure[PLOTTED[0][0]].items():
        for at, point in enumerate(points):
            cells = []
            for figure, _ in PLOTTED:
                some = by_figure[figure].get(recipe, [])
                cells.append(_span(some[at]) if len(some) == len(points) else "–")
            lines.append(f"| {recipe} | {point.l0:.1f} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _from_earlier(record: dict[str, Any]) -> str:
    """The recipes of a sweep that :func:`with_earlier` added."""
    added: dict[str, set[str]] = {}
    for run in record["runs"]:
        if (dated := _DATED.search(run["setting"])) is not None:
            added.setdefault(dated.group(1), set()).add(run["recipe"])
    return "".join(f"; {', '.join(sorted(recipes))} of {date}" for date, recipes in sorted(added.items()))


def _span(point: Point) -> str:
    return f"{point.mean:.3f}" + (f" ({point.low:.3f} to {point.high:.3f})" if point.seeds > 1 else "")


def _most_recovered(record: dict[str, Any]) -> str:
    """What the share of recovered truths can be at most, where there are fewer latents."""
    most = record["latents"] / record["synthetic"]["features"]
    return f"At most {most:.2f} of the truths can be recovered by so few latents. " if most < 1 else ""


def _among_frequent(baselines: dict[str, Any]) -> str:
    """The ceiling that an SAE with fewer latents than truths is held to."""
    frequent = baselines.get("probes_frequent_f1")
    if frequent is None:
        return "an SAE with fewer latents keeps the frequent ones, on which probes do better (docs/experiments.md): its ceiling is higher."
    return (
        f"among as many of the most frequent as there are latents, {frequent['value']:.3f} "
        f"[{frequent['low']:.3f}, {frequent['high']:.3f}], which is the SAEs' ceiling."
    )


def row(label: str, truths: list[dict[str, Any]]) -> str:
    found = [(figure(truths, name), 1 if name == "l0" else 3) for name, _ in FIGURES]
    return f"| {label} | " + " | ".join("–" if one is None else one.shown(places) for one, places in found) + " |"


def draw_truth(groups: dict[str, list[dict[str, Any]]], probes: dict[str, Any], file: Path) -> None:
    """Bars of F1 with every seed as a point; the line is what probes reach where an SAE's latents could be."""
    from matplotlib import pyplot

    found = {name: one for name, truths in groups.items() if (one := figure(truths, "f1_latent_mean")) is not None}
    drawn, axis = pyplot.subplots(figsize=(8, 0.45 * len(found) + 1.2), layout="constrained")
    for place, one in enumerate(reversed(found.values())):
        axis.barh(place, one.mean, color="tab:blue", alpha=0.6)
        axis.plot(one.values, [place] * len(one.values), "k.", markersize=4)
    axis.axvspan(probes["low"], probes["high"], color="tab:gray", alpha=0.3)
    axis.axvline(probes["value"], color="tab:gray", label="logistic probes")
    axis.set_yticks(range(len(found)), list(reversed(found)))
    axis.set_xlim(0, 1)
    axis.set_xlabel("F1, mean over latents; points are seeds")
    axis.legend(loc="lower left", fontsize="small")
    save(drawn, file)


def run_lines(lines: list[str]) -> list[str]:
    """A sheet without the rows of which nothing was run; a table of such rows alone goes with its heading. The file has them all."""
    kept = [line for line in lines if not (line.startswith("| ") and line.count("not run") >= 3)]
    text = "\n".join(kept)
    empty = r"(?m)^(#{3,6} [^\n]*\n\n)?\|[^\n]*\|\n\|(?: ?-+:? ?\|)+\n(?!\|)"
    return [*re.sub(empty, "", text).split("\n"), "", "Rows of which nothing was run yet are left out here.", ""]


def peers_section(name: str, record: dict[str, Any], plots: Path) -> list[str]:
    """The newest side by side on a real model."""
    budget, data = record["budget"], record["data"]
    lines = [
        f"{data['model']} block {data['layer']}, residual stream over {data['corpus']}: {budget['d_sae']:,} features at L0 "
        f"{budget['k']}, {budget['steps']} steps of {budget['batch_rows']:,} rows, the same for all; {data['parts']['heldout']:,} "
        "held-out rows, one meter. `default` is a library's own settings, `matched` a peer's method with our learning rate, "
        "warm-up and dead window (`benchmarks/quality_cells.py`); where only `matched` stands, the peer's own settings were not "
        "run in this sheet. Our defaults were tuned on rows of this model and text (docs/experiments.md, 2026-11-24), which favours "
        f"us. File: `benchmarks/results/{name}`.",
        "",
        "| architecture | library | settings | explained variance | by seed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in record["methods"]:
        values = [seed["at_common_l0"]["explained_variance"] for seed in method["seeds"].values()]
        spread = statistics.stdev(values) if len(values) > 1 else None
        shown = Figure(statistics.fmean(values), spread, values).shown(4)
        each = ", ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {method['architecture']} | {method['library']} | {method['variant']} | {shown} | {each} |")
    draw_peers(record["methods"], plots / "side-by-side.svg")
    return [*lines, "", "![Explained variance by library](images/quality/side-by-side.svg)", ""]


def draw_peers(methods: list[dict[str, Any]], file: Path) -> None:
    """Every seed of every library, by architecture."""
    from matplotlib import pyplot

    architectures = list(dict.fromkeys(method["architecture"] for method in methods))
    drawn, axis = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    for method in methods:
        values = [seed["at_common_l0"]["explained_variance"] for seed in method["seeds"].values()]
        libraries = list(LIBRARIES)
        x = architectures.index(method["architecture"]) + 0.22 * (libraries.index(method["library"]) - 1)
        colour = LIBRARIES[method["library"]]
        axis.plot([x] * len(values), values, "o", color=colour, alpha=0.8)
    for library, colour in LIBRARIES.items():
        axis.plot([], [], "o", color=colour, label=library)
    axis.set_xticks(range(len(architectures)), architectures)
    axis.set_ylabel("explained variance; points are seeds")
    axis.grid(True, axis="y", alpha=0.25)
    axis.legend(fontsize="small")
    save(drawn, file)


def save(drawn: Any, file: Path) -> None:
    from matplotlib import pyplot

    file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(file, metadata={"Date": None})
    pyplot.close(drawn)


def page(plots: Path = PLOTS) -> str:
    """The whole page, its pictures written into a folder."""
    lines = [
        "# Quality",
        "",
        "What SAEs trained by NeuronMap are worth: on data whose features are known, and beside SAEs of other libraries. Made by "
        "`make report` from the files that it names; nothing here is written by hand but the words. [Metrics](explanation/metrics.md) "
        "defines the figures, [experiments](experiments.md) keeps what did not help.",
        "",
        "## Against a known truth",
        "",
        "Rows are sums of known directions (`neuronmap.evaluation.synthetic`, after SynthSAEBench, arXiv 2602.14687). F1 is that of the "
        "benchmark (mean over latents, each with the truth it is nearest to); one to one, a truth has at most one latent, and signs count. "
        "Amplitude R² is a mean over truths, which one latent that is almost always on, matched to a rare truth, can pull below zero "
        "(gated does this). F1 asks whether a latent fires where its truth does; signed cosine (of the pairs) and MMCS (of each "
        "truth, or each latent, with the nearest on the other side) whether it points there. Recovered at 0.9: truths whose latent "
        "has that cosine.",
        "",
    ]
    for name, record in newest("ground-truth-*.json").values():
        lines += truth_section(name, with_earlier(name, record), plots)
    for name, record in newest("l0-sweep-*.json").values():
        lines += sweep_section(name, with_earlier(name, record), plots)
    lines += ["## Side by side", ""]
    for name, record in newest("quality-sheet-*.json").values():
        pictures = {width: f"images/quality/{file.name}" for width, file in save_plots(record, plots, "pareto").items()}
        lines += [*run_lines(sheet(record, "###", pictures)), f"File: `benchmarks/results/{name}`.", ""]
    lines += ["### Before the sheet: one width, one L0", ""]
    for name, record in newest("quality-2*.json", '"library": "saelens"').values():
        lines += peers_section(name, record, plots)
    for name, record in newest("defaults-*.json").values():
        save(draw(record), plots / "defaults.svg")
        lines += [
            "## Defaults",
            "",
            *defaults_lines(record),
            "![Differences from the defaults](images/quality/defaults.svg)",
            "",
        ]
        lines += [f"File: `benchmarks/results/{name}`.", ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    import matplotlib

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether the page is what the files give"
    )
    given = parser.parse_args()
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "neuronmap"
    if given.check:
        with tempfile.TemporaryDirectory() as plots:
            same = page(Path(plots)) == PAGE.read_text(encoding="utf-8")
        print(f"{PAGE.relative_to(ROOT)}: " + ("as the files give it" if same else "out of date; run: make report"))
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
