"""BatchTopK: the training rule over the batch, the running threshold, exact calibration, and its JumpReLU form.

Shapes: B rows, N rows of a calibration pass, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from neuronmap.errors import InputError
from neuronmap.saes.base import StepState
from neuronmap.saes.batchtopk import BatchTopKOptions, BatchTopKSAE, exact_threshold
from neuronmap.saes.kernels.select import sampled_bound
from neuronmap.saes.matryoshka import MatryoshkaSAE
from neuronmap.saes.topk import TopKSAE
from neuronmap.saes.workspace import Workspace

D_IN, D_SAE, K = 24, 64, 4


def sparse_rows(count: int, seed: int) -> Tensor:
    """Sparse positive mixtures of 32 fixed directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = normalize(torch.randn(32, D_IN, generator=torch.Generator().manual_seed(99)), dim=1)
    active = torch.rand(count, 32, generator=generator) < 2 / 32
    return (active * (0.5 + torch.rand(count, 32, generator=generator))) @ directions / 1.5


def trained(cls, steps: int = 400):
    sae = cls(D_IN, D_SAE, cls.Options(k=K))
    sae.initialise(sparse_rows(4096, 0).mean(dim=0), torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(sae.parameters(), lr=4e-3)
    workspace = Workspace()
    for step in range(steps):
        state = StepState(step=step)
        loss = sae.loss_and_gradients(sparse_rows(512, 100 + step), state, workspace)
        sae.project_decoder_gradient()
        optimiser.step()
        sae.after_step(loss, state)
    return sae


def l0(sae, x_ND: Tensor) -> float:
    with torch.no_grad():
        return float((sae.encode(x_ND) > 0).sum()) / len(x_ND)


@pytest.mark.parametrize("cls", [TopKSAE, BatchTopKSAE, MatryoshkaSAE])
def test_a_few_hundred_steps_explain_sparse_data_on_held_out_rows(cls):
    sae = trained(cls)
    sae.calibrate(lambda: sparse_rows(8192, 7).split(1000))
    x_ND = sparse_rows(4096, 8)
    with torch.no_grad():
        missed = (x_ND - sae(x_ND)).square().sum()
    assert float(1 - missed / (x_ND - x_ND.mean(dim=0)).square().sum()) > 0.9
    torch.testing.assert_close(sae.W_dec.detach().norm(dim=1), torch.ones(D_SAE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cls", [BatchTopKSAE, MatryoshkaSAE])
def test_calibrated_l0_is_k_exactly_on_its_rows_and_within_two_percent_on_others(cls):
    sae = trained(cls)
    x_ND = sparse_rows(16384, 7)
    report = sae.calibrate(lambda: x_ND.split(1000))
    assert report["rows"] == 16384
    assert report["l0"] == pytest.approx(K, abs=1 / 16384)
    assert l0(sae, x_ND) == pytest.approx(K, abs=2 / 16384)
    assert l0(sae, sparse_rows(16384, 8)) == pytest.approx(K, rel=0.02)
    assert torch.equal(sae.threshold, torch.full((D_SAE,), report["threshold"]))


def test_the_running_threshold_is_usable_from_the_first_step():
    """SAELens' starts at zero and lags for hundreds of steps; bias-corrected, it is the mean from the start."""
    sae = BatchTopKSAE(D_IN, D_SAE, BatchTopKOptions(k=K))
    sae.initialise(torch.zeros(D_IN), torch.Generator().manual_seed(0))
    x_BD = sparse_rows(2048, 1)
    loss = sae.loss_and_gradients(x_BD, StepState(), Workspace())
    sae.after_step(loss, StepState())
    torch.testing.assert_close(sae.threshold, loss.threshold.expand(D_SAE))
    assert l0(sae, x_BD) == pytest.approx(K, rel=0.02)
    for step in range(1, 60):
        loss = sae.loss_and_gradients(sparse_rows(512, step), StepState(step=step), Workspace())
        sae.after_step(loss, StepState(step=step))
    assert l0(sae, sparse_rows(4096, 1000)) == pytest.approx(K, rel=0.1)


def test_the_running_threshold_travels_in_the_state_dict():
    sae = trained(BatchTopKSAE, steps=5)
    other = BatchTopKSAE(D_IN, D_SAE, BatchTopKOptions(k=K))
    other.load_state_dict(sae.state_dict())
    x_BD = sparse_rows(256, 3)
    for one in (sae, other):
        one.after_step(one.loss_and_gradients(x_BD, StepState(), Workspace()), StepState())
    assert torch.equal(sae.threshold, other.threshold)
    assert float(sae.threshold[0]) > 0


def test_encode_is_a_strict_threshold_and_rows_do_not_depend_on_each_other():
    sae = trained(BatchTopKSAE, steps=20)
    x_BD = sparse_rows(64, 4)
    with torch.no_grad():
        pre_BF = sae.pre_activations(x_BD)
        sae.threshold.fill_(float(pre_BF[3, 5].abs()))
        assert torch.equal(sae.encode(x_BD), torch.where(pre_BF > sae.threshold, pre_BF, 0.0))
        louder = torch.cat([x_BD[:1], 100 * x_BD[1:]])
        torch.testing.assert_close(sae.encode(louder)[0], sae.encode(x_BD[0]))
        sae.threshold.fill_(-1.0)
        assert bool((sae.encode(x_BD) >= 0).all())


def test_training_keeps_bk_of_the_batch_not_k_of_each_row():
    sae = trained(BatchTopKSAE, steps=20)
    x_BD = torch.cat([sparse_rows(32, 5), 10 * sparse_rows(32, 6)])
    loss = sae.loss_and_gradients(x_BD, StepState(), Workspace())
    assert int(loss.fired_F.sum()) == 64 * K
    with torch.no_grad():
        per_row = (sae.pre_activations(x_BD) >= loss.threshold).sum(dim=1)
    assert int(per_row.sum()) == 64 * K
    assert int(per_row[32:].sum()) > int(per_row[:32].sum())


# --- the calibration itself ------------------------------------------------------------------------------------------


def threshold_of(pre_NF: Tensor, k: int, batch: int = 100) -> tuple[float, float, int]:
    def entries_above(bound: float) -> Iterator[tuple[Tensor, int]]:
        for pre_BF in pre_NF.split(batch):
            yield pre_BF[pre_BF > bound], len(pre_BF)

    return exact_threshold(entries_above, [sampled_bound(pre_NF[:batch], 2.0 * k)], k)


def test_exact_threshold_is_the_same_when_the_entries_are_too_many_to_be_kept(monkeypatch):
    pre_NF = torch.randn(1000, 64, generator=torch.Generator().manual_seed(4))
    kept = threshold_of(pre_NF, 5)
    monkeypatch.setattr("neuronmap.saes.batchtopk._KEPT_ENTRIES", 300)
    assert threshold_of(pre_NF, 5) == kept


@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_exact_threshold_lies_between_the_last_kept_and_the_next_value(k, spread):
    pre_NF = spread * torch.randn(1000, 64, generator=torch.Generator().manual_seed(k))
    threshold, mean_l0, count = threshold_of(pre_NF, k)
    ordered = pre_NF.reshape(-1).sort(descending=True).values
    assert float(ordered[1000 * k]) <= threshold < float(ordered[1000 * k - 1])
    assert (mean_l0, count) == (k, 1000)
    assert int((pre_NF > threshold).sum()) == 1000 * k


def test_exact_threshold_survives_a_first_batch_that_misleads():
    pre_NF = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    for factor in (1000.0, 0.001):
        skewed_NF = pre_NF.clone()
        skewed_NF[:100] *= factor
        threshold, mean_l0, _ = threshold_of(skewed_NF, 5)
        assert mean_l0 == 5
        assert int((skewed_NF > threshold).sum()) == 5000


def test_exact_threshold_with_ties_at_the_cut_takes_the_nearer_side():
    pre_NF = torch.zeros(10, 10)
    pre_NF[:, 0], pre_NF[:, 1:4], pre_NF[:, 4] = 3.0, 2.0, 1.0
    # k = 2 wants 20: the choice is 10 (above 2) or 40 (above 1); k = 3 wants 30: 40 is as near as 20 would be, 10 is not.
    assert threshold_of(pre_NF, 2) == (2.0, 1.0, 10)
    threshold, mean_l0, _ = threshold_of(pre_NF, 3)
    assert 1.0 <= threshold < 2.0
    assert mean_l0 == 4.0


def test_too_few_positive_activations_give_threshold_zero_and_say_so():
    pre_NF = -torch.ones(50, 8)
    pre_NF[:, 0] = 0.5
    assert threshold_of(pre_NF, 2) == (0.0, 1.0, 50)
    sae = BatchTopKSAE(D_IN, D_SAE, BatchTopKOptions(k=K))
    sae.initialise(torch.zeros(D_IN), torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    assert sae.calibrate(lambda: [sparse_rows(64, 0)]) == {"threshold": 0.0, "l0": 0.0, "rows": 64.0}


def test_calibrating_on_nothing_is_an_error():
    with pytest.raises(InputError, match="rows"):
        BatchTopKSAE(D_IN, D_SAE).calibrate(list)


def test_saelens_form_is_jumprelu_with_a_threshold_per_feature():
    sae = trained(BatchTopKSAE, steps=10)
    assert sae.saelens_config() == {"architecture": "jumprelu"}
    tensors = {name: tensor.clone() for name, tensor in sae.saelens_tensors().items()}
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "W_enc": (D_IN, D_SAE),
        "b_enc": (D_SAE,),
        "W_dec": (D_SAE, D_IN),
        "b_dec": (D_IN,),
        "threshold": (D_SAE,),
    }
    again = BatchTopKSAE.from_saelens(sae.saelens_config(), tensors, sae.options)
    x_BD = sparse_rows(64, 4)
    with torch.no_grad():
        assert torch.equal(again.encode(x_BD), sae.encode(x_BD))
    assert again.options == sae.options
