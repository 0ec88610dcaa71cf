"""What the quality sheet asks the language model, in cases whose answer is known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from neuronmap.evaluation.suites.baselines import Dictionary
from neuronmap.models import capture, list_samples, load_model, resolve_hook
from neuronmap.progress import SilentProgress
from quality_data import MODEL, Rows
from quality_model import ModelMeter, ModelProtocol

pytestmark = [
    pytest.mark.sample,
    pytest.mark.skipif(not any(sample.path() for sample in list_samples()), reason="the sample model is not installed"),
]
LAYER, WIDTH = 2, 576


def dictionary(decoder_FD: torch.Tensor, bias_D: torch.Tensor) -> Dictionary:
    """f = x, xhat = f @ decoder + bias."""
    return Dictionary("made up", {}, torch.clone, decoder_FD, bias_D)


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> ModelMeter:
    model = load_model(MODEL, dtype="float32", device="cpu", progress=SilentProgress())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(tmp_path_factory.mktemp("home")))
        hook = resolve_hook(model, LAYER, "residual")
        ids_BT = torch.randint(100, 20_000, (2, 64), generator=torch.Generator().manual_seed(0))
        train_ND = capture(model, ids_BT, [hook])[hook.name][:, 1:].flatten(0, 1).float().numpy()
        facts: dict[str, Any] = {"layer": LAYER, "held": 512, "outlier_threshold": None, "digest": "made up"}
        empty = np.zeros((0, WIDTH), np.float32)
        found = ModelMeter(
            Rows(tmp_path_factory.mktemp("rows"), train_ND, empty, empty, facts),
            ModelProtocol(ce_tokens=256, items=40, resamples=20, concepts=("tense", "definiteness")),
            tmp_path_factory.mktemp("work"),
            "cpu",
            SilentProgress(),
            model,
        )
        assert found.reference["contexts"] == 2
        return found


def test_the_identity_recovers_all_and_probes_like_the_activation(meter: ModelMeter) -> None:
    figures = meter.figures(dictionary(torch.eye(WIDTH), torch.zeros(WIDTH)))
    assert figures["ce_recovered_mean"] == pytest.approx(1.0, abs=1e-4)
    assert figures["ce_recovered_zero"] == pytest.approx(1.0, abs=1e-4)
    assert figures["kl"] == pytest.approx(0.0, abs=1e-5)
    assert set(figures["probes"]) == set(meter.reference["dense_auc"])
    assert 0.5 < figures["auc_1"] <= 1
    assert figures["auc_5"] <= meter.reference["dense_auc_mean"] + 0.05


def test_the_ablations_themselves_recover_nothing(meter: ModelMeter) -> None:
    mean_D = torch.from_numpy(meter.rows.train).mean(0)
    assert meter._behaviour(dictionary(torch.zeros(WIDTH, WIDTH), mean_D))["ce_recovered_mean"] == pytest.approx(
        0.0, abs=1e-4
    )
    zero = meter._behaviour(dictionary(torch.zeros(WIDTH, WIDTH), torch.zeros(WIDTH)))
    assert zero["ce_recovered_zero"] == pytest.approx(0.0, abs=1e-4)


def test_references_are_read_again(meter: ModelMeter) -> None:
    again = ModelMeter(meter.rows, meter.protocol, meter.work, "cpu", SilentProgress())
    assert again.reference == meter.reference
    assert again._loaded is None
    assert meter.reference["loss"]["clean"] < min(meter.reference["loss"][name] for name in ("zero", "mean"))
