"""The record: strict about what it holds, described in full, readable without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neuronmap.errors import ConfigError
from neuronmap.evaluation import CoreMetrics, Estimate, metrics_schema


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_estimate_refuses_what_is_not_a_number(value: float) -> None:
    with pytest.raises(ConfigError, match="finite"):
        Estimate(value=value, count=1)
    with pytest.raises(ConfigError, match="finite"):
        Estimate(value=1.0, low=value, count=1)


def test_the_schema_describes_every_field() -> None:
    schema = metrics_schema()
    assert schema["title"] == "CoreMetrics"
    undescribed = [
        f"{name}.{field}"
        for name, part in [("CoreMetrics", schema), *schema["$defs"].items()]
        for field, about in part["properties"].items()
        if not about.get("description")
    ]
    assert not undescribed


def test_a_record_of_another_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="format"):
        CoreMetrics.from_dict({"format": 2})


def test_stored_records_are_read_without_torch() -> None:
    code = "import sys, neuronmap.evaluation as e; e.CoreMetrics, e.density_text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
