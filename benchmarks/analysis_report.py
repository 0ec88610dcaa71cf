"""From samples of the analysis benchmark to figures, and the figures as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis_cells import CONTEXT, LEAD_GOAL, MEMORY_GOAL_GIB, OURS, PASS_GOAL
from speed_report import figures, slope

Entry = dict[str, Any]


@dataclass(frozen=True)
class Whole:
    """An analysis of all features, from the samples of an entry.

    Attributes:
        rows: analysed.
        seconds: ours: of a whole token pass; the peer's: of a feature batch (median) times the number of batches.
        products: the same in encoder products over the same rows: each sample is divided by the median of the four products
            around it.
        low, high: quartiles of ``products`` (the range under four samples).
        product_s: an encoder product over all rows.
    """

    rows: int
    seconds: float
    products: float
    low: float
    high: float
    product_s: float

    @property
    def rate(self) -> float:
        """Tokens per second for all features."""
        return self.rows / self.seconds


def whole(entry: Entry) -> Whole | None:
    """Figures of an entry; None where it could not be measured."""
    if not entry["samples"] or not entry["described"].get("rows"):
        return None
    found = figures(entry["samples"])
    rows = int(entry["described"]["rows"])
    batches = entry["described"].get("batches", 1)
    pieces = rows / entry["cell"]["batch"]
    return Whole(
        rows=rows,
        seconds=found.step_s * batches,
        products=found.ratio * batches / pieces,
        low=found.low * batches / pieces,
        high=found.high * batches / pieces,
        product_s=found.gemm_s * pieces,
    )


def lead(ours: Whole, peer: Whole) -> float:
    """How many times as long the peer takes, in encoder products over its rows."""
    return peer.products / ours.products


def logit_share(entry: Entry) -> float | None:
    """Share of a peer's time that goes into what needs no tokens: the logits of each feature."""
    spent = (entry.get("parts") or {}).get("stopwatch")
    return spent["logits"] / spent["step"] if spent else None


def agreement(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """How many features have the same largest activation in both, within a ten-thousandth."""
    same = sum(abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-6) for a, b in zip(ours, peer, strict=True))
    return {
        "features": len(ours),
        "same": same,
        "silent": sum(a == 0 and b == 0 for a, b in zip(ours, peer, strict=True)),
    }


def rest_seconds(entry: Entry) -> float:
    """Of an analysis of ours beyond the pass: facts of the weights, and the feature store."""
    seconds: dict[str, float] = entry["described"].get("seconds", {})
    return seconds.get("weights", 0.0) + seconds.get("finish", 0.0)


def ours_of(entries: Iterable[Entry]) -> Entry | None:
    return next((entry for entry in entries if entry["cell"]["tool"] == OURS), None)


# --- tables -----------------------------------------------------------------------------------------------------------


def title(cell: dict[str, Any]) -> str:
    """What a group measures."""
    read = ", read by the peer as jumprelu" if cell["architecture"] == "batchtopk" else ""
    made = "" if cell["made"] == "trained" else ", features made from rows"
    return f"{cell['architecture']}, F={cell['features']:,}, {cell['contexts'] * CONTEXT:,} tokens{made}{read}"


def one_line(entries: list[Entry]) -> str:
    shown = []
    for entry in entries:
        found = whole(entry)
        shown.append(f"{entry['label']} " + (f"{found.rate:,.0f} tokens/s, {found.products:.2f} G" if found else "-"))
    return "; ".join(shown)


def markdown(record: dict[str, Any], plot: str | None) -> str:
    """The whole report."""
    machine = record["machine"]
    lines = [
        f"# Analysis of all features, {record['date']}"
        + (" (quick: small sizes, proves nothing)" if record["quick"] else ""),
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads for everybody, "
        f"{machine['memory_gib']:.0f} GiB; {machine['system']}; commit {record['commit']}.",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in record["versions"].items()) + ".",
        "",
        "One G is the encoder's product `torch.mm(x, W_enc, out=)` over all rows of the analysis, timed in the same process around "
        "every step. Ours is a whole token pass: rows read from the store, encoded, counted, states saved. The peer's is one "
        "feature batch after the other, each over all tokens, its model forward made free; its time for all features is the "
        "median batch times the number of batches. Medians [quartiles; range under 4 samples].",
        "",
    ]
    if not record["complete"]:
        lines += ["THE RUN WAS STOPPED: what is missing was not measured.", ""]
    for group in record["groups"]:
        lines += [*_group_table(group["cells"]), ""]
    lines += _parts(record["groups"]) + _everything(record["groups"]) + _store(record["groups"])
    lines += _memory(record["memory"]) + _growth(record["growth"], plot) + _million(record["million"])
    return "\n".join(lines).rstrip() + "\n"


def _group_table(entries: list[Entry]) -> list[str]:
    ours_entry = ours_of(entries)
    ours = whole(ours_entry) if ours_entry else None
    lines = [
        f"## {title(entries[0]['cell'])}",
        "",
        "| | G | goal | tokens/s | s for all features | measured | ours x | ours x, without its logits | KB a feature |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        found = whole(entry)
        if found is None:
            lines.append(f"| {entry['label']} | {entry['note']} | | | | | | | |")
            continue
        size = entry["described"]["bytes_a_feature"] / 1000
        if entry["cell"]["tool"] == OURS:
            verdict = f"{PASS_GOAL:g}: {'met' if found.products <= PASS_GOAL else 'MISSED'}"
            measured, times, without = f"{len(entry['samples'])} passes", "", ""
        else:
            verdict, share = "", logit_share(entry)
            described = entry["described"]
            done, batches = len(entry["samples"]), described["batches"]
            scaled = ", scaled up" if done < batches else ""
            measured = f"{done} of {batches} batches of {described['features_a_batch']}{scaled}"
            factor = lead(ours, found) if ours else None
            times = "" if factor is None else _lead_shown(factor)
            without = "" if factor is None or share is None else _lead_shown(factor * (1 - share))
        lines.append(
            f"| {entry['label']} | **{found.products:.2f}** [{found.low:.2f}, {found.high:.2f}] | {verdict} "
            f"| {found.rate:,.0f} | {found.seconds:,.1f} | {measured} | {times} | {without} | {size:,.1f} |"
        )
    for entry in entries:
        if "agreement" in entry:
            seen = entry["agreement"]
            lines += [
                "",
                f"{entry['label']}: largest activation the same as ours for {seen['same']:,} of {seen['features']:,} features"
                f" ({seen['silent']:,} silent in both).",
            ]
    return lines


def _lead_shown(times: float) -> str:
    return f"{times:.0f} (goal {LEAD_GOAL:g}: {'met' if times >= LEAD_GOAL else 'MISSED'})"


def _parts(groups: list[dict[str, Any]]) -> list[str]:
    lines = []
    for group in groups:
        for entry in group["cells"]:
            spent = (entry.get("parts") or {}).get("stopwatch")
            if spent:
                shown = ", ".join(
                    f"{name} {seconds / spent['step']:.0%}"
                    for name, seconds in spent.items()
                    if name not in ("G", "step")
                )
                lines.append(f"- {title(entry['cell'])}, {entry['label']}: {shown}")
    return ["## Where the time of a pass, or of a feature batch, goes", "", *lines, ""] if lines else []


def _everything(groups: list[dict[str, Any]]) -> list[str]:
    rows = []
    for group in groups:
        entry = ours_of(group["cells"])
        ours = whole(entry) if entry else None
        if entry is None or ours is None:
            continue
        seconds = entry["described"]["seconds"]
        total = ours.seconds + rest_seconds(entry)
        others = []
        for other in group["cells"]:
            found = whole(other)
            if other is not entry and found is not None:
                writing = other["described"]["write_s_a_batch"] * other["described"]["batches"]
                others.append(
                    f"{other['label']} {found.seconds:,.0f} s, {found.seconds / total:.1f} times ours ({writing:,.0f} s more for its files)"
                )
        rows.append(
            f"| {title(entry['cell'])} | {ours.seconds:,.1f} | {seconds['weights']:,.1f} | {seconds['finish']:,.1f} "
            f"| {total:,.1f} | {'; '.join(others)} |"
        )
    if not rows:
        return []
    head = "| | token pass s | weights s | store s | together s | peer |"
    about = (
        "Weights (norms, neighbours over the whole dictionary, logit lens) and the store cost the same for any number of tokens "
        "but for what is counted on a bounded sample; they weigh less the more tokens there are."
    )
    return ["## The whole analysis", "", about, "", head, "| --- | --- | --- | --- | --- | --- |", *rows, ""]


def _store(groups: list[dict[str, Any]]) -> list[str]:
    lines = []
    for group in groups:
        entry = ours_of(group["cells"])
        files = entry["described"].get("files", {}) if entry else {}
        if entry and files:
            features = entry["cell"]["features"]
            shown = ", ".join(
                f"{name} {size / features:,.0f}" for name, size in sorted(files.items(), key=lambda f: -f[1])
            )
            lines.append(f"- {title(entry['cell'])}: {shown}")
    if not lines:
        return []
    about = (
        "Bytes of each file over F. Tokens, vocabulary and documents are stored once and belong to the text; "
        "'KB a feature' above leaves them out."
    )
    return ["## What the store is made of", "", about, "", *lines, ""]


def _memory(entries: list[Entry]) -> list[str]:
    if not entries:
        return []
    lines = [
        "## Peak memory over the loaded rows",
        "",
        "Fresh process each. Of a whole pass of ours, of one feature batch of the peer. Anonymous memory leaves out pages of "
        "mapped files (our activation store), which the system takes back when it needs them.",
        "",
        "| | | peak MiB | anonymous MiB | before the first step | while writing, anonymous |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        found, name = entry["found"], title(entry["cell"])
        if "over_data" not in found:
            lines.append(f"| {name} | {entry['label']} | {entry['note']} | | | |")
            continue
        columns = (found[key] / 2**20 for key in ("over_data", "anonymous", "built", "writing_anonymous"))
        marked = "" if found["peak_reset"] else " (with imports)"
        lines.append(
            f"| {name} | {entry['label']}{marked} | " + " | ".join(f"{value:,.0f}" for value in columns) + " |"
        )
    points = memory_points(entries)
    if len(points) >= 2:
        xs, ys = zip(*points, strict=True)
        line = statistics.linear_regression(xs, ys)
        million = line.slope * 2**20 + line.intercept
        lines += [
            "",
            f"Straight line through ours made from rows: {line.slope / 1000:.1f} KB a feature (weights and state) over "
            f"{line.intercept / 2**20:,.0f} MiB; for 1,048,576 features that is {million / 2**30:.1f} GiB "
            f"(goal {MEMORY_GOAL_GIB:g}: {'met' if million <= MEMORY_GOAL_GIB * 2**30 else 'MISSED'}).",
        ]
    return [*lines, ""]


def memory_points(entries: list[Entry]) -> list[tuple[int, float]]:
    """(F, anonymous bytes of the pass) of ours on features made from rows."""
    return [
        (entry["cell"]["features"], float(entry["found"]["anonymous"]))
        for entry in entries
        if entry["cell"]["tool"] == OURS and entry["cell"]["made"] == "rows" and "anonymous" in entry["found"]
    ]


def growth_points(name: str, groups: list[dict[str, Any]], tool: str) -> list[tuple[int, Whole, Entry]]:
    """(F or tokens, figures, entry) of one tool, in the order measured."""
    found = []
    for group in groups:
        for entry in group["cells"]:
            figure = whole(entry)
            if entry["cell"]["tool"] == tool and figure is not None:
                x = entry["cell"]["features"] if name == "F" else entry["cell"]["contexts"] * CONTEXT
                found.append((x, figure, entry))
    return found


def _growth(series: dict[str, list[dict[str, Any]]], plot: str | None) -> list[str]:
    lines: list[str] = []
    for name, groups in series.items():
        points = growth_points(name, groups, OURS)
        if not points:
            continue
        _, _, first = points[0]
        fixed = f"{first['cell']['contexts'] * CONTEXT:,} tokens" if name == "F" else f"F={first['cell']['features']:,}"
        lines += [
            f"### With {name} ({fixed})",
            "",
            f"| {name} | pass s | G | tokens/s | weights s | store s | KB a feature | peer s for all features | ours x |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        peers = {x: found for x, found, _ in growth_points(name, groups, "sae_dashboard")}
        for x, found, entry in points:
            seconds, peer = entry["described"]["seconds"], peers.get(x)
            beside = f"{peer.seconds:,.0f} | {lead(found, peer):.0f}" if peer else " | "
            lines.append(
                f"| {x:,} | {found.seconds:.2f} | {found.products:.2f} | {found.rate:,.0f} | {seconds['weights']:.1f} "
                f"| {seconds['finish']:.1f} | {entry['described']['bytes_a_feature'] / 1000:.1f} | {beside} |"
            )
        lines += ["", *_slopes(name, points, peers), ""]
    if not lines:
        return []
    picture = [f"![Growth with F and with tokens, both axes logarithmic]({plot})", ""] if plot else []
    return ["## Growth", "", *picture, *lines]


def _slopes(name: str, points: list[tuple[int, Whole, Entry]], peers: dict[int, Whole]) -> list[str]:
    if len(points) < 2:
        return []
    xs = [x for x, _, _ in points]
    shown = [
        f"pass {slope(xs, [found.seconds for _, found, _ in points]):.2f}",
        f"encoder product {slope(xs, [found.product_s for _, found, _ in points]):.2f}",
        f"pass in G {slope(xs, [found.products for _, found, _ in points]):+.2f}",
    ]
    shown += [
        f"{shown_as} {slope(xs, [entry['described']['seconds'][part] for _, _, entry in points]):.2f}"
        for part, shown_as in (("weights", "weights"), ("finish", "store"))
    ]
    if len(peers) >= 2:
        shown.append(f"peer {slope(list(peers), [found.seconds for found in peers.values()]):.2f}")
    lines = [f"Slopes in log-log over {name}: " + ", ".join(shown) + "."]
    if name == "tokens":
        line = statistics.linear_regression(xs, [found.seconds for _, found, _ in points])
        lines.append(f"Straight line through the passes: {line.intercept:.2f} s and {line.slope * 1e6:.1f} µs a token.")
    return lines


def _million(entry: Entry | None) -> list[str]:
    if entry is None:
        return []
    cell, found = entry["cell"], entry["found"]
    head = [f"## A million features: {title(cell)}", ""]
    if "over_data" not in found:
        return [*head, entry["note"], ""]
    gib = found["anonymous"] / 2**30
    rows = found["described"].get("rows", 0)
    weights = found["built"] / 2**30
    state = found["described"].get("state_bytes_a_feature", 0) * cell["features"] / 2**30
    verdict = "met" if max(gib, weights + state) <= MEMORY_GOAL_GIB else "MISSED"
    return [
        *head,
        f"The pass took {found['steps_s']:,.0f} s ({rows / found['steps_s']:,.0f} tokens/s) and {gib:.1f} GiB of anonymous memory "
        f"at its peak, {weights:.1f} of them weights. So few tokens touch only part of the state, all of which is {state:.1f} GiB: "
        f"{weights + state:.1f} GiB with the weights (goal {MEMORY_GOAL_GIB:g}: {verdict}).",
        "",
    ]
