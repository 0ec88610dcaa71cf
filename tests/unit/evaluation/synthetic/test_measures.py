"""Each measure against its closed form, on SAEs made by hand from the true directions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from neuronmap.errors import ConfigError, InputError, MismatchError
from neuronmap.evaluation.synthetic import (
    Firing,
    GroundTruth,
    Hierarchy,
    Magnitudes,
    SyntheticConfig,
    SyntheticModel,
    ground_truth_schema,
    measure_against_truth,
    random_decoder,
    synthetic_preset,
)
from neuronmap.evaluation.synthetic.matching import match_directions
from neuronmap.progress import SilentProgress

ROWS = 6000
SILENT = SilentProgress()


class HandMade:
    """Latent j = gain_j * relu(direction_j · (x - bias)), with decoder rows direction_j."""

    architecture = "hand-made"

    def __init__(self, model: SyntheticModel, W_dec: Tensor, gain: Tensor | float = 1.0) -> None:
        self.W_dec, self.bias, self.gain = W_dec, model.bias_D, gain
        self.d_sae, self.d_in = W_dec.shape

    def encode(self, x: Tensor) -> Tensor:
        pre = (x - self.bias) @ self.W_dec.T
        return torch.where(pre > 1e-3, pre, 0.0) * self.gain

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + self.bias


@pytest.fixture(scope="module")
def model() -> SyntheticModel:
    """8 orthonormal truths in 16 dimensions, with a bias: a tied encoder reads them exactly."""
    config = SyntheticConfig(
        d_in=16,
        features=8,
        firing=Firing(exponent=1.0, p_max=0.4, p_min=0.05),
        magnitudes=Magnitudes(mean_first=2.0, mean_last=1.5, spread_mean=0.2),
        bias_norm=1.0,
        orthogonal_steps=0,
    )
    return orthonormal(config)


@pytest.fixture(scope="module")
def family() -> SyntheticModel:
    """Two roots with two exclusive children each, all 6 orthonormal."""
    hierarchy = Hierarchy(roots=2, branching=2, depth=1, child_probability=0.3)
    return orthonormal(
        SyntheticConfig(d_in=16, features=6, firing=Firing(law="constant", p_max=0.4), hierarchy=hierarchy)
    )


def orthonormal(config: SyntheticConfig) -> SyntheticModel:
    made = SyntheticModel.from_config(config)
    tensors = {**made._tensors, "dictionary_GD": torch.linalg.qr(made.dictionary_GD.T)[0].T.contiguous()}
    return SyntheticModel(config, tensors)


def tilted(model: SyntheticModel) -> HandMade:
    """Latents that are a little wrong."""
    noise = 0.1 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    return HandMade(model, torch.nn.functional.normalize(model.dictionary_GD + noise, dim=1))


def measured(sae: HandMade, model: SyntheticModel, rows: int = ROWS, bootstrap: int = 0) -> GroundTruth:
    return measure_against_truth(sae, model, rows=rows, bootstrap=bootstrap, progress=SILENT)


def test_the_oracle_of_orthogonal_truths_is_perfect(family: SyntheticModel, model: SyntheticModel) -> None:
    found = measured(HandMade(model, model.dictionary_GD), model, bootstrap=200)
    figures = found.summary()
    ones = (
        "cosine",
        "cosine_truths",
        "recovered",
        "mmcs_truth",
        "mmcs_latent",
        "mcc",
        "uniqueness",
        "precision",
        "recall",
        "f1",
    )
    ones += ("f1_truths", "f1_latent_mean", "amplitude_r2", "amplitude_r2_firing", "explained_variance")
    assert {name: figures[name] for name in ones} == pytest.approx(dict.fromkeys(ones, 1.0), abs=1e-5)
    assert figures["l0"] == figures["true_l0"] == pytest.approx(float(model.base_G.sum()), abs=0.06)
    assert figures["dead"] == 0
    assert found.absorption is None
    by_family = measured(HandMade(family, family.dictionary_GD), family)
    assert by_family.absorption is not None
    assert (by_family.absorption.rate.value, by_family.absorption.missed_alone.value) == (0.0, 0.0)
    assert (by_family.absorption.pairs, by_family.absorption.all_pairs) == (4, 4)


def test_a_latent_that_points_the_other_way_is_not_recovered_though_the_unsigned_measure_says_so(
    model: SyntheticModel,
) -> None:
    W_dec = model.dictionary_GD.clone()
    W_dec[0] *= -1
    figures = measured(HandMade(model, W_dec), model).summary()
    assert figures["recovered"] <= 7 / 8
    assert figures["cosine"] == pytest.approx((7 - 1) / 8), "the flipped one has no other partner left"
    assert figures["mmcs_truth"] == pytest.approx(7 / 8)
    assert figures["mcc"] == pytest.approx(1.0)
    assert figures["f1"] <= 7 / 8 + 1e-9
    alone = match_directions(-model.dictionary_GD[:1], model.dictionary_GD[:1])
    assert (alone.cosine_G.item(), alone.unsigned_M.item()) == pytest.approx((-1.0, 1.0))


def test_a_second_latent_for_a_truth_leaves_another_truth_without_one(model: SyntheticModel) -> None:
    W_dec = model.dictionary_GD.clone()
    W_dec[7] = W_dec[0]
    figures = measured(HandMade(model, W_dec), model).summary()
    assert figures["uniqueness"] == 7 / 8
    assert figures["recovered"] == 7 / 8
    assert figures["cosine"] == pytest.approx(7 / 8)
    assert figures["mmcs_latent"] == pytest.approx(1.0)
    assert figures["f1_latent_mean"] == pytest.approx(1.0), "each copy is right about its nearest truth"
    assert figures["f1"] < 7 / 8 + 0.08, "but as the latent of truth 7 the copy is right by chance only"


def test_a_narrow_sae_is_scored_over_its_pairs_and_over_all_truths(model: SyntheticModel) -> None:
    found = measured(HandMade(model, model.dictionary_GD[:6]), model)
    assert found.directions.cosine.value == pytest.approx(1.0)
    assert found.directions.cosine.count == 6
    assert found.directions.cosine_truths.value == pytest.approx(6 / 8)
    assert found.detection.f1.value == pytest.approx(1.0)
    assert found.detection.f1_truths.value == pytest.approx(6 / 8)
    assert found.amplitude.r2.count == 6


def test_a_dead_latent_costs_its_truth(model: SyntheticModel) -> None:
    gain = torch.ones(8)
    gain[3] = 0
    found = measured(HandMade(model, model.dictionary_GD, gain), model)
    assert found.dead == 1
    assert found.directions.recovered.value == 1.0
    for figure in (
        found.detection.precision,
        found.detection.recall,
        found.detection.f1,
        found.detection.f1_latent_mean,
    ):
        assert figure.value == pytest.approx(7 / 8)
    truth = model.sample(0, ROWS, "measure")[1].dense()[:, 3].double()
    lost = 1 - float(truth.square().sum() / (truth - truth.mean()).square().sum())
    assert found.amplitude.r2.value == pytest.approx((7 + lost) / 8, abs=1e-5)
    assert found.amplitude.r2_firing.count == 7


def test_precision_recall_and_amplitude_of_a_latent_that_fires_for_two_truths(model: SyntheticModel) -> None:
    W_dec = model.dictionary_GD.clone()
    W_dec[0] = (W_dec[0] + 0.5 * W_dec[1]) / math.sqrt(1.25)
    figures = measured(HandMade(model, W_dec), model, rows=2048).summary()
    value = model.sample(0, 2048, "measure")[1].dense().double()
    on = value > 0
    either = on[:, 0] | on[:, 1]
    precision = float((either & on[:, 0]).sum() / either.sum())
    f1 = 2 * precision / (precision + 1)
    assert figures["precision"] == pytest.approx((7 + precision) / 8, abs=1e-6)
    assert figures["recall"] == pytest.approx(1.0)
    assert figures["f1"] == pytest.approx((7 + f1) / 8, abs=1e-6)
    z = (value[:, 0] + 0.5 * value[:, 1]) / math.sqrt(1.25)
    a = value[:, 0]
    r2 = 1 - float((a - z).square().sum() / (a - a.mean()).square().sum())
    assert figures["amplitude_r2"] == pytest.approx((7 + r2) / 8, abs=1e-4)
    joint = float(torch.corrcoef(torch.stack([a, z])[:, on[:, 0]])[0, 1] ** 2)
    assert figures["amplitude_r2_firing"] == pytest.approx((7 + joint) / 8, abs=1e-4)


def test_shrinkage_shows_in_the_amplitude_and_a_decoder_that_makes_up_for_it_does_not(model: SyntheticModel) -> None:
    short = measured(HandMade(model, model.dictionary_GD, 0.5), model).summary()
    assert short["amplitude_r2_firing"] == pytest.approx(1.0, abs=1e-4)
    assert short["amplitude_r2"] < 0.8

    class Rescaled(HandMade):
        def encode(self, x: Tensor) -> Tensor:
            return ((x - self.bias) @ model.dictionary_GD.T).clamp_min(1e-3) * 0.5

    again = Rescaled(model, 2 * model.dictionary_GD)
    assert measured(again, model).summary()["amplitude_r2"] == pytest.approx(1.0, abs=1e-4)


def test_an_absorbing_sae_has_the_absorption_it_was_built_with(family: SyntheticModel) -> None:
    """Root 0's latent is silent when child 2 fires; child 2's latent holds both directions. Child 3 and root 1 are as they should be."""

    class Absorbing(HandMade):
        def encode(self, x: Tensor) -> Tensor:
            value = ((x - self.bias) @ family.dictionary_GD.T).clamp_min(0)
            value = torch.where(value > 1e-3, value, 0.0)
            value[:, 0] = torch.where(value[:, 2] > 0, 0.0, value[:, 0])
            return value

    W_dec = family.dictionary_GD.clone()
    W_dec[2] = W_dec[2] + W_dec[0]
    found = measured(Absorbing(family, W_dec), family)
    assert found.absorption is not None
    assert found.absorption.pairs == 4
    assert found.absorption.rate.value == pytest.approx(1 / 4), "wholly absorbed in one pair of four"
    assert found.absorption.missed_alone.value == 0.0
    assert found.explained_variance.value == pytest.approx(1.0, abs=1e-5), "the reconstruction does not show it"
    assert found.directions.recovered.value == 5 / 6


def test_a_parents_latent_that_is_silent_anyway_is_told_apart_from_absorption(family: SyntheticModel) -> None:
    gain = torch.ones(6)
    gain[0] = 0
    found = measured(HandMade(family, family.dictionary_GD, gain), family)
    assert found.absorption is not None
    assert found.absorption.rate.value == pytest.approx(0.5)
    assert found.absorption.missed_alone.value == pytest.approx(0.5), (
        "one of two parents is always missed, child or no child"
    )


def test_pairs_without_latents_of_their_own_do_not_count_as_absorption(family: SyntheticModel) -> None:
    other = HandMade(
        family,
        torch.nn.functional.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(3)), dim=1) * 1e-6,
    )
    other.W_dec[0] = family.dictionary_GD[0]
    found = measured(other, family)
    assert found.absorption is not None
    assert found.absorption.rate.value is None
    assert "cosine above 0.5" in str(found.absorption.rate.reason)


def test_random_directions_come_as_near_as_chance_brings_them() -> None:
    model = SyntheticModel.from_config(SyntheticConfig(d_in=256, features=64, orthogonal_steps=0))
    found = measure_against_truth(random_decoder(model, 1024, k=8), model, rows=1024, bootstrap=0, progress=SILENT)
    chance = math.sqrt(2 * math.log(1024) / 256)
    assert 0.8 * chance < found.directions.mmcs_truth.value < chance, (
        "the formula is a bound that wide spaces come near to"
    )
    assert found.directions.cosine.value < chance
    assert found.directions.recovered.value == 0.0


def test_the_matching_is_the_best_one_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    truths = torch.nn.functional.normalize(torch.randn(7, 5, generator=generator), dim=1)
    latents = torch.randn(9, 5, generator=generator)
    cosine = (truths @ torch.nn.functional.normalize(latents, dim=1).T).numpy().astype(np.float64)
    found = match_directions(latents, truths)
    row, column = linear_sum_assignment(cosine, maximize=True)
    assert found.latent_G.tolist() == column.tolist()
    assert found.cosine_G.numpy() == pytest.approx(cosine[row, column], abs=1e-6)
    assert found.nearest_latent_G.numpy() == pytest.approx(cosine.max(1), abs=1e-6)
    assert found.nearest_truth_F.numpy() == pytest.approx(cosine.max(0), abs=1e-6)
    assert found.unsigned_truth_F.tolist() == np.abs(cosine).argmax(0).tolist()


def test_what_is_measured_does_not_depend_on_how_rows_are_cut(
    model: SyntheticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = tilted(model)
    whole = measured(sae, model, bootstrap=50)
    monkeypatch.setattr("neuronmap.evaluation.rows._PIECE_ROWS", 100)
    pieces = measured(sae, model, bootstrap=50)
    for one, other in zip(whole.rows(), pieces.rows(), strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-7)  # sums of float32, in another order
        assert (one.error is None) == (other.error is None)
        assert one.error is None or one.error == pytest.approx(other.error, rel=1e-6)


def test_intervals_hold_the_value_and_narrow_with_rows(model: SyntheticModel) -> None:
    sae = tilted(model)
    few, many = measured(sae, model, 2048, bootstrap=300), measured(sae, model, 32_768, bootstrap=300)
    for found in (few, many):
        for figure in (found.explained_variance, found.l0, found.detection.f1, found.directions.cosine):
            assert figure.low <= figure.value <= figure.high
            assert figure.error > 0
    assert many.l0.error < 0.5 * few.l0.error
    assert abs(many.l0.value - few.l0.value) < 4 * few.l0.error


def test_a_record_is_plain_json_and_comes_back(family: SyntheticModel) -> None:
    found = measured(HandMade(family, family.dictionary_GD), family, bootstrap=20)
    assert GroundTruth.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.protocol.rows == ROWS
    assert found.protocol.model_digest == family.digest
    assert "missed_alone" in json.dumps(ground_truth_schema())


def test_an_sae_without_w_dec_is_measured_by_what_it_decodes(model: SyntheticModel) -> None:
    class Bare:
        d_in, d_sae = 16, 8

        def encode(self, x: Tensor) -> Tensor:
            return HandMade(model, model.dictionary_GD).encode(x)

        def decode(self, f: Tensor) -> Tensor:
            return f @ model.dictionary_GD + model.bias_D

    assert measure_against_truth(
        Bare(), model, rows=512, bootstrap=0, progress=SILENT
    ).directions.cosine.value == pytest.approx(1.0)


def test_what_does_not_fit_is_refused(model: SyntheticModel) -> None:
    with pytest.raises(MismatchError, match="width 16; those of tiny are 32"):
        measured(HandMade(model, model.dictionary_GD), SyntheticModel.from_config(synthetic_preset("tiny")))
    with pytest.raises(ConfigError, match="rows = 0"):
        measured(HandMade(model, model.dictionary_GD), model, rows=0)
    with pytest.raises(InputError, match="NaN or infinity"):
        measured(HandMade(model, model.dictionary_GD * torch.nan), model)
