"""The harvest benchmark's own arithmetic, and that what it compares is the same work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import harvest as harvest_benchmark
from harvest_report import ALL, BARE, CAPTURED, FOUR, FULL, ONE_NAME, OURS, PRODUCTS, STORED, markdown, ratio, table
from harvest_ways import cut, products_alone
from neuronmap.models import LanguageModel, capture, resolve_hook


def test_rates_are_compared_within_a_round() -> None:
    """The machine is half as fast in the second round, and the ratio does not see it."""
    rates: Any = {"a": [100.0, 50.0, 100.0], "b": [200.0, 100.0, 200.0]}
    assert ratio(rates, "a", "b") == pytest.approx(0.5)


def test_rounds_that_left_a_way_out_do_not_count() -> None:
    rates: Any = {"a": [100.0, 80.0, 100.0], "rare": [20.0, None, None]}
    assert ratio(rates, "a", "rare") == pytest.approx(5.0)
    assert table(rates, "a")[3] == "| rare | 20 | 20 to 20 | 0.200 |"
    with pytest.raises(ValueError, match="no round has both"):
        ratio({"a": [1.0], "rare": [None]}, "a", "rare")


def record(**changes: float) -> dict[str, Any]:
    """A run in which everything takes the time given, in tokens per second."""
    usual = {
        BARE: 1000.0, OURS: 990.0, FOUR: 985.0, PRODUCTS: 1200.0, FULL: 220.0, CAPTURED: 990.0, STORED: 960.0,
        ONE_NAME: 980.0, ALL: 600.0,
    }  # fmt: skip
    rates = {**usual, **changes}

    def part(*names: str) -> dict[str, list[float | None]]:
        return {name: [rates[name]] * 3 for name in names}

    return {
        "date": "2030-01-01",
        "quick": False,
        "commit": "abc",
        "memory": "freed memory is kept",
        "machine": {"cpu": "X", "cores": 2, "threads": 2, "memory_gib": 8.0, "system": "Y"},
        "versions": {"torch": "2"},
        "setting": {
            "model": "m", "layer": 8, "context": 128, "batch_tokens": 2048, "stored_contexts": 128,
            "gpt2": {"layers": 12, "width": 768},
        },
        "checks": {"largest_difference_to_bare": 0.0},
        "passes": part(BARE, OURS, FOUR, PRODUCTS, FULL),
        "storing": part(CAPTURED, STORED),
        "gpt2": part(OURS, ONE_NAME, ALL),
    }  # fmt: skip


def test_the_report_says_what_was_met() -> None:
    report = markdown(record())
    assert "Capture at 99.0% of the bare model: goal 95%, met." in report
    assert "Storing costs +3.1% on top: goal under 5%, met." in report
    assert "4.5 times a full forward pass with logits" in report
    assert "1.01 times TransformerLens with one name cached: goal level, 0.97 or more, met." in report
    assert "1.65 times TransformerLens with all cached: goal 1.4, met." in report
    assert "MISSED" not in report


@pytest.mark.parametrize(
    "changes",
    [{OURS: 940.0, FOUR: 940.0, ONE_NAME: 900.0}, {STORED: 900.0}, {FOUR: 800.0}, {ONE_NAME: 1100.0}, {ALL: 800.0}],
)
def test_the_report_says_what_was_missed(changes: dict[str, float]) -> None:
    assert markdown(record(**changes)).count("MISSED") == 1


def test_without_the_peer_its_part_is_left_out() -> None:
    report = markdown({**record(), "gpt2": {}})
    assert "TransformerLens" not in report


def test_every_way_runs_in_every_round_on_the_same_tokens_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    def way(name: str) -> Any:
        def run(ids_BT: torch.Tensor) -> float:
            ran.append((name, int(ids_BT[0, 0])))
            return 0.5

        return run

    ways = {name: way(name) for name in ("a", "b", "rare")}
    found = harvest_benchmark.in_turn(ways, lambda n: torch.full((2, 4), n), rounds=5, rarely=("rare",))
    assert found == {"a": [16.0] * 5, "b": [16.0] * 5, "rare": [16.0, None, None, None, 16.0]}
    warm, rounds = ran[:3], ran[3:]
    assert [name for name, _ in warm] == ["a", "b", "rare"]
    assert rounds[:3] == [("b", 1), ("rare", 1), ("a", 1)]
    assert rounds[3:5] == [("a", 2), ("b", 2)]


def test_the_cut_model_gives_what_capture_gives(tiny_llama: LanguageModel, ids_BT: torch.Tensor) -> None:
    bare = cut(tiny_llama, 2)
    with torch.inference_mode():
        expected_BTD = bare(input_ids=ids_BT, use_cache=False).last_hidden_state
    hook = resolve_hook(tiny_llama, 1)
    assert torch.equal(capture(tiny_llama, ids_BT, [hook])[hook.name], expected_BTD)
    assert len(tiny_llama.blocks.modules) == 4  # the model itself is whole


def test_the_products_are_those_of_every_linear_layer(
    tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    flops = []
    real = torch.mm

    def watched(x_NI: torch.Tensor, w_IO: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        flops.append(x_NI.shape[0] * w_IO.numel())
        return real(x_NI, w_IO, out=out)

    multiply = products_alone(cut(tiny_llama, 2), 8)
    monkeypatch.setattr(torch, "mm", watched)
    multiply()
    block = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 96  # q and o, k and v of half the heads, three of the MLP
    assert sum(flops) == 8 * 2 * block


@pytest.fixture(name="ids_BT")
def token_ids() -> torch.Tensor:
    return torch.randint(3, 96, (3, 7), generator=torch.Generator().manual_seed(5))
