"""Indicators of a feature come with intervals, and say when there is too little to go by."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from neuronmap.errors import InputError
from neuronmap.interpretation import assess

ROW: dict[str, Any] = {
    "feature": 3, "firings": 5000, "density": 0.05, "density_low": 0.0487, "density_high": 0.0514,
    "sampled": 256, "documents": 128, "top_token_share": 0.5, "token_entropy": 3.0,
}  # fmt: skip
HINT: dict[str, Any] = {"positives": 120}
for figure in ("precision", "recall", "f1"):
    HINT |= {figure: 0.8, f"{figure}_low": 0.7, f"{figure}_high": 0.9}


def test_every_indicator_has_its_interval_and_number() -> None:
    found = assess(ROW, HINT)
    assert found.status == "from a sample of 256 of 5,000 firings; rule scored on 120 held-out firings"
    for indicator in found.indicators:
        assert indicator.value is not None
        assert indicator.low <= indicator.value <= indicator.high, indicator.name
    assert found["density"].n == 100_000
    assert found["rule_f1"].n == 120
    assert found["document_share"].value == 0.5
    json.dumps(found.to_dict(), allow_nan=False)


def test_without_a_hint_the_rule_is_left_out() -> None:
    assert [item.name for item in assess(ROW).indicators] == [
        "density",
        "top_token_share",
        "token_entropy",
        "document_share",
    ]


def test_few_and_no_firings_are_said() -> None:
    few = assess({**ROW, "firings": 4, "sampled": 4, "density": 4e-5, "documents": 4})
    assert few.status.startswith("too few firings (4; at least 10")
    none = {
        **ROW,
        "firings": 0,
        "sampled": 0,
        "density": 0.0,
        "documents": 0,
        "top_token_share": None,
        "token_entropy": None,
    }
    nothing = assess(none, dict.fromkeys(HINT) | {"positives": 0})
    assert nothing.status.startswith("never fired")
    assert [item.value for item in nothing.indicators] == [0.0] + [None] * 6
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_a_missing_column_or_indicator_is_named() -> None:
    with pytest.raises(InputError, match="lacks density_low, sampled"):
        assess({name: value for name, value in ROW.items() if name not in ("density_low", "sampled")})
    with pytest.raises(InputError, match="no indicator 'beauty'"):
        assess(ROW)["beauty"]


def test_the_interval_of_the_entropy_holds_its_mean_over_samples() -> None:
    rng = np.random.default_rng(0)
    share = 0.7 ** np.arange(30)
    share /= share.sum()

    def entropy(counts: np.ndarray) -> float:
        some = counts[counts > 0] / counts.sum()
        return float(-(some * np.log2(some)).sum())

    samples = [entropy(rng.multinomial(256, share)) for _ in range(300)]
    mean = float(np.mean(samples))
    found = [assess({**ROW, "token_entropy": sample})["token_entropy"] for sample in samples]
    assert np.mean([item.low <= mean <= item.high for item in found]) >= 0.95
    assert all(math.isclose(item.value, sample) for item, sample in zip(found, samples, strict=True))
