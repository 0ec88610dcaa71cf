"""A step of an SAE whose features lie on several ranks is the step of the whole: loss, firings and every gradient.

The ranks are threads here, which exchange tensors at a barrier: the arithmetic is what is tested. Processes are in
tests/unit/training/parallel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, StepLoss, StepState, Workspace, get_architecture
from neuronmap.saes.slices import FeatureSlice, feature_axis, sliced

D, F, B, RANKS = 6, 48, 64, (2, 3)
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "topk": ("topk", {"k": 4, "aux_k": 3}, "sparse"),
    "topk, AuxK over entries": ("topk", {"k": 4, "aux_k": 1}, "sparse"),
    "topk, dense": ("topk", {"k": 30, "aux_k": 3}, "dense"),
    "batchtopk": ("batchtopk", {"k": 4, "aux_k": 3}, "sparse"),
    "matryoshka": ("matryoshka", {"k": 4, "aux_k": 3}, "sparse"),
    "matryoshka, detached": ("matryoshka", {"k": 4, "aux_k": 3, "detach_levels": True}, "dense"),
    "relu": ("relu", {"sparsity_penalty": 0.1}, "sparse"),
    "relu, dense": ("relu", {"sparsity_penalty": 0.1}, "dense"),
    "gated": ("gated", {"sparsity_penalty": 0.1}, "sparse"),
    "gated, dense": ("gated", {"sparsity_penalty": 0.1}, "dense"),
    "jumprelu": ("jumprelu", {"target_l0": 4}, "sparse"),
    "jumprelu, dense": ("jumprelu", {"target_l0": 4}, "dense"),
    "jumprelu, tanh": ("jumprelu", {"sparsity_form": "tanh"}, "sparse"),
    "jumprelu, tanh, dense": ("jumprelu", {"sparsity_form": "tanh"}, "dense"),
}
DEAD = torch.arange(20, 32)  # of two ranks the second has more of them, of three the last none


class Threads:
    """A rank among threads; every one makes the same calls."""

    def __init__(self, rank: int, count: int, barrier: threading.Barrier, table: list[Any]) -> None:
        self.rank, self.count, self._barrier, self._table = rank, count, barrier, table

    def gathered(self, tensor: Tensor) -> Tensor:
        self._table[self.rank] = tensor.clone()
        self._barrier.wait()
        found = torch.stack(list(self._table))
        self._barrier.wait()
        return found

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(self.gathered(tensor).sum(dim=0))

    def mean_(self, tensor: Tensor) -> Tensor:
        return self.sum_(tensor).div_(self.count)


def on_threads(count: int, work: Callable[[Threads], Any]) -> list[Any]:
    """What each of so many ranks gives."""
    barrier, table = threading.Barrier(count, timeout=30), [None] * count

    def one(rank: int) -> Any:
        try:
            return work(Threads(rank, count, barrier, table))
        except threading.BrokenBarrierError:
            raise
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def made(name: str, options: dict[str, Any], dtype: torch.dtype) -> SparseAutoencoder:
    """An SAE with nothing at zero."""
    owner = get_architecture(name)
    sae = owner(D, F, owner.Options(**options), dtype=dtype)
    g = torch.Generator().manual_seed(1)
    sae.initialise(torch.zeros(D), g)
    with torch.no_grad():
        for key, parameter in sae.named_parameters():
            if key not in ("W_dec", "threshold"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g).to(dtype))
    return sae


def part_of(whole: SparseAutoencoder, place: FeatureSlice) -> SparseAutoencoder:
    part = sliced(type(whole)(D, F, whole.options, device="meta", dtype=whole.dtype), place, torch.device("cpu"))
    axes = {key: feature_axis(whole, one) for key, one in [*whole.named_parameters(), *whole.named_buffers()]}
    part.load_state_dict(
        {
            key: tensor if axes[key] is None else tensor.narrow(axes[key], place.start, place.width)
            for key, tensor in whole.state_dict().items()
        }
    )
    return part


def step(sae: SparseAutoencoder, x_BD: Tensor, workspace: Workspace, dead_F: Tensor) -> StepLoss:
    state = StepState(dead_F=dead_F, dead_M=torch.nonzero(dead_F).view(-1), active_share=0.1)
    return sae.loss_and_gradients(x_BD, state, workspace)


@pytest.mark.parametrize("kernels", ["torch", "native"])
@pytest.mark.parametrize("count", RANKS)
@pytest.mark.parametrize("case", CASES)
def test_ranks_that_share_the_features_make_the_step_of_the_whole(case, count, kernels):
    name, options, products = CASES[case]
    by_batch = name in ("batchtopk", "matryoshka")  # selects by the bits of float32
    dtype, close = (torch.float32, 3e-5) if by_batch else (torch.float64, 1e-11)
    whole = made(name, options, dtype)
    x_BD = torch.randn(B, D, generator=torch.Generator().manual_seed(2)).to(dtype)
    dead_F = torch.zeros(F, dtype=torch.bool)
    dead_F[DEAD] = True
    expected = step(whole, x_BD, Workspace(kernels=kernels, products=products), dead_F)

    def work(features: Threads) -> tuple[SparseAutoencoder, StepLoss]:
        width = F // count
        place = FeatureSlice(features.rank * width, (features.rank + 1) * width, F)
        part = part_of(whole, place)
        workspace = Workspace(kernels=kernels, products=products, features=features, everyone=features)
        return part, step(part, x_BD, workspace, dead_F[place.start : place.stop])

    found = on_threads(count, work)
    for part, loss in found:
        assert loss.parts.keys() == expected.parts.keys()
        torch.testing.assert_close(loss.total, expected.total, rtol=close, atol=close)
        for key, value in loss.parts.items():
            torch.testing.assert_close(value, expected.parts[key], rtol=close, atol=close)
        torch.testing.assert_close(part.b_dec.grad, whole.b_dec.grad, rtol=close, atol=close)
    assert torch.equal(torch.cat([loss.fired_F for _, loss in found]), expected.fired_F)
    assert int(expected.fired_F.sum())
    assert ("aux" in expected.parts) == (name not in ("relu",))
    for key, parameter in whole.named_parameters():
        axis = feature_axis(whole, parameter)
        if axis is None:
            continue
        together = torch.cat([part.get_parameter(key).grad for part, _ in found], dim=axis)
        torch.testing.assert_close(
            together, parameter.grad, rtol=close, atol=close, msg=lambda said, at=key: f"{at}: {said}"
        )
    if expected.threshold is not None:
        kept = [loss.threshold for _, loss in found if float(loss.threshold) > 0]
        assert min(map(float, kept)) == float(expected.threshold)
