"""Transcoders and crosscoders on a model: which widths are compared (the rest is in ``tests/unit/hub/test_fit.py``)."""

from __future__ import annotations

from typing import Any

import pytest

from neuronmap.errors import MismatchError
from neuronmap.saes import BundleMetadata
from neuronmap.saes.fit import differences, require_fit

D = 16
READ = {"name": "model.layers.2.mlp:in", "module_path": "model.layers.2.mlp", "side": "in", "width": D}


def place(layer: int, width: int, component: str = "residual") -> dict[str, Any]:
    return {"name": f"model.layers.{layer}:out", "layer": layer, "component": component, "width": width}


def found(metadata: BundleMetadata, hidden: int, hook: dict[str, Any] | None = None) -> list[tuple[str, str, str]]:
    return [(one.what, one.expected, one.found) for one in differences(metadata, D, {"hidden_size": hidden}, hook)]


def test_a_transcoder_is_compared_at_the_hook_it_reads_and_by_the_width_of_the_other() -> None:
    metadata = BundleMetadata(hook=READ, hook_out=place(2, D, "mlp"))
    assert found(metadata, D, READ) == []
    assert found(metadata, D, {**READ, "side": "out"}) == [
        ("hook", "model.layers.2.mlp:in", "model.layers.2.mlp:out"),
    ]
    assert found(metadata, 24, READ) == [("width of its output", "16", "24")]
    hidden_layer = metadata.updated(hook_out=place(2, 64, "mlp_hidden"))
    assert found(hidden_layer, 24, READ) == [], "a width that the model's size does not tell"


def test_each_width_of_a_crosscoder_is_compared_once() -> None:
    metadata = BundleMetadata(hooks=(place(1, D), place(2, D), place(3, D)))
    assert found(metadata, D) == []
    [one] = differences(metadata, D, {"hidden_size": 24}, None)
    assert (one.what, one.expected, one.found, one.severity) == ("width", "16", "24", "impossible")


def test_widths_that_do_not_fit_cannot_be_forced() -> None:
    metadata = BundleMetadata(hook=READ, hook_out=place(2, D))
    with pytest.raises(MismatchError, match="width of its output: the SAE has 16, the model 24"):
        require_fit(differences(metadata, D, {"hidden_size": 24}, READ), "demo", force=True)
