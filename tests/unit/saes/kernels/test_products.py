"""Decode, errors and gradients over the entries of a code equal plain autograd in float64, in every backend.

Shapes: B rows, D = d_in, F = d_sae, N entries, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from neuronmap.saes.kernels.protocol import Encoder, Kernels
from neuronmap.saes.workspace import Workspace

SCALE = 0.37

# rows, d_in, features, widths of the levels
SIZES = [
    (1, 1, 5, (5,)),
    (5, 7, 33, (33,)),
    (5, 7, 33, (1, 2, 3, 33)),
    (6, 33, 130, (130,)),
    (6, 33, 130, (16, 40, 90, 130)),
    (70, 2, 90, tuple(range(1, 91))),
    (1037, 7, 70, (3, 70)),
]


@dataclass
class Problem:
    """Parameters and rows in float64, and which entries are active."""

    centred_BD: Tensor
    W_enc_DF: Tensor
    b_enc_F: Tensor
    W_dec_FD: Tensor
    floor_F: Tensor

    def encoder(self, dtype: torch.dtype) -> Encoder:
        W_FD = self.W_enc_DF.T.to(dtype).contiguous()
        return Encoder(self.centred_BD.to(dtype), W_FD.T, self.b_enc_F.to(dtype))


@dataclass
class Truth:
    """What autograd says."""

    pulled_LBD: Tensor
    squared_L: Tensor
    gradient_BF: Tensor
    W_enc_DF: Tensor
    b_enc_F: Tensor
    W_dec_FD: Tensor


def make_problem(numbers, rows: int, d_in: int, features: int, active: float) -> Problem:
    """About a share ``active`` of the entries; a row without any, features that never and that always fire, negative values."""
    W_dec_FD = torch.nn.functional.normalize(numbers(features, d_in, seed=2), dim=1)
    W_enc_DF, centred_BD = numbers(d_in, features, seed=1), numbers(rows, d_in)
    pre_BF = centred_BD @ W_enc_DF
    floor_F = torch.quantile(pre_BF, 1 - active, dim=0)
    if features > 5:
        floor_F[3], floor_F[features // 2] = 1e6, -1e6
    if rows > 2:
        centred_BD[1] = 0.0
        floor_F.clamp_min_(1e-3)
        floor_F[5] = -1e6
    return Problem(centred_BD, W_enc_DF, 0.0 * floor_F, W_dec_FD, floor_F)


def solve(problem: Problem, mask_BF: Tensor, widths: tuple[int, ...], detached: bool = False) -> Truth:
    """scale / 2 times the sum over levels and rows of |error|^2, by plain dense autograd.

    Detached: inner levels take the features of those before them as given.
    """
    W_enc_DF, b_enc_F, W_dec_FD = (
        tensor.clone().requires_grad_() for tensor in (problem.W_enc_DF, problem.b_enc_F, problem.W_dec_FD)
    )
    pre_BF = problem.centred_BD @ W_enc_DF + b_enc_F
    f_BF = torch.where(mask_BF, pre_BF, 0.0)
    f_BF.retain_grad()
    errors = [f_BF[:, :width] @ W_dec_FD[:width] - problem.centred_BD for width in widths]
    last = len(widths) - 1
    for level in range(1, last if detached else 0):
        start, width = widths[level - 1], widths[level]
        errors[level] = errors[level - 1].detach() + f_BF[:, start:width] @ W_dec_FD[start:width]
    (SCALE / 2 * sum(error.square().sum() for error in errors)).backward()
    pulling = [{level, last} if detached else range(level, len(widths)) for level in range(len(widths))]
    pulled_LBD = torch.stack([sum(errors[level] for level in levels) for levels in pulling]).detach()
    squared_L = torch.stack([error.square().sum(1).mean() for error in errors]).detach()
    return Truth(pulled_LBD, squared_L, f_BF.grad, W_enc_DF.grad, b_enc_F.grad, W_dec_FD.grad)


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the largest entry: sums of terms of either sign are only as exact as their terms are large."""
    atol = tolerance * max(1.0, float(expected.abs().max()) if expected.numel() else 0.0)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=atol)


def check(
    kernels: Kernels,
    problem: Problem,
    widths: tuple[int, ...],
    dtype: torch.dtype,
    tolerance: float,
    detached: bool = False,
) -> None:
    encoder = problem.encoder(dtype)
    encoded = kernels.encode_above(
        encoder, problem.floor_F.to(dtype), problem.centred_BD.numel() * len(problem.floor_F)
    )
    assert encoded is not None
    code = encoded.code
    mask_BF = torch.zeros(code.num_rows, code.num_features, dtype=torch.bool)
    mask_BF.view(-1)[code.flat()] = True
    truth = solve(problem, mask_BF, widths, detached)
    W_dec_FD = problem.W_dec_FD.to(dtype)
    found = kernels.reconstruct(code, W_dec_FD, encoder.centred_BD, widths, SCALE, detached)
    assert_close(found.pulled_LBD, truth.pulled_LBD, tolerance)
    assert_close(found.error_BD, truth.pulled_LBD[-1], tolerance)
    assert_close(found.squared_L, truth.squared_L, tolerance)
    assert_close(found.gradient_N, truth.gradient_BF.view(-1)[code.flat()], tolerance)
    features, d_in = W_dec_FD.shape
    out = (
        torch.full((features, d_in), torch.nan, dtype=dtype).T,
        torch.full((features,), torch.nan, dtype=dtype),
        torch.full((features, d_in), torch.nan, dtype=dtype),
    )
    kernels.weight_gradients(code, found.gradient_N, found, encoder.centred_BD, widths, SCALE, out)
    for gradient, expected in zip(out, (truth.W_enc_DF, truth.b_enc_F, truth.W_dec_FD), strict=True):
        assert_close(gradient, expected, tolerance)
    silent_F = code.fired() == 0
    assert not bool(out[2][silent_F].any())
    assert not bool(out[0].T[silent_F].any())


@pytest.mark.parametrize("active", [0.05, 0.6])
@pytest.mark.parametrize(("rows", "d_in", "features", "widths"), SIZES)
def test_errors_and_gradients_equal_autograd(any_backend, numbers, rows, d_in, features, widths, active):
    problem = make_problem(numbers, rows, d_in, features, active)
    check(any_backend.make(Workspace()), problem, widths, any_backend.dtype, any_backend.tolerance)


@pytest.mark.parametrize("widths", [(40,), (10, 40), (10, 20, 30, 40)])
def test_detached_levels_pull_only_what_they_add(any_backend, numbers, widths):
    problem = make_problem(numbers, 9, 7, 40, 0.3)
    check(any_backend.make(Workspace()), problem, widths, any_backend.dtype, any_backend.tolerance, detached=True)


@pytest.mark.parametrize("widths", [(33,), (1, 2, 3, 33)])
@pytest.mark.parametrize("entries", [1, 3, 256])
def test_features_are_summed_in_parts(triton_backend, numbers, monkeypatch, entries, widths):
    """One feature fires in every row, another in none."""
    monkeypatch.setattr("neuronmap.saes.kernels.triton.backend.PART_ENTRIES", entries)
    problem = make_problem(numbers, 20, 7, 33, 0.3)
    check(triton_backend.make(Workspace()), problem, widths, triton_backend.dtype, triton_backend.tolerance)


@pytest.mark.parametrize("case", ["nothing active", "everything active", "empty first level", "empty last level"])
@pytest.mark.parametrize("widths", [(40,), (10, 20, 30, 40)])
def test_levels_and_rows_without_entries(any_backend, numbers, case, widths):
    problem = make_problem(numbers, 9, 7, 40, 0.4)
    silent = {
        "nothing active": slice(None),
        "everything active": slice(0),
        "empty first level": slice(10),
        "empty last level": slice(30, 40),
    }[case]
    if case == "everything active":
        problem.floor_F.fill_(-1e6)
    problem.floor_F[silent] = 1e6
    check(any_backend.make(Workspace()), problem, widths, any_backend.dtype, any_backend.tolerance)


def test_buffers_left_by_other_shapes_do_not_show(any_backend, numbers):
    kernels = any_backend.make(Workspace())
    for rows, d_in, features, widths in ((30, 9, 90, (20, 90)), (5, 7, 33, (33,)), (30, 9, 90, (3, 4, 5, 90))):
        problem = make_problem(numbers, rows, d_in, features, 0.3)
        check(kernels, problem, widths, any_backend.dtype, any_backend.tolerance)


def test_top_k_codes_decode_like_any_other(any_backend, numbers):
    """A backend's own order of the entries in a row is one that its products understand."""
    problem = make_problem(numbers, 12, 7, 64, 0.5)
    kernels, encoder = any_backend.make(Workspace()), problem.encoder(any_backend.dtype)
    for code in (
        kernels.encode_top_k(encoder, 6).code,
        kernels.encode_top_of_batch(encoder, 70).code,
        kernels.top_k_of((encoder.centred_BD @ encoder.W_DF).contiguous(), 9),
    ):
        f_BF = code.dense(code.value_N, torch.empty(12, 64, dtype=any_backend.dtype)).double()
        widths = (5, 30, 64)
        found = kernels.reconstruct(code, problem.W_dec_FD.to(any_backend.dtype), encoder.centred_BD, widths, 1.0)
        errors = [f_BF[:, :width] @ problem.W_dec_FD[:width] - problem.centred_BD for width in widths]
        assert_close(found.error_BD, errors[-1], any_backend.tolerance)
        assert_close(found.pulled_LBD[0], errors[0] + errors[1] + errors[2], any_backend.tolerance)


def test_a_row_that_is_not_finite_spoils_only_its_own_errors(any_backend, numbers):
    problem = make_problem(numbers, 9, 7, 40, 0.4)
    kernels, encoder = any_backend.make(Workspace()), problem.encoder(any_backend.dtype)
    code = kernels.encode_above(encoder, problem.floor_F.to(any_backend.dtype), 9 * 40).code
    W_dec_FD = problem.W_dec_FD.to(any_backend.dtype)
    clean = kernels.reconstruct(code, W_dec_FD, encoder.centred_BD, (10, 40), 1.0)
    clean_LBD, clean_N = clean.pulled_LBD.clone(), clean.gradient_N.clone()
    encoder.centred_BD[4] = torch.nan
    spoiled = kernels.reconstruct(code, W_dec_FD, encoder.centred_BD, (10, 40), 1.0)
    finite_B = torch.arange(9) != 4
    assert torch.equal(spoiled.pulled_LBD[:, finite_B], clean_LBD[:, finite_B])
    assert torch.equal(spoiled.gradient_N[code.row_N != 4], clean_N[code.row_N != 4])
    assert not bool(spoiled.squared_L.isfinite().any())


def products(kernels: Kernels, shift: int, dtype: torch.dtype, numbers) -> list[Tensor]:
    """Everything that no matrix product is part of, on tensors that begin ``shift`` numbers after an aligned address."""

    def moved(tensor: Tensor) -> Tensor:
        room = torch.empty(tensor.numel() + shift, dtype=dtype)
        return room[shift:].view(tensor.shape).copy_(tensor)

    rows, d_in, features = 300, 37, 200
    pre_BF, centred_BD, W_dec_FD = (
        moved(numbers(rows, features)),
        moved(numbers(rows, d_in)),
        moved(numbers(features, d_in, seed=5)),
    )
    code = kernels.top_k_of(pre_BF, 9)
    found = kernels.reconstruct(code, W_dec_FD, centred_BD, (50, 200), 0.1)
    out = (moved(W_dec_FD).T, moved(pre_BF[0]), moved(W_dec_FD))
    kernels.weight_gradients(code, found.gradient_N, found, centred_BD, (50, 200), 0.1, out)
    kept_BF = kernels.keep_top_k(moved(pre_BF), 9)
    parts = (code.flat(), code.value_N, found.pulled_LBD, found.squared_L, found.gradient_N, *out, kept_BF)
    return [part.clone() for part in parts]


def same_bits(backend, shifts: tuple[int, ...], numbers) -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for count, shift in zip((1, 2, 2, 3, 1), shifts, strict=False):
            torch.set_num_threads(count)
            kernels = backend.make(Workspace())
            found += [products(kernels, shift, backend.dtype, numbers) for _ in range(2)]
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_products_are_the_same_bits_with_any_number_of_threads(backend, numbers):
    """A resumed run repeats every bit."""
    interpreted = backend.label.startswith("triton")  # and takes seconds; twice is enough
    same_bits(backend, (0,) if interpreted else (0, 0, 0, 0, 0), numbers)


def test_native_products_are_the_same_bits_at_any_address(native_backend, numbers):
    """A compiler may treat the numbers up to the first aligned address apart, and then sums depend on where memory was found."""
    same_bits(native_backend, (0, 0, 0, 1, 3), numbers)


@pytest.mark.parametrize("widths", [(2000,), (900, 2000)])
def test_entries_of_value_zero_add_nothing_and_have_a_gradient(any_backend, numbers, widths):
    """jumprelu's window: entries below their threshold. More of either kind in a row than a kernel gathers at a time."""
    problem = make_problem(numbers, 4, 7, 2000, 0.9)
    kernels, encoder = any_backend.make(Workspace()), problem.encoder(any_backend.dtype)
    encoded = kernels.encode_above(encoder, problem.floor_F.to(any_backend.dtype), 4 * 2000)
    assert encoded is not None
    code = encoded.code
    kept_N = torch.arange(code.num_entries) % 5 != 1
    code = replace(code, value_N=code.value_N * kept_N)
    assert min(int(kept_N[code.row_N == row].sum()) for row in (0, 2, 3)) > 512
    W_dec_FD = problem.W_dec_FD.to(any_backend.dtype)
    found = kernels.reconstruct(code, W_dec_FD, encoder.centred_BD, widths, SCALE)
    f_BF = code.dense(code.value_N, torch.empty(4, 2000, dtype=any_backend.dtype)).double()
    errors = [f_BF[:, :width] @ problem.W_dec_FD[:width] - problem.centred_BD for width in widths]
    gradient_BF = SCALE * errors[-1] @ problem.W_dec_FD.T
    for error, width in zip(errors[:-1], widths, strict=False):
        gradient_BF[:, :width] += SCALE * error @ problem.W_dec_FD[:width].T
    assert_close(found.error_BD, errors[-1], any_backend.tolerance)
    assert_close(found.gradient_N, gradient_BF.view(-1)[code.flat()], any_backend.tolerance)
