"""Encoding finds exactly the entries that the rule names, in every backend.

Shapes: B rows, D = d_in, F = d_sae, M chosen features.

Inputs are small multiples of 1/8, so that every product and sum is exact in float32 and in any order: what is found is
compared for equality, ties included.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.native.backend import NativeKernels
from neuronmap.saes.kernels.native.library import load_engine
from neuronmap.saes.kernels.portable import TorchKernels
from neuronmap.saes.kernels.protocol import Encoded, Encoder
from neuronmap.saes.workspace import Workspace

SIZES = [
    # rows, d_in, features, k
    (1, 1, 5, 1),
    (5, 7, 33, 3),
    (5, 7, 33, 32),
    (5, 7, 33, 33),
    (3, 33, 700, 1),
    (3, 33, 700, 64),
    (6, 7, 2000, 200),
    (2, 1, 4099, 600),
    (1037, 3, 70, 2),
]


def multiples(*shape: int, levels: int, seed: int) -> Tensor:
    """Multiples of 1/8 with ``levels`` values on each side of 0; few levels make ties everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-levels, levels + 1, shape, generator=generator).double() / 8


def problem(rows: int, d_in: int, features: int, levels: int = 50, seed: int = 0) -> tuple[Encoder, Tensor]:
    """An encoder with a row that is zero before its bias, equal rows and a feature that is never positive; and its pre-activations."""
    x_BD = multiples(rows, d_in, levels=levels, seed=seed)
    W_FD = multiples(features, d_in, levels=levels, seed=seed + 1)
    b_F = multiples(features, levels=levels, seed=seed + 2)
    if rows > 2:
        x_BD[0] = 0.0
        x_BD[-1] = x_BD[1]
    b_F[features // 2] = -1e5
    return Encoder(x_BD, W_FD.T, b_F), x_BD @ W_FD.T + b_F


def cast(encoder: Encoder, dtype: torch.dtype, kept_M: Tensor | None = None) -> Encoder:
    W_FD = encoder.W_DF.T.to(dtype).contiguous()
    return Encoder(encoder.centred_BD.to(dtype).contiguous(), W_FD.T, encoder.b_F.to(dtype), kept_M)


def dense(code: SparseCode) -> Tensor:
    out_BF = torch.empty(code.num_rows, code.num_features, dtype=code.value_N.dtype)
    return code.dense(code.value_N, out_BF).double()


def top_k_by_definition(pre_BF: Tensor, k: int) -> Tensor:
    """Sort stably (ties stay in order of their index), keep the first k, apply the ReLU."""
    first = torch.sort(pre_BF, dim=1, descending=True, stable=True).indices[:, :k]
    kept = torch.zeros_like(pre_BF, dtype=torch.bool).scatter_(1, first, True)
    return torch.where(kept, pre_BF, 0.0).relu()


def top_of_batch_by_definition(pre_BF: Tensor, count: int) -> Tensor:
    return top_k_by_definition(pre_BF.reshape(1, -1), count).view_as(pre_BF)


def assert_well_formed(code: SparseCode) -> None:
    """Rows ascend, offsets say where they start, and no entry is there twice; padding is what it should be."""
    assert bool((code.row_N.diff() >= 0).all())
    padding = slice(int(code.offset_R[-1]), None)
    assert code.padded or code.value_N[padding].numel() == 0
    assert not bool(code.value_N[padding].any())
    assert not bool(code.feature_N[padding].any())
    assert bool((code.row_N[padding] == code.num_rows - 1).all())
    assert torch.equal(code.fired(), torch.bincount(code.trimmed().feature_N, minlength=code.num_features))
    code = code.trimmed()
    assert bool((code.row_N.diff() >= 0).all())
    assert torch.equal(code.offset_R.diff(), torch.bincount(code.row_N, minlength=code.num_rows))
    assert int(code.offset_R[0]) == 0
    assert int(code.offset_R[-1]) == code.num_entries == code.value_N.numel() == code.row_N.numel()
    assert code.flat().unique().numel() == code.num_entries


def assert_encoded(found: Encoded | SparseCode | None, expected_BF: Tensor) -> None:
    assert found is not None
    code = found.code if isinstance(found, Encoded) else found
    assert_well_formed(code)
    smallest = float(expected_BF[expected_BF > 0].min()) if bool((expected_BF > 0).any()) else 0.0
    assert float(code.smallest()) == smallest
    assert torch.equal(dense(code), expected_BF)  # with its padding
    code = code.trimmed()
    assert code.num_entries == int((expected_BF != 0).sum())
    assert torch.equal(dense(code), expected_BF)


@pytest.mark.parametrize("levels", [50, 1])
@pytest.mark.parametrize(("rows", "d_in", "features", "k"), SIZES)
def test_top_k_keeps_the_k_largest_of_each_row_and_ties_go_to_the_lowest_feature(
    backend, pieces, rows, d_in, features, k, levels
):
    encoder, pre_BF = problem(rows, d_in, features, levels)
    kernels = backend.make(Workspace())
    expected_BF = top_k_by_definition(pre_BF, k)
    assert_encoded(kernels.encode_top_k(cast(encoder, backend.dtype), k), expected_BF)
    assert_encoded(kernels.top_k_of(pre_BF.to(backend.dtype), k), expected_BF)
    assert torch.equal(kernels.keep_top_k(pre_BF.to(backend.dtype), k).double(), expected_BF)


@pytest.mark.parametrize("levels", [50, 1])
@pytest.mark.parametrize(("rows", "d_in", "features", "k"), SIZES)
def test_top_of_batch_keeps_the_largest_and_ties_go_to_the_lowest_row_then_feature(
    backend, pieces, rows, d_in, features, k, levels
):
    encoder, pre_BF = problem(rows, d_in, features, levels)
    kernels = backend.make(Workspace())
    positive = int((pre_BF > 0).sum())
    for count in (rows * k, 1, max(1, positive - 1), max(1, positive), positive + 1):
        found = kernels.encode_top_of_batch(cast(encoder, backend.dtype), count)
        assert_encoded(found, top_of_batch_by_definition(pre_BF, count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_rows_has_no_entries(dtype):
    empty = cast(Encoder(torch.empty(0, 3), torch.ones(3, 7), torch.zeros(7)), dtype)
    for kernels in (
        TorchKernels(Workspace()),
        *([NativeKernels(Workspace(), e)] if (e := load_engine(dtype == torch.float64)) else []),
    ):
        for found in (
            kernels.encode_top_k(empty, 2),
            kernels.encode_top_of_batch(empty, 4),
            kernels.encode_above(empty, None, 9),
        ):
            assert found is not None
            assert found.code.num_rows == found.code.num_entries == 0


@pytest.mark.parametrize("k", [1, 64, 600, 1100])
@pytest.mark.parametrize("rising", [True, False])
def test_rows_that_rise_all_the_way_are_searched_to_their_end(backend, pieces, k, rising):
    """Every value beats all before it, so that lists of candidates fill up as far as they can."""
    features = 1201 if "triton" in backend.label else 4099  # interpreted kernels are slow
    pre_BF = torch.arange(1.0, features + 1.0, dtype=torch.float64).repeat(3, 1)
    pre_BF = pre_BF if rising else pre_BF.flip(1)
    kernels = backend.make(Workspace())
    assert_encoded(kernels.top_k_of(pre_BF.to(backend.dtype), k), top_k_by_definition(pre_BF, k))
    encoder = Encoder(torch.ones(3, 1), pre_BF[:1], torch.zeros(features))
    cased = cast(encoder, backend.dtype)
    assert_encoded(kernels.encode_top_k(cased, k), top_k_by_definition(pre_BF, k))
    for _ in range(2):
        found = kernels.encode_top_of_batch(cased, 3 * k + 1)
        assert_encoded(found, top_of_batch_by_definition(pre_BF, 3 * k + 1))


FLOORS = ["zero", "positive", "negative", "either", "none passes", "all pass"]


@pytest.mark.parametrize("floors", FLOORS)
@pytest.mark.parametrize(("rows", "d_in", "features"), [(1, 1, 5), (5, 7, 33), (6, 7, 700), (1037, 3, 70)])
def test_entries_above_their_floor_are_found_with_their_sign(backend, pieces, rows, d_in, features, floors):
    encoder, pre_BF = problem(rows, d_in, features)
    floor_F = {
        "zero": None,
        "positive": torch.full((features,), 2.0, dtype=torch.float64),
        "negative": torch.full((features,), -3.0, dtype=torch.float64),
        "either": multiples(features, levels=30, seed=9),
        "none passes": torch.full((features,), 1e6, dtype=torch.float64),
        "all pass": torch.full((features,), -1e6, dtype=torch.float64),
    }[floors]
    above_BF = pre_BF > (0.0 if floor_F is None else floor_F)
    count = int(above_BF.sum())
    kernels, cased = backend.make(Workspace()), cast(encoder, backend.dtype)
    floor_F = None if floor_F is None else floor_F.to(backend.dtype)
    found = kernels.encode_above(cased, floor_F, count)
    assert found is not None
    assert_well_formed(found.code)
    mask_BF = torch.zeros(rows, features, dtype=torch.bool).view(-1)
    mask_BF[found.code.flat()] = True
    assert torch.equal(mask_BF.view_as(above_BF), above_BF)
    assert torch.equal(found.code.value_N.double(), pre_BF.view(-1)[found.code.flat()])
    if count:
        assert kernels.encode_above(cased, floor_F, count - 1) is None
        again = kernels.encode_above(cased, floor_F, count)
        assert again is not None
        assert torch.equal(again.code.value_N, found.code.value_N)


@pytest.mark.parametrize("rule", ["top_k", "top_of_batch", "above"])
@pytest.mark.parametrize("chosen", [[0], [69], [0, 36, 37, 38, 69], list(range(0, 70, 3)), list(range(70))])
def test_chosen_features_come_whole(backend, pieces, rule, chosen):
    encoder, pre_BF = problem(11, 7, 70)
    kept_M = torch.tensor(chosen)
    kernels, cased = backend.make(Workspace()), cast(encoder, backend.dtype, kept_M)
    for _ in range(2):
        if rule == "top_k":
            found = kernels.encode_top_k(cased, 3)
        elif rule == "top_of_batch":
            found = kernels.encode_top_of_batch(cased, 33)
        else:
            found = kernels.encode_above(cased, None, 11 * 70)
        assert found.kept_BM is not None
        assert torch.equal(found.kept_BM.double(), pre_BF[:, kept_M])
        assert found.kept_BM.is_contiguous()
    assert kernels.encode_top_k(cast(encoder, backend.dtype), 3).kept_BM is None


def scaled(encoder: Encoder, factor: float) -> Encoder:
    return Encoder(encoder.centred_BD * factor, encoder.W_DF, encoder.b_F * factor)


def test_top_of_batch_does_not_depend_on_the_batches_before(backend, pieces):
    """The threshold falls, rises, and the batch changes its size and its count: the answer is always the definition's."""
    kernels = backend.make(Workspace())
    for step, (factor, rows, k) in enumerate(
        [
            (1.0, 40, 3),
            (0.125, 40, 3),
            (0.125, 40, 3),
            (8.0, 40, 3),
            (1.0, 7, 3),
            (1.0, 90, 3),
            (1.0, 90, 20),
            (1.0, 90, 1),
        ]
    ):
        encoder, pre_BF = problem(rows, 5, 130, seed=step)
        found = kernels.encode_top_of_batch(cast(scaled(encoder, factor), backend.dtype), rows * k)
        assert_encoded(found, factor * top_of_batch_by_definition(pre_BF, rows * k))


def test_a_fallen_threshold_costs_one_repeated_pass_and_a_risen_one_none(native_backend, pieces):
    kernels = native_backend.make(Workspace())
    encoder, _ = problem(40, 5, 130)
    cased = cast(encoder, native_backend.dtype)
    for factor, reruns in ((1.0, 0), (1.0, 0), (0.125, 1), (0.125, 1), (8.0, 1), (1.0, 2)):
        kernels.encode_top_of_batch(scaled(cased, factor), 120)
        assert kernels.reruns == reruns


def test_batches_with_fewer_positive_entries_than_wanted_are_not_encoded_twice_each(native_backend):
    kernels = native_backend.make(Workspace())
    encoder, pre_BF = problem(40, 5, 130)
    cased = cast(encoder, native_backend.dtype)
    kernels.encode_top_of_batch(cased, 120)
    for _ in range(3):
        found = kernels.encode_top_of_batch(cased, 40 * 130)
        assert_encoded(found, pre_BF.relu())
    assert kernels.reruns == 1


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_nothing_positive_gives_an_empty_code(backend, pieces, value):
    encoder = Encoder(torch.zeros(5, 3), torch.zeros(80, 3).T, torch.full((80,), value))
    kernels, cased = backend.make(Workspace()), cast(encoder, backend.dtype)
    nothing_BF = torch.zeros(5, 80, dtype=torch.float64)
    for k in (1, 7, 80):
        assert_encoded(kernels.encode_top_k(cased, k), nothing_BF)
        assert_encoded(kernels.encode_top_of_batch(cased, 5 * k), nothing_BF)
        assert_encoded(kernels.top_k_of(cased.b_F.expand(5, 80).contiguous(), k), nothing_BF)
        assert torch.equal(kernels.keep_top_k(cased.b_F.expand(5, 80).clone(), k).double(), nothing_BF)
    assert_encoded(kernels.encode_above(cased, None, 0), nothing_BF)


def test_no_rows_give_an_empty_code(backend, pieces):
    """37 features a block make the native engine's table of counts grow."""
    encoder, _ = problem(1, 3, 1500)
    none = Encoder(encoder.centred_BD[:0], encoder.W_DF, encoder.b_F)
    kernels, cased = backend.make(Workspace()), cast(none, backend.dtype)
    for found in (kernels.encode_top_k(cased, 3), kernels.encode_above(cased, None, 10)):
        assert found is not None
        assert found.code.trimmed().num_entries == 0
        assert found.code.offset_R.tolist() == [0]


def test_all_values_equal_keeps_the_first(backend, pieces):
    """Ties that straddle every block of features and every row."""
    encoder = Encoder(torch.zeros(9, 2), torch.zeros(100, 2).T, torch.full((100,), 1.5))
    kernels, cased = backend.make(Workspace()), cast(encoder, backend.dtype)
    expected_BF = torch.zeros(9, 100, dtype=torch.float64)
    expected_BF[:, :38] = 1.5
    assert_encoded(kernels.encode_top_k(cased, 38), expected_BF)
    expected_BF = torch.zeros(900, dtype=torch.float64)
    expected_BF[:338] = 1.5
    for _ in range(2):
        assert_encoded(kernels.encode_top_of_batch(cased, 338), expected_BF.view(9, 100))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_spoils_no_other(backend, pieces, bad):
    """Its own entries mean nothing, but every row that is finite gets its own, and nothing crashes."""
    encoder, pre_BF = problem(9, 5, 130)
    encoder.centred_BD[4] = bad
    kernels, cased = backend.make(Workspace()), cast(encoder, backend.dtype)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    expected_BF = top_k_by_definition(pre_BF, 6)[others]
    spoiled_BF = pre_BF.clone()
    spoiled_BF[4] = bad
    for code in (kernels.encode_top_k(cased, 6).code, kernels.top_k_of(spoiled_BF.to(backend.dtype), 6)):
        assert_well_formed(code)
        assert torch.equal(dense(code)[others], expected_BF)
    assert torch.equal(kernels.keep_top_k(spoiled_BF.to(backend.dtype), 6).double()[others], expected_BF)
    found = kernels.encode_above(cased, None, 9 * 130)
    assert found is not None
    assert torch.equal(dense(found.code)[others], pre_BF.relu()[others])
    batch = kernels.encode_top_of_batch(cased, 54)  # infinite values of the bad row may take places from the others
    assert_well_formed(batch.code)
    kept_BF = dense(batch.code)[others]
    assert torch.equal(kept_BF, torch.where(kept_BF > 0, pre_BF[others], 0.0))
    encoder, pre_BF = problem(9, 5, 130, seed=7)  # the next batch is not affected
    found = kernels.encode_top_of_batch(cast(encoder, backend.dtype), 54)
    assert_encoded(found, top_of_batch_by_definition(pre_BF, 54))


def test_infinite_values_rank_above_all_others(backend):
    pre_BF = torch.tensor([[1.0, torch.inf, 3.0, -torch.inf, torch.inf, 2.0, 5.0]], dtype=backend.dtype)
    kernels = backend.make(Workspace())
    code = kernels.top_k_of(pre_BF, 3)
    assert sorted(code.feature_N.tolist()) == [1, 4, 6]


def test_a_code_is_still_what_it_was_after_the_next_step(backend):
    """Of larger, smaller and equal batches on the same workspace; as an evaluation between two steps would be."""
    kernels = backend.make(Workspace())
    first, pre_BF = problem(30, 5, 130)
    codes = [
        (kernels.encode_top_k(cast(first, backend.dtype), 4).code, top_k_by_definition(pre_BF, 4)),
        (kernels.encode_top_of_batch(cast(first, backend.dtype), 90).code, top_of_batch_by_definition(pre_BF, 90)),
        (kernels.encode_above(cast(first, backend.dtype), None, 30 * 130).code, pre_BF.relu()),
        (kernels.top_k_of(pre_BF.to(backend.dtype), 7), top_k_by_definition(pre_BF, 7)),
    ]
    for rows, features in ((30, 130), (3, 40), (80, 300)):
        later, _ = problem(rows, 5, features, seed=rows)
        cased = cast(later, backend.dtype)
        kernels.encode_top_k(cased, 5)
        kernels.encode_top_of_batch(cased, 2 * rows)
        kernels.encode_above(cased, None, rows * features)
    for code, expected_BF in codes:
        assert_encoded(code, expected_BF)


def test_the_matrix_of_pre_activations_never_exists(native_backend):
    """512 x 65536 of them: a step of every encoding holds less than a fifth of that at any time."""
    workspace = Workspace()
    kernels = native_backend.make(workspace)
    rows, features = 512, 65536
    generator = torch.Generator().manual_seed(0)
    x_BD = torch.randn(rows, 8, generator=generator, dtype=native_backend.dtype)
    W_FD = torch.randn(features, 8, generator=generator, dtype=native_backend.dtype)
    encoder = Encoder(x_BD, W_FD.T, torch.zeros(features, dtype=native_backend.dtype))
    kernels.encode_top_k(encoder, 32)
    kernels.encode_top_of_batch(encoder, rows * 32)
    code = kernels.encode_top_of_batch(encoder, rows * 32).code
    kernels.encode_above(encoder, torch.full_like(encoder.b_F, 6.0), rows * features // 10)
    found = kernels.reconstruct(code, W_FD, x_BD, (features,), 1.0)
    out = (torch.empty_like(W_FD).T, torch.empty_like(encoder.b_F), torch.empty_like(W_FD))
    kernels.weight_gradients(code, found.gradient_N, found, x_BD, (features,), 1.0, out)
    assert workspace.nbytes < rows * features * x_BD.itemsize / 5


def test_the_torch_backend_holds_a_bounded_part_of_the_pre_activations():
    """2**24 of the 2**26 at a time."""
    from neuronmap.saes.kernels.portable import CHUNK_ENTRIES, TorchKernels

    workspace = Workspace()
    x_BD, W_FD = torch.randn(4096, 2), torch.randn(16384, 2)
    TorchKernels(workspace).encode_above(Encoder(x_BD, W_FD.T, torch.full((16384,), -9.0)), None, x_BD.shape[0] * 16384)
    assert workspace.nbytes <= 4 * CHUNK_ENTRIES


@pytest.mark.parametrize("rule", ["top_k", "top_of_batch"])
def test_factors_in_bfloat16_are_multiplied_exactly(triton_backend, rule):
    """A copy of W in bfloat16 rounds both factors to 8 bits, and what they come to; products and sums are exact in float32."""
    encoder, _ = problem(9, 7, 200, levels=1500)
    rounded_BD, rounded_DF = encoder.centred_BD.bfloat16(), encoder.W_DF.bfloat16()
    pre_BF = (rounded_BD.double() @ rounded_DF.double()).bfloat16().double() + encoder.b_F
    assert not torch.equal(pre_BF, encoder.centred_BD @ encoder.W_DF + encoder.b_F)
    cased = cast(encoder, torch.float32)
    kernels = triton_backend.make(Workspace())
    for _ in range(2):
        given = Encoder(cased.centred_BD, cased.W_DF, cased.b_F, torch.arange(0, 200, 7), rounded_DF)
        if rule == "top_k":
            found, expected_BF = kernels.encode_top_k(given, 5), top_k_by_definition(pre_BF, 5)
        else:
            found, expected_BF = kernels.encode_top_of_batch(given, 45), top_of_batch_by_definition(pre_BF, 45)
        assert_encoded(found, expected_BF)
        assert found.kept_BM is not None
        assert torch.equal(found.kept_BM.double(), pre_BF[:, ::7])
