"""Tables of ``labels.py``."""

from __future__ import annotations

from typing import Any

__all__ = ["report"]

BESIDE = ("shuffled", "rule", "prediction")


def report(found: dict[str, Any], picture: str) -> str:
    """The page."""
    lines = [
        "# Labels",
        "",
        f"{found['date']}. SAE `{found['sae']}` ({found['features']:,} features), analysed on {found['tokens']:,} tokens; split by "
        f"{found['split']}. By `benchmarks/labels.py`.",
        "",
    ]
    for part, made in (("hints", _hints), ("explain", _explained), ("cost", _cost)):
        if part in found:
            lines += made(found[part], picture)
    return "\n".join(lines).rstrip() + "\n"


def _hints(found: dict[str, Any], picture: str) -> list[str]:
    shares = ("features", "mean", "10%", "25%", "50%", "75%", "90%")
    lines = [
        "## Rule hints on held-out documents",
        "",
        f"{found['alive']:,} features are alive; {found['with a label']:,} have a rule good enough for a label. A feature without a rule "
        "counts as 0 in the rows of all that are alive.",
        "",
        "| figure | of | features | mean | 10 % | 25 % | median | 75 % | 90 % |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, groups in found["figures"].items():
        lines += [
            f"| {name} | {group} | " + " | ".join(_number(row.get(share)) for share in shares) + " |"
            for group, row in groups.items()
        ]
    classes = ", ".join(f"{name} {number:,}" for name, number in found["classes"].items())
    return [*lines, "", f"Classes: {classes}.", "", f"![Precision and recall of the rules]({picture})", ""]


def _explained(found: dict[str, Any], _: str) -> list[str]:
    seconds = found["seconds"]
    lines = [
        "## Labels by a small model on this machine",
        "",
        f"{found['features']} alive features drawn with seed {found['seed']}; SmolLM2-135M at `neuronmap models serve`, method "
        f"`{found['method']}`: {found['labels']} labels, {found['impossible']} features with too few examples, {found['failed']} answers "
        f"that held no label. The same model judged {found['judged']} of the labels; {found['unscored']} have too few windows on held-out "
        "documents for any score. A model of this size labels and judges badly: what is shown is that scores say so."
        + (
            ""
            if found["read"]
            else " Silent windows where a neighbour fires were left out of these scores (`--no-read`)."
        )
        + (f" {found['note']}" if found["note"] else ""),
        "",
        "| scorer | labels | score | surely above chance | shuffled label | rule's label (features) | rule's prediction | "
        "better than shuffled | unread judgements |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["scorers"]:
        rule = f"{_number(row['rule'])} ({row['with a rule' + chr(39) + 's label']})"
        lines.append(
            f"| {row['scorer']} | {row['labels']} | {_number(row['score'])} | {row['surely above chance']} | {_number(row['shuffled'])} | "
            f"{rule} | {_number(row['prediction'])} | {row['better than shuffled']} | {row['unread']} |"
        )
    agreement = "; ".join(
        f"{one['first']} and {one['second']} {one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}, {one['labels']} labels)"
        for one in found["agreement"]
        if one["value"] is not None and one["low"] is not None
    )
    if agreement:
        lines += ["", f"Agreement of scorers (Spearman over labels): {agreement}."]
    lines += [
        "",
        f"Tokens: {found['tokens']['explain']:,} to explain, {found['tokens']['score']:,} to score (baselines apart). Seconds: "
        + ", ".join(f"{name} {value:,.0f}" for name, value in seconds.items())
        + ".",
        "",
        "| feature | label by SmolLM2 | hint | scores |",
        "| ---: | --- | --- | --- |",
    ]
    for one in found["examples"]:
        scores = "; ".join(f"{name} {_interval(*value)}" for name, value in one["scores"].items())
        lines.append(f"| {one['feature']} | {_cell(one['label'])} | {_cell(one['hint'])} | {scores} |")
    return [*lines, ""]


def _cost(found: dict[str, Any], _: str) -> list[str]:
    ours = found["ours"]
    lines = [
        "## Tokens a feature",
        "",
        f"Prompt and answer, counted with SmolLM2's tokenizer and chat template on {found['features']} features; "
        f"baselines are not counted. Judged are 45 examples a feature, the whole protocol; where an analysis holds fewer, those there are "
        f"stand in for the others. The largest of ours took {ours['largest']:,}.",
        "",
        "| | examples judged | explain | detection | fuzzing | all |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        f"| ours | {ours['examples judged']} | {ours['explain']:,} | {ours['detection']:,} | {ours['fuzzing']:,} | **{ours['all']:,}** |",
    ]
    if "delphi" in found:
        theirs = found["delphi"]
        for name, number in (("same examples", theirs["examples"]), ("defaults", 100)):
            row = theirs[name]
            lines.append(
                f"| Delphi's prompts, {name} | {number} | {row['explain']:,} | {row['detection']:,} | {row['fuzzing']:,} | {row['all']:,} |"
            )
        fixed = theirs["fixed"]
        lines += ["", f"Fixed tokens of Delphi's prompts: explain {fixed['explain']:,}, detection {fixed['detection']:,} and fuzzing "
                  f"{fixed['fuzzing']:,} for every five examples."]  # fmt: skip
    return [*lines, ""]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "–" if value is None or low is None or high is None else f"{value:.2f} ({low:.2f} to {high:.2f})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ") or "–"
