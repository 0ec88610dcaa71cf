"""A code and its parts."""

from __future__ import annotations

import torch

from neuronmap.saes.kernels.code import SparseCode, offsets


def test_some_entries_of_a_code_are_a_code_of_the_same_rows_and_features():
    generator = torch.Generator().manual_seed(0)
    f_BF = torch.randn(7, 5, generator=generator).relu_()
    f_BF[3] = 0.0
    flat_N = torch.nonzero(f_BF.view(-1)).view(-1)
    code = SparseCode.from_flat(flat_N, f_BF.view(-1)[flat_N], 7, 5)
    large = code.where(code.value_N > 0.8)
    kept_BF = torch.where(f_BF > 0.8, f_BF, 0.0)
    assert torch.equal(large.dense(large.value_N, torch.empty(7, 5)), kept_BF)
    assert torch.equal(large.offset_R, offsets(torch.nonzero(kept_BF)[:, 0], 7))
    assert torch.equal(large.fired(), (kept_BF > 0).sum(dim=0))
    assert code.where(code.value_N < 0).num_entries == 0
