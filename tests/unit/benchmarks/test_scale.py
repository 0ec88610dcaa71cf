"""The pages that show the cost model say what it says now, and the checks of it compare what they name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import scale_check
import scale_page
import store_precision
from neuronmap.activations import ActivationStore, harvest
from neuronmap.corpora import tokenize
from neuronmap.models import LanguageModel, resolve_hook


@pytest.mark.parametrize("page", ["scale.md", "how-to/store-large-corpora.md"])
def test_the_pages_say_what_the_model_and_the_newest_results_say(page: str) -> None:
    text = (scale_page.ROOT / "docs" / page).read_text()
    assert scale_page.filled(text) == text, "run: python benchmarks/scale_page.py"


def test_the_newest_check_compares_three_sizes_or_more_and_is_near() -> None:
    files = sorted(scale_page.RESULTS.glob("scale-check-*.json"))
    record = json.loads(files[-1].read_text())
    assert len(record["sizes"]) >= 3
    for one in record["sizes"]:
        for name, pair in one["pairs"].items():
            assert pair["ratio"] == pytest.approx(pair["predicted"] / pair["measured"])
            if name.endswith("bytes") and not name.startswith("training memory"):
                assert pair["ratio"] == pytest.approx(1.0, abs=0.03), (one["model"], name)


def test_a_rewritten_store_is_the_harvested_one(tiny_llama: LanguageModel, tmp_path: Path) -> None:
    """The benchmark writes other formats from float32 rows; a harvest in that format gives the same bytes."""
    tokens = tokenize(["some words of a text " * 40], tiny_llama.tokenizer, context_length=16, part="all", cache=False)
    hook = resolve_hook(tiny_llama, 1)
    exact = harvest(tiny_llama, tokens, [hook], root=tmp_path, dtype="float32")[hook.name]
    for name in ("bfloat16", "int8"):
        direct = harvest(tiny_llama, tokens, [hook], root=tmp_path, dtype=name)[hook.name]  # type: ignore[arg-type]
        made = store_precision.rewritten(exact, name, tmp_path / f"made-{name}")
        assert made.manifest["content_digest"] == direct.manifest["content_digest"]
        assert ActivationStore.open(made.path, verify=True).num_rows == exact.num_rows


def test_reports_show_every_pair() -> None:
    pair = {"predicted": 2.0, "measured": 4.0, "ratio": 0.5}
    record: dict[str, Any] = {
        "date": "2030-01-02",
        "machine": {"cpu": "c", "threads": 1, "system": "s", "load_at_start": [0.1]},
        "commit": "abc",
        "versions": {"torch": "9"},
        "asked": {"tokens": 10, "steps": 3},
        "sizes": [
            {"model": "m", "layer": 1, "architecture": "topk", "features": 8, "pairs": {"harvest, seconds": pair}}
        ],
        "earlier": {"file": "f", "product_gflops": 100.0, "pairs": {"harvest, seconds": pair}},
    }
    text = scale_check.markdown(record)
    assert "| m, block 1, topk, F = 8 | harvest, seconds | 2 | 4 | 0.50 |" in text
    assert text.count("0.50") == 2
