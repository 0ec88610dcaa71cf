"""Figures and tables of the harvest benchmark."""

from __future__ import annotations

import statistics
from typing import Any

BARE = "bare model, cut at the hook"
OURS = "ours, capture"
FOUR = "ours, capture of 4 hooks"
PRODUCTS = "matrix products alone"
FULL = "full forward with logits"
CAPTURED = "the same contexts, only captured"
STORED = "ours, harvest: stored, calibrated, digested"
ONE_NAME = "TransformerLens, stop_at_layer, one name"
ALL = "TransformerLens, stop_at_layer, all cached"
ONE_NAME_KEPT = f"{ONE_NAME}, allocator as ours"
ALL_KEPT = f"{ALL}, allocator as ours"

BARE_GOAL, STORING_GOAL, ALL_GOAL = 0.95, 0.05, 1.4
LEVEL = 0.97
"""Ratios above this count as level: medians of 24 rounds repeat within 3 %."""

Rates = dict[str, list[float | None]]


def ratio(rates: Rates, name: str, reference: str) -> float:
    """Median over the rounds of one rate over another of the same round.

    Raises:
        ValueError: if no round has both.
    """
    both = [(a, b) for a, b in zip(rates[name], rates[reference], strict=True) if a is not None and b is not None]
    if not both:
        raise ValueError(f"no round has both '{name}' and '{reference}'")
    return statistics.median(a / b for a, b in both)


def table(rates: Rates, reference: str) -> list[str]:
    """Markdown lines: median, quartiles, and the ratio to the reference."""
    lines = ["| | tokens/s, median | quartiles | of the first |", "| --- | --- | --- | --- |"]
    for name in rates:
        seen = [rate for rate in rates[name] if rate is not None]
        low, middle, high = statistics.quantiles(seen, n=4, method="inclusive") if len(seen) > 1 else seen * 3
        lines.append(f"| {name} | {middle:,.0f} | {low:,.0f} to {high:,.0f} | {ratio(rates, name, reference):.3f} |")
    return lines


def verdicts(record: dict[str, Any]) -> list[str]:
    """Each goal, and whether it was met."""
    passes, storing, gpt2 = record["passes"], record["storing"], record["gpt2"]
    share, hooks = ratio(passes, OURS, BARE), ratio(passes, FOUR, OURS)
    cost = ratio(storing, CAPTURED, STORED) - 1
    lines = [
        _goal(f"Capture at {share:.1%} of the bare model", f"{BARE_GOAL:.0%}", share >= BARE_GOAL),
        _goal(f"Storing costs {cost:+.1%} on top", f"under {STORING_GOAL:.0%}", cost < STORING_GOAL),
        _goal(f"Four hooks at {hooks:.1%} of one", f"the price of one, within {1 - LEVEL:.0%}", hooks >= LEVEL),
        f"- {ratio(passes, OURS, FULL):.1f} times a full forward pass with logits; {ratio(passes, OURS, PRODUCTS):.0%} of the limit that "
        "the model's matrix products set.",
    ]
    if gpt2:
        one, every = ratio(gpt2, OURS, ONE_NAME), ratio(gpt2, OURS, ALL)
        lines.append(
            _goal(f"{one:.2f} times TransformerLens with one name cached", f"level, {LEVEL} or more", one >= LEVEL)
        )
        lines.append(_goal(f"{every:.2f} times TransformerLens with all cached", f"{ALL_GOAL}", every >= ALL_GOAL))
    return lines


def _goal(found: str, goal: str, met: bool) -> str:
    return f"- {found}: goal {goal}, {'met' if met else 'MISSED'}."


def markdown(record: dict[str, Any]) -> str:
    """The report."""
    facts, setting = record["machine"], record["setting"]
    lines = [
        f"# Harvesting, {record['date']}" + (" (quick)" if record["quick"] else ""),
        "",
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, {facts['memory_gib']} GiB, {facts['system']}; "
        f"commit {record['commit']}; "
        + ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        + ".",
        f"Allocator: {record['memory']}. Medians over the rounds; ratios are medians of the rounds' ratios.",
        "",
        *verdicts(record),
        "",
        f"## One forward pass: {setting['model']}, after block {setting['layer']}",
        "",
        f"{setting['batch_tokens']:,} tokens in contexts of {setting['context']}, float32. The bare model's activations and ours differ by "
        f"{record['checks']['largest_difference_to_bare']:g} at most.",
        "",
        *table(record["passes"], BARE),
        "",
        f"## Storing: {setting['stored_contexts']} contexts",
        "",
        *table(record["storing"], CAPTURED),
    ]
    if record["gpt2"]:
        shape = setting["gpt2"]
        lines += [
            "",
            f"## TransformerLens: GPT-2 shape, after block {setting['layer']}",
            "",
            f"{shape['layers']} blocks, {shape['width']} wide, random weights, each library in a process of its own, TransformerLens as it "
            "comes and once more with the allocator settings that ours runs with.",
            "",
            *table(record["gpt2"], OURS),
        ]
    return "\n".join(lines) + "\n"
