"""The sheet for people: tables of what there is, each figure with the seeds that it rests on, and what was not run."""

from __future__ import annotations

from typing import Any

from quality_cells import ARCHITECTURES, LIBRARIES, OURS, PILOT_L0
from quality_peers import lines as peers_alone
from quality_record import (
    Place,
    base_variant,
    best_of,
    best_place,
    cells_of,
    default_place,
    pilots,
    settings_shown,
)

COLUMNS = (
    ("explained_variance", "EV", 4),
    ("ce_recovered_mean", "CE recovered, mean", 4),
    ("ce_recovered_zero", "CE recovered, zero", 4),
    ("dead", "dead", 3),
    ("auc_1", "AUC, k = 1", 3),
    ("auc_5", "AUC, k = 5", 3),
)
"""Figure, its title, decimals; ``dead`` is 1 - ``fraction_alive``."""
COMPARED = (("explained_variance", "EV", 4), ("ce_recovered_mean", "CE recovered", 4), ("auc_5", "AUC, k = 5", 3))
NOT_RUN = "not run"


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``12 min``, ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def markdown(record: dict[str, Any]) -> str:
    """The sheet as a file of its own."""
    return "\n".join([f"# Side by side, {record['date']}", "", *sheet(record, "##")]).rstrip() + "\n"


def sheet(record: dict[str, Any], heading: str, pictures: dict[int, str] | None = None) -> list[str]:
    """All sections.

    Args:
        record: see ``quality_record``.
        heading: marks of the highest heading used.
        pictures: path of the plot of each width.
    """
    lines = [*introduction(record), ""]
    for features in record["grid"]["widths"]:
        if not any(run["run"]["features"] == features for run in record["runs"]):
            lines += [f"{heading} {features:,} features", "", f"{NOT_RUN.capitalize()}.", ""]
            continue
        lines += [f"{heading} {features:,} features", ""]
        if pictures and features in pictures:
            lines += [f"![Pareto plots at {features:,} features]({pictures[features]})", ""]
        lines += [*peers_alone(record, features), "", *differences(record, features), ""]
        for architecture in ARCHITECTURES:
            lines += [
                f"{heading}# {architecture}, {features:,} features",
                "",
                *table(record, architecture, features),
                "",
            ]
        lines += [f"{heading}# Settings tried, {features:,} features", "", *pilot_table(record, features), ""]
    return lines


def introduction(record: dict[str, Any]) -> list[str]:
    """What was done, on what, and how much of it."""
    data, budget, protocol = record["data"], record["budget"], record["protocol"]
    visits = budget["steps"] * budget["batch_rows"]
    done, wanted = cells_of(record)
    seeds = len(record["grid"]["seeds"])
    lines = [
        f"{data['model']} block {data['layer']}, residual stream over {data['corpus']}: {data['parts']['train']:,} rows, the same for "
        f"everybody and in the same order; {budget['steps']} steps of {budget['batch_rows']:,} rows ({visits:,} visits). These are short "
        "runs: what a library does in the first few hundred steps, not what it reaches in the end.",
        "",
        f"**{done} of {wanted} cells are finished**; the others are shown as {NOT_RUN}. Every figure is a mean over the seeds whose "
        f"number stands beside it (of {seeds}); behind it in brackets the lowest and the highest seed. Bands in plots are the same range. "
        "Two L0 measured: figures are at the wanted L0, linear in its logarithm, between runs at these. "
        "A star: no run lies on the other side of the wanted L0, so the figure is that of the nearest run.",
        "",
        f"EV: explained variance of {data['parts']['heldout']:,} held-out rows, one meter, raw activations, inference rules. CE recovered: "
        f"share of the loss that an ablation adds which the reconstruction saves, against the mean of the training rows and against zero, "
        f"on {protocol['ce_tokens']:,} held-out tokens ({_reference(record)}). Dead: share of features that fire on none of the held-out "
        f"rows. AUC: logistic probes on the k most telling features, mean over the binary concepts of NeuronMap's probing suite "
        f"({protocol['items']} items each, the same for all).",
        "",
        "`default` is a library's own settings. `matched` (peers) has NeuronMap's learning rate and warm-up for this run, and a tenth of "
        "it as the window after which a feature is dead. NeuronMap's default is a fortieth (what that changes: docs/experiments.md). "
        f"`x0.5` and `x2` half and twice that rate. All are tried at L0 {PILOT_L0} on the first seed, and the one with the "
        "highest EV there is run at the other L0. A library's **best** settings at an L0 are those with the highest EV there on the first "
        "seed, of all that were run; the sheet shows best and default.",
        "",
        "Machines:",
    ]
    for name, facts in record["machines"].items():
        count = sum(run["machine"] == name for run in record["runs"])
        lines.append(f"- {name} ({facts['system']}, {facts['device']}): {count} runs, {_versions(record, name)}")
    return lines


def _reference(record: dict[str, Any]) -> str:
    shown = []
    for facts in record["machines"].values():
        reference = facts["reference"]
        losses = ", ".join(f"{name} {value:.3f}" for name, value in reference["loss"].items())
        shown.append(
            f"{reference['scored_tokens']:,} scored in {reference['contexts']} contexts; loss in nats: {losses}; dense probes "
            f"{reference['dense_auc_mean']:.3f}"
        )
    return " / ".join(dict.fromkeys(shown))


def _versions(record: dict[str, Any], machine: str) -> str:
    found: dict[str, str] = {}
    for run in record["runs"]:
        if run["machine"] == machine:
            found |= run["versions"]
    return ", ".join(f"{name} {value}" for name, value in sorted(found.items()))


def table(record: dict[str, Any], architecture: str, features: int) -> list[str]:
    """One architecture at all L0: best and default settings of every library."""
    lines = [
        "| L0 | library | settings | seeds | L0 measured | " + " | ".join(title for _, title, _ in COLUMNS) + " |",
        "| --- | --- | --- | --- | --- |" + " --- |" * len(COLUMNS),
    ]
    for l0 in sorted(record["grid"]["l0s"]):
        for library in LIBRARIES:
            best = best_place(record, library, architecture, features, l0)
            lines.append(_row(best, "best: " if best.variant != "default" else "best and default: "))
            if best.variant != "default":
                lines.append(_row(default_place(record, library, architecture, features, l0), ""))
    return lines


def _row(place: Place, words: str) -> str:
    head = f"| {place.l0} | {place.library} | {words}{place.variant} "
    if place.empty:
        return head + "| 0 |" + f" {NOT_RUN} |" * (len(COLUMNS) + 1)
    star = "" if place.fair else " *"
    shown = " | ".join(shown_with_span(place, name, places) for name, _, places in COLUMNS)
    l0 = shown_with_span(place, "l0", 1) if place.around is None else "{:.1f} and {:.1f}".format(*place.around)
    return head + f"| {len(place.seeds)} | {l0}{star} | {shown} |"


def shown_with_span(place: Place, name: str, places: int) -> str:
    """Mean, and the lowest and highest seed where there are several."""
    values = place.values.get("fraction_alive" if name == "dead" else name, [])
    if not values:
        return "–"
    values = [1 - value for value in values] if name == "dead" else values
    mean = f"{sum(values) / len(values):.{places}f}"
    return mean if len(values) < 2 else f"{mean} [{min(values):.{places}f}, {max(values):.{places}f}]"


def differences(record: dict[str, Any], features: int) -> list[str]:
    """Ours minus the best peer, each with its best settings, for every figure by itself."""
    lines = [
        "NeuronMap minus the peer that is best in that figure, best settings of each (seeds of ours / of the peer). The best of two is "
        "the larger of two noisy figures: equals would be behind in more than half of the places.",
        "",
        "| architecture | L0 | " + " | ".join(title for _, title, _ in COMPARED) + " |",
        "| --- | --- |" + " --- |" * len(COMPARED),
    ]
    for architecture in ARCHITECTURES:
        for l0 in sorted(record["grid"]["l0s"]):
            ours = best_place(record, OURS, architecture, features, l0)
            peers = [best_place(record, library, architecture, features, l0) for library in LIBRARIES[1:]]
            shown = " | ".join(difference(ours, peers, name, places) for name, _, places in COMPARED)
            lines.append(f"| {architecture} | {l0} | {shown} |")
    return lines


def difference(ours: Place, peers: list[Place], name: str, places: int) -> str:
    """Of one figure; ``not run`` without both sides."""
    own = ours.mean(name)
    found = [(value, peer) for peer in peers if (value := peer.mean(name)) is not None]
    if own is None or not found:
        return NOT_RUN
    value, peer = max(found, key=lambda pair: pair[0])
    star = "" if ours.fair and peer.fair else " *"
    seeds = f"{len(ours.values[name])} / {len(peer.values[name])}"
    return f"{own - value:+.{places}f} ({peer.library}, {seeds}){star}"


def pilot_table(record: dict[str, Any], features: int) -> list[str]:
    """What each setting gave at one L0 on the first seed, with its learning rate."""
    lines = [
        f"Explained variance at L0 {PILOT_L0}, first seed, and the learning rate. The best is bold.",
        "",
        "| architecture | library | default | matched | x0.5 | x2 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for architecture in ARCHITECTURES:
        for library in LIBRARIES:
            found = pilots(record, library, architecture, features)
            best = best_of(record, library, architecture, features)
            cells = []
            for variant in ("default", "matched", "x0.5", "x2"):
                if variant not in found:
                    cells.append("as default" if variant == "matched" and base_variant(library) == "default" else "–")
                    continue
                value = found[variant].mean("explained_variance")
                if value is None:
                    cells.append(NOT_RUN)
                    continue
                rate = settings_shown(record, library, architecture, variant, features)["learning_rate"]
                words = f"{value:.4f}" + ("" if found[variant].fair else " *")
                cells.append(f"{'**' + words + '**' if variant == best else words} at {rate:.2g}")
            lines.append(f"| {architecture} | {library} | " + " | ".join(cells) + " |")
    return lines
