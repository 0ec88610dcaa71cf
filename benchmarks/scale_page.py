"""The tables of docs/scale.md: what ``neuronmap plan`` says of GPT-2, Gemma-2-2B and a 70B model, its coefficients, and the newest check.

    python benchmarks/scale_page.py          # rewrites what stands between the page's markers; measures nothing

A test holds the page to what the model says now.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

from neuronmap.cli.plan import duration
from neuronmap.paths import human_bytes, write_bytes
from neuronmap.planning import COEFFICIENTS, CostPlan, PlanRequest, plan_costs

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "scale.md", ROOT / "benchmarks" / "results"
MODELS = ("gpt2", "gemma-2-2b", "llama-3-70b")
TOKENS = {"100M": 10**8, "1B": 10**9, "10B": 10**10}
WIDTHS = {"16k": 1 << 14, "128k": 1 << 17, "1M": 1 << 20, "16M": 1 << 24}
DEVICE = "h100"
CONTEXTS = 256


def planned(model: str, width: int, tokens: int, gpus: int = 1, store_dtype: str = "bfloat16") -> CostPlan:
    """One plan of the tables."""
    asked = {"model": model, "width": width, "tokens": tokens, "device": DEVICE, "gpus": gpus}
    return plan_costs(PlanRequest.from_dict({**asked, "batch_size": CONTEXTS, "store_dtype": store_dtype}))


def harvest_table() -> list[str]:
    """Model by tokens: it does not depend on the width."""
    lines = [
        "| model, middle block | tokens | GPU hours | store, bfloat16 | store, int8 | token cache |",
        "| --- " * 6 + "|",
    ]
    for model in MODELS:
        for name, tokens in TOKENS.items():
            found, small = planned(model, 1 << 14, tokens), planned(model, 1 << 14, tokens, store_dtype="int8")
            hours = found.harvest.seconds / 3600
            lines.append(
                f"| {model}, {found.request.layer} | {name} | {hours:,.2f} | {human_bytes(found.storage.store)} | "
                f"{human_bytes(small.storage.store)} | {human_bytes(found.storage.tokens)} |"
            )
    return lines


def training_table() -> list[str]:
    """Model by width, for a billion tokens: 100 million take a tenth, 10 billion ten times as much."""
    lines = [
        "| model | features | GPUs that hold it | on each | step | GPU hours, 1B tokens | read, GB/s | checkpoints | "
        "features on disk, memory | analysis |",
        "| --- " * 10 + "|",
    ]
    for model in MODELS:
        for name, width in WIDTHS.items():
            needed = planned(model, width, 10**9).training.needed_devices or 0
            found = planned(model, width, 10**9, gpus=needed)
            training = found.training
            rate = training.batch_rows * found.storage.row / training.step_seconds / 1e9
            lines.append(
                f"| {model} | {name} | {needed:,} | {human_bytes(training.device_bytes)} | {training.step_seconds * 1e3:,.1f} ms | "
                f"{training.seconds * needed / 3600:,.1f} | {rate:.1f} | {human_bytes(found.storage.checkpoints)} | "
                f"{human_bytes(found.storage.features)}, {human_bytes(found.analysis.state_bytes)} | {duration(found.analysis.seconds)} |"
            )
    return lines


def coefficient_table() -> list[str]:
    """Every coefficient."""
    lines = ["| name | value | from | source |", "| --- " * 4 + "|"]
    return [
        *lines,
        *(
            f"| `{name}` | {one.value:,g} {one.unit} | {one.kind} | {one.source} |"
            for name, one in COEFFICIENTS.items()
        ),
    ]


def check_table() -> list[str]:
    """The tables of the newest check; nothing if there is none."""
    files = sorted(RESULTS.glob("scale-check-*.md"))
    if not files:
        return []
    _, *rest = files[-1].read_text(encoding="utf-8").strip().split("\n")
    return [f"`benchmarks/results/{files[-1].name}`. {rest[1]} {rest[2]}", *rest[3:]]


def precision_table() -> list[str]:
    """The table of the newest measurement of number formats."""
    files = sorted(RESULTS.glob("store-precision-*.json"))
    if not files:
        return []
    text = files[-1].with_suffix(".md").read_text(encoding="utf-8")
    asked = json.loads(files[-1].read_text(encoding="utf-8"))["asked"]
    table = [line for line in text.split("\n") if line.startswith("|")]
    return [*table, "", f"`benchmarks/results/{files[-1].stem}.md`, {asked['seeds']} seeds."]


SECTIONS = {
    "harvest": harvest_table,
    "training": training_table,
    "coefficients": coefficient_table,
    "check": check_table,
    "precision": precision_table,
}


def filled(text: str) -> str:
    """A page with everything between its markers made anew."""

    def between(match: re.Match[str], name: str) -> str:
        del match
        return f"<!-- {name} -->\n\n" + "\n".join(SECTIONS[name]()) + f"\n\n<!-- end of {name} -->"

    for name in SECTIONS:
        text = re.sub(rf"<!-- {name} -->.*?<!-- end of {name} -->", partial(between, name=name), text, flags=re.DOTALL)
    return text


def main() -> None:
    """Rewrite the pages."""
    for page in (PAGE, ROOT / "docs" / "how-to" / "store-large-corpora.md"):
        write_bytes(page, filled(page.read_text(encoding="utf-8")).encode())
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
