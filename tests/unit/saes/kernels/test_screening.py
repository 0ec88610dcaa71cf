"""Screening in bfloat16 finds what a float32 product finds, also where the rounding of all factors adds up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuronmap.saes.kernels import choice
from neuronmap.saes.kernels.native import screening
from neuronmap.saes.kernels.native.backend import NativeKernels
from neuronmap.saes.kernels.native.library import load_engine
from neuronmap.saes.kernels.protocol import Encoder
from neuronmap.saes.workspace import Workspace

pytestmark = pytest.mark.skipif(load_engine() is None, reason="the native engine was not compiled on this machine")


def kernels(*, screened: bool = True) -> NativeKernels:
    engine = load_engine()
    assert engine is not None
    made = NativeKernels(Workspace(screens=True), engine)
    made.screens_from = 0 if screened else None
    return made


def encoder(x_BD: Tensor, W_FD: Tensor, b_F: Tensor | None = None, kept_M: Tensor | None = None) -> Encoder:
    return Encoder(x_BD, W_FD.T, torch.zeros(len(W_FD)) if b_F is None else b_F, kept_M)


def found(code) -> set[tuple[int, int]]:
    return set(zip(code.row_N.tolist(), code.feature_N.tolist(), strict=True))


def rounded_the_same_way(rows: int, features: int, d_in: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors just below the middle between two bfloat16 numbers: each rounds down by nearly all it can, and no two errors cancel."""
    middle = 1 + 2.0**-8 - 2.0**-18
    sign_D = torch.randint(0, 2, (d_in,), generator=generator) * 2.0 - 1
    x_BD = (sign_D * middle).repeat(rows, 1)
    W_FD = (sign_D * middle).repeat(features, 1) * 2.0 ** torch.randint(-2, 2, (features, 1), generator=generator)
    return x_BD, W_FD


@pytest.mark.parametrize("d_in", [1, 15, 16, 17, 64, 576])
def test_entries_that_rounding_hides_most_are_found(d_in: int) -> None:
    x_BD, W_FD = rounded_the_same_way(7, 133, d_in, torch.Generator().manual_seed(d_in))
    exact_F = (x_BD[:1].double() @ W_FD.T.double())[0]
    floor_F = (exact_F * (1 - 1e-5)).float()
    code = kernels().encode_above(encoder(x_BD, W_FD), floor_F, 10**9).code
    assert code.num_entries == 7 * 133
    none = kernels().encode_above(encoder(x_BD, W_FD), (exact_F * (1 + 1e-5)).float(), 10**9).code
    assert none.num_entries == 0
    best = float(exact_F.max())
    by_k = kernels().encode_top_k(encoder(x_BD, W_FD), 5).code
    assert by_k.num_entries == 35
    assert float(by_k.value_N.min()) == pytest.approx(best, rel=1e-6)
    # of a batch whose last threshold (times 0.9) hides all but a few
    many = kernels()
    for _ in range(2):
        of_batch = many.encode_top_of_batch(encoder(x_BD, W_FD), 21).code
        assert of_batch.num_entries == 21
        assert float(of_batch.value_N.min()) == pytest.approx(best, rel=1e-6)


def test_without_the_bound_on_rounding_entries_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The factors above do what they are meant to do."""
    x_BD, W_FD = rounded_the_same_way(3, 64, 576, torch.Generator().manual_seed(0))
    floor_F = ((x_BD[:1].double() @ W_FD.T.double())[0] * (1 - 1e-5)).float()
    monkeypatch.setattr(screening, "ROUNDING", 0.0)
    assert kernels().encode_above(encoder(x_BD, W_FD), floor_F, 10**9).code.num_entries == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d_in=st.sampled_from([1, 3, 16, 40, 129]),
    rows=st.integers(0, 9),
    features=st.sampled_from([1, 31, 32, 33, 200, 700]),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e4, 1e12]),
    bias=st.sampled_from([0.0, 0.1, 100.0]),
    quantile=st.floats(0.5, 0.999),
)
def test_the_same_entries_as_by_a_whole_product(
    seed: int, d_in: int, rows: int, features: int, scale: float, bias: float, quantile: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x_BD = torch.randn(rows, d_in, generator=draw) * scale
    W_FD = torch.randn(features, d_in, generator=draw) * 10.0 ** torch.randint(-3, 3, (features, 1), generator=draw)
    b_F = torch.randn(features, generator=draw) * bias * scale
    pre_BF = x_BD.double() @ W_FD.T.double() + b_F.double()
    # What either way of summing may round.
    unsure_BF = (x_BD.norm(dim=1)[:, None] * W_FD.norm(dim=1) + b_F.abs()).double() * (d_in + 8) * 2.0**-23
    floor_F = pre_BF.quantile(quantile, dim=0).float() if rows else torch.zeros(features)
    got = kernels().encode_above(encoder(x_BD, W_FD, b_F), floor_F, 10**9).code
    mask_BF = torch.zeros(rows, features, dtype=torch.bool)
    mask_BF[got.row_N.long(), got.feature_N.long()] = True
    above_BF = pre_BF - floor_F.double()
    assert bool((mask_BF | (above_BF <= unsure_BF)).all())
    assert bool((~mask_BF | (above_BF >= -unsure_BF)).all())
    close_N = (got.value_N.double() - pre_BF[mask_BF]).abs() <= unsure_BF[mask_BF]
    assert bool(close_N.all())


def test_a_row_is_encoded_alike_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(4)
    x_BD, W_FD = torch.randn(40, 77, generator=draw), torch.randn(300, 77, generator=draw)
    b_F, floor_F = torch.randn(300, generator=draw), torch.full((300,), 8.0)
    whole = kernels().encode_above(encoder(x_BD, W_FD, b_F), floor_F, 10**9).code
    top = kernels().encode_top_k(encoder(x_BD, W_FD, b_F), 9).code
    monkeypatch.setattr("neuronmap.saes.kernels.native.backend.BLOCK_BYTES", 1)
    monkeypatch.setattr("neuronmap.saes.kernels.native.backend.LEAST_BLOCK", 37)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for row in range(40):
            for all_rows, alone in (
                (whole, kernels().encode_above(encoder(x_BD[row : row + 1], W_FD, b_F), floor_F, 10**9).code),
                (top, kernels().encode_top_k(encoder(x_BD[row : row + 1], W_FD, b_F), 9).code),
            ):
                part = slice(int(all_rows.offset_R[row]), int(all_rows.offset_R[row + 1]))
                assert torch.equal(all_rows.feature_N[part], alone.feature_N)
                assert torch.equal(all_rows.value_N[part], alone.value_N)
    finally:
        torch.set_num_threads(threads)


def test_rows_that_are_zero_or_not_numbers() -> None:
    x_BD = torch.zeros(4, 20)
    x_BD[1], x_BD[2] = torch.nan, torch.inf
    b_F = torch.linspace(-1, 1, 50)
    W_FD = torch.ones(50, 20)
    for screened in (True, False):
        code = kernels(screened=screened).encode_above(encoder(x_BD, W_FD, b_F), None, 10**9).code
        assert found(code) == {(row, f) for row in (0, 3) for f in range(25, 50)} | {(2, f) for f in range(50)}


@pytest.mark.parametrize(("x", "w"), [(1e-20, 1e-19), (1e-19, 1.1e-19), (1e-39, 1e10), (1e10, 1e-39)])
def test_numbers_that_the_units_take_for_zero(x: float, w: float) -> None:
    x_BD, W_FD = torch.full((3, 64), x), torch.full((40, 64), w)
    floor_F = torch.full((40,), 0.9 * 64 * x * w)
    for screened in (True, False):
        code = kernels(screened=screened).encode_above(encoder(x_BD, W_FD), floor_F, 10**9).code
        assert code.num_entries == 120


def test_other_layouts_are_encoded_and_other_precisions_refused() -> None:
    draw = torch.Generator().manual_seed(6)
    x_BD, W_FD = torch.randn(12, 64, generator=draw), torch.randn(90, 64, generator=draw)
    expected = found(kernels(screened=False).encode_top_k(encoder(x_BD, W_FD), 5).code)
    strided_BD = torch.randn(12, 128, generator=draw)
    strided_BD[:, ::2] = x_BD
    for rows, columns in ((strided_BD[:, ::2], W_FD.T), (x_BD, W_FD.T.contiguous())):
        assert found(kernels().encode_top_k(Encoder(rows, columns, torch.zeros(90)), 5).code) == expected
    same_BD = x_BD[:1].expand(8, -1)
    assert kernels().encode_top_k(encoder(same_BD, W_FD), 5).code.num_entries == 40
    for other in (x_BD.double(), x_BD.half(), x_BD.bfloat16()):
        with pytest.raises(RuntimeError):
            kernels().encode_top_k(encoder(other, W_FD), 5)


def test_features_that_are_wanted_whole_have_their_float32_values() -> None:
    draw = torch.Generator().manual_seed(5)
    x_BD, W_FD, b_F = (torch.randn(*shape, generator=draw) for shape in ((30, 64), (200, 64), (200,)))
    kept_M = torch.tensor([0, 5, 36, 37, 199])
    encoded = kernels().encode_top_k(encoder(x_BD, W_FD, b_F, kept_M), 7)
    assert encoded.kept_BM is not None
    torch.testing.assert_close(encoded.kept_BM, x_BD @ W_FD[kept_M].T + b_F[kept_M])


def test_only_large_encoders_in_float32_are_screened_and_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    single, double = load_engine(), load_engine(double=True)
    assert single is not None
    assert double is not None
    for able in (True, False):
        monkeypatch.setattr("neuronmap.saes.kernels.native.backend.can_screen", lambda able=able: able)
        monkeypatch.setattr(choice, "can_screen", lambda able=able: able)
        assert NativeKernels(Workspace(), single).screens_from == (screening.LEAST_WEIGHTS if able else None)
        assert NativeKernels(Workspace(screens=False), single).screens_from is None
        assert NativeKernels(Workspace(), double).screens_from is None
        assert choice.screens("auto", screening.LEAST_WEIGHTS) is able
        assert not choice.screens("auto", screening.LEAST_WEIGHTS - 1)
        assert not choice.screens("float32", screening.LEAST_WEIGHTS)
        described = choice.describe(torch.device("cpu"))
        assert ("screened in bfloat16" in described) is able
    assert choice.screens_products("auto") is None
    assert choice.screens_products("float32") is False
