"""AbsTopK, matching pursuit and temporal SAEs: their rules as formulas in float64, and their files.

Shapes: B rows (or contexts), T tokens, D = d_in, F = d_sae.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.saes import load_sae, read_bundle_info, save_bundle
from neuronmap.saes.inference.abstopk import AbsTopKOptions, AbsTopKSAE
from neuronmap.saes.inference.base import InferenceSAE
from neuronmap.saes.inference.matching_pursuit import MatchingPursuitOptions, MatchingPursuitSAE
from neuronmap.saes.inference.temporal import TemporalOptions, TemporalSAE

B, T, D, F = 24, 6, 10, 32

CASES: list[tuple[type[Any], Any]] = [
    (AbsTopKSAE, AbsTopKOptions(k=4)),
    (MatchingPursuitSAE, MatchingPursuitOptions(residual_threshold=0.4)),
    (
        MatchingPursuitSAE,
        MatchingPursuitOptions(max_iterations=3, stop_on_duplicate_support=False, residual_threshold=0),
    ),
    (TemporalSAE, TemporalOptions(n_heads=2, bottleneck_factor=4, k=3)),
    (TemporalSAE, TemporalOptions(n_heads=4, bottleneck_factor=2, n_attn_layers=2, tied=False)),
    (TemporalSAE, TemporalOptions(n_heads=2, bottleneck_factor=4, subtract_b_dec=False, input_scale=0.3)),
    (TemporalSAE, TemporalOptions(n_attn_layers=0, k=3)),
]
IDS = [f"{cls.architecture}-{number}" for number, (cls, _) in enumerate(CASES)]


def filled(cls: type[Any], options: Any, dtype: torch.dtype = torch.float64) -> Any:
    sae = cls(D, F, options, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return sae


def rows(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(dtype)


# --- the rules -------------------------------------------------------------------------------------------------------


def test_abstopk_keeps_the_largest_magnitudes_with_their_sign() -> None:
    sae, x = filled(AbsTopKSAE, AbsTopKOptions(k=4)), rows(B)
    with torch.no_grad():
        f_BF = sae.encode(x)
        for b in range(B):
            pre = ((x[b] - sae.b_dec) @ sae.W_enc + sae.b_enc).tolist()
            kept = sorted(range(F), key=lambda j: -abs(pre[j]))[:4]
            expected = [pre[j] if j in kept else 0.0 for j in range(F)]
            assert f_BF[b].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
        assert bool((f_BF < 0).any())
        assert bool((f_BF > 0).any())
        torch.testing.assert_close(sae(x), f_BF @ sae.W_dec + sae.b_dec)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("most", [None, 4])
def test_matching_pursuit_is_the_loop_row_by_row(most: int | None, threshold: float, stop: bool) -> None:
    options = MatchingPursuitOptions(residual_threshold=threshold, max_iterations=most, stop_on_duplicate_support=stop)
    sae, x = filled(MatchingPursuitSAE, options), rows(B)
    steps = set()
    with torch.no_grad():
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        found_BF = sae.encode(x)
        for b in range(B):
            rest, f, count = (x[b] - sae.b_dec).clone(), torch.zeros(F, dtype=torch.float64), 0
            while count < (most or D):
                count += 1
                gains = (sae.W_dec @ rest).relu()
                best = int(gains.argmax())
                known = bool(f[best] != 0) or float(gains[best]) == 0
                f[best] += gains[best]
                rest = rest - gains[best] * sae.W_dec[best]
                if (stop and known) or float(rest.norm()) < threshold:
                    break
            steps.add(count)
            torch.testing.assert_close(found_BF[b], f, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(sae(x), found_BF @ sae.W_dec + sae.b_dec)
        torch.testing.assert_close(sae.encode(x.view(4, 6, D)).view(B, F), found_BF)
        torch.testing.assert_close(sae.encode(x[3]), found_BF[3], rtol=1e-9, atol=1e-12)
    if stop and threshold and most is None:
        assert len(steps) > 1, "rows stop after different numbers of steps"


def temporal_by_hand(sae: TemporalSAE, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Novel and predicted codes of one context, attention written out token by token."""
    options = sae.options
    assert isinstance(options, TemporalOptions)
    encoder = sae.W_dec.T if options.tied else dict(sae.named_parameters())["untied_W_enc"]
    rest = x_TD * options.input_scale - (sae.b_dec if options.subtract_b_dec else 0)
    predicted = torch.zeros(len(x_TD), F, dtype=torch.float64)
    for layer in sae.attn_layers:
        code = (rest @ encoder / (4 * D)).relu()
        before = torch.cat((torch.zeros(1, F, dtype=torch.float64), code[:-1]))
        query, key, value = layer.q_target(code), layer.k_ctx(before), layer.v_ctx(before)
        narrow, wide = query.shape[1] // options.n_heads, F // options.n_heads
        mixed = torch.zeros_like(value)
        for head in range(options.n_heads):
            q, k = (part[:, head * narrow : (head + 1) * narrow] for part in (query, key))
            for t in range(len(x_TD)):
                weight = torch.stack([(q[t] * k[s]).sum() / math.sqrt(narrow) for s in range(t + 1)]).softmax(0)
                place = slice(head * wide, (head + 1) * wide)
                mixed[t, place] = sum(weight[s] * value[s, place] for s in range(t + 1))
        p = layer.c_proj(mixed).relu()
        along = p @ sae.W_dec
        share = (along * rest).sum(1, keepdim=True) / (along.norm(dim=1, keepdim=True) + 1e-6) ** 2
        predicted = predicted + share * p
        rest = rest - share * along
    novel = (rest @ encoder / (4 * D)).relu()
    if options.k is not None:
        floor = novel.sort(dim=1, descending=True).values[:, options.k - 1 : options.k]
        novel = novel * (novel >= floor)
    return novel, predicted


@pytest.mark.parametrize(("cls", "options"), [case for case in CASES if case[0] is TemporalSAE])
def test_temporal_is_the_formula(cls: type[TemporalSAE], options: TemporalOptions) -> None:
    sae, x = filled(cls, options), rows(3, T)
    with torch.no_grad():
        found = sae.encode_with_predictions(x)
        for context in range(3):
            novel, predicted = temporal_by_hand(sae, x[context])
            assert int((novel > 0).sum()) > 0
            torch.testing.assert_close(found[0][context], novel, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(found[1][context], predicted, rtol=1e-9, atol=1e-12)
            bias = 0 if options.tied and not options.subtract_b_dec else sae.b_dec
            expected = ((novel + predicted) @ sae.W_dec + bias) / options.input_scale
            torch.testing.assert_close(sae.reconstruct(x)[context], expected, rtol=1e-9, atol=1e-12)
            alone = sae.decode(novel)
            torch.testing.assert_close(alone, (novel @ sae.W_dec + bias) / options.input_scale)
        torch.testing.assert_close(sae.complete(sae.decode(sae.encode(x)), x), sae.reconstruct(x))


def test_a_token_knows_nothing_of_those_after_it() -> None:
    sae, x = filled(TemporalSAE, TemporalOptions(n_heads=2, bottleneck_factor=4, k=3)), rows(2, T)
    changed = x.clone()
    changed[:, 4:] += 1.0
    torch.testing.assert_close(sae(changed)[:, :4], sae(x)[:, :4])
    changed = x.clone()
    changed[:, 0] += 1.0
    assert not torch.allclose(sae(changed)[:, 1:], sae(x)[:, 1:]), "but of those before it"


@pytest.mark.parametrize("shape", [(B, D), (D,), (2, T, D + 1)])
def test_rows_without_their_context_are_refused(shape: tuple[int, ...]) -> None:
    sae = filled(TemporalSAE, TemporalOptions(n_heads=2, bottleneck_factor=4))
    for use in (sae.encode, sae.reconstruct):
        with pytest.raises(InputError, match=r"reads whole contexts: activations \[contexts, tokens, 10\]"):
            use(torch.zeros(shape))


# --- files and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
def test_a_bundle_reads_back_to_the_same_bits(cls: type[Any], options: Any, tmp_path: Path) -> None:
    sae, x = filled(cls, options, torch.float32), rows(3, T, dtype=torch.float32)
    loaded = load_sae(save_bundle(sae, tmp_path / "b"))
    assert type(loaded) is cls
    assert loaded.options == options
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert torch.equal(loaded(x), sae(x))
    assert read_bundle_info(tmp_path / "b").k == getattr(options, "k", None)
    assert "SAE.load_from_disk" in (tmp_path / "b" / "README.md").read_text()


def test_attention_that_does_not_fit_its_file_is_damage(tmp_path: Path) -> None:
    sae = filled(TemporalSAE, TemporalOptions(n_heads=2, bottleneck_factor=4))
    folder = save_bundle(sae, tmp_path / "b")
    text = (folder / "cfg.json").read_text().replace('"bottleneck_factor": 4', '"bottleneck_factor": 2')
    assert text != (folder / "cfg.json").read_text()
    (folder / "cfg.json").write_text(text)
    with pytest.raises(
        DamagedError, match=r"k_ctx\.weight has shape \[8, 32\] where \[16, 32\].*q_target\.bias has shape"
    ):
        load_sae(folder)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AbsTopKSAE(D, F, AbsTopKOptions(k=F + 1)), "only d_sae = 32 features"),
        (lambda: TemporalSAE(D, F, TemporalOptions(k=F + 1, n_attn_layers=0)), "only d_sae = 32 features"),
        (lambda: TemporalSAE(D, F, TemporalOptions(n_heads=3, bottleneck_factor=4)), "12 does not divide d_sae = 32"),
        (lambda: MatchingPursuitOptions(residual_threshold=-1.0), "residual_threshold"),
        (lambda: AbsTopKSAE(0, F), "d_in >= 1"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_an_input_scale_and_a_normalisation_exclude_each_other(tmp_path: Path) -> None:
    sae = filled(TemporalSAE, TemporalOptions(n_heads=2, bottleneck_factor=4, input_scale=2.0))
    sae.input_norm = "layer_norm"
    with pytest.raises(ConfigError, match="has its own input scale"):
        save_bundle(sae, tmp_path / "b")


@pytest.mark.parametrize(("cls", "options"), CASES, ids=IDS)
def test_whatever_belongs_to_training_is_refused(cls: type[InferenceSAE], options: Any) -> None:
    sae = filled(cls, options)
    for use in (
        lambda: sae.initialise(torch.zeros(D), torch.Generator()),
        lambda: sae.training_loss(rows(B), None),
        lambda: sae.loss_and_gradients(rows(B), None, None),
        lambda: sae.calibrate(lambda: iter([])),
        lambda: sae.fold_input_scale(2.0),
    ):
        with pytest.raises(
            ConfigError, match=f"A {cls.architecture} can be read and used, but NeuronMap does not train"
        ):
            use()
