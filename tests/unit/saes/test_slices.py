"""A slice of an SAE has the numbers that the whole has there."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from neuronmap.saes import get_architecture
from neuronmap.saes.slices import FeatureSlice, drawn_rows, feature_axis, sliced


@pytest.mark.parametrize(("d_in", "d_sae"), [(3, 20), (5, 9000), (2, 20_001), (16, 8192)])
def test_parts_of_the_random_start_are_those_of_the_whole(d_in, d_sae):
    generator = torch.Generator().manual_seed(7)
    whole = torch.randn(d_sae, d_in, generator=generator)
    after = torch.randn(3, generator=generator)
    edges = [0, d_sae // 3, d_sae // 2, d_sae]
    for start, stop in pairwise(edges):
        generator = torch.Generator().manual_seed(7)
        part = drawn_rows(FeatureSlice(start, stop, d_sae), d_in, generator)
        assert torch.equal(part, whole[start:stop])
        assert torch.equal(torch.randn(3, generator=generator), after)  # what is drawn next is the same, too


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka", "relu", "gated", "jumprelu"])
def test_a_slice_begins_as_its_part_of_the_whole(name):
    owner, d_in, d_sae = get_architecture(name), 6, 32
    whole = owner(d_in, d_sae)
    mean_D = torch.arange(d_in) / 20
    whole.initialise(mean_D, torch.Generator().manual_seed(3))
    axes = {key: feature_axis(whole, tensor) for key, tensor in [*whole.named_parameters(), *whole.named_buffers()]}
    place = FeatureSlice(8, 24, d_sae)
    part = sliced(owner(d_in, d_sae, device="meta"), place, torch.device("cpu"))
    part.initialise(mean_D, torch.Generator().manual_seed(3))
    assert (part.d_sae, part.whole_d_sae) == (16, 32)
    assert part.W_enc.T.is_contiguous()
    assert part.state_dict().keys() == whole.state_dict().keys()
    for key, tensor in part.state_dict().items():
        expected, axis = whole.state_dict()[key], axes[key]
        assert torch.equal(tensor, expected if axis is None else expected.narrow(axis, 8, 16)), key


def test_levels_of_a_slice_are_what_it_holds_of_each():
    place = FeatureSlice(8, 24, 32)
    assert place.clipped((2, 6, 14, 32)) == (0, 0, 6, 16)
