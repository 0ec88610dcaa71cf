"""On a GPU a step that is not watched asks the device for nothing: shown on a CPU, by the operations that a step calls.

Shapes: B rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.errors import ConfigError
from neuronmap.saes import get_architecture
from neuronmap.training import SAEConfig
from neuronmap.training.checkpoint import latest_checkpoint, load_checkpoint
from neuronmap.training.data import TrainingData
from neuronmap.training.plan import make_plan
from neuronmap.training.session import Session

D, F = 8, 64
TOP_K_FAMILY = ["topk", "batchtopk", "matryoshka", "lista"]
ASKING = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "equal", "is_nonzero", "unique", "lift_fresh")
"""Operations that wait for a CUDA device: a number or a size comes to the host, or (lift_fresh) a number goes there."""


class Silence(TorchDispatchMode):
    """Fails at an operation that would ask the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        assert not name.lstrip("_").startswith(tuple(asking.lstrip("_") for asking in ASKING)), name
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), f"{name} by a mask"
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; it is there for Linux on x86-64")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def rows() -> ArrayRows:
    return ArrayRows(torch.randn(512, D, generator=torch.Generator().manual_seed(1)))


@contextmanager
def session(architecture: str, folder: Any = None, **fields: Any) -> Iterator[Session]:
    config = SAEConfig(
        architecture=architecture, hidden_dim=F, batch_size=1, context_length=32, learning_rate=0.01, dead_after_tokens=64,
        num_epochs=3, **{"kernels": "triton", "k": 4, **fields},
    )  # fmt: skip
    source = rows()
    plan = make_plan(config, source.num_rows, D, torch.device("cpu"), 0)
    sae = get_architecture(architecture)(D, F, config.sae_options(D))
    sae.initialise(torch.zeros(D), torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.b_enc[: F // 2] = -3.0  # half of them never fire, and are dead after two steps
    with ShuffledBatches(source, plan.batch_rows, seed=0) as batches:
        yield Session(config, plan, TrainingData(rows=source, heldout=source), sae, batches, 1.0, folder)


@pytest.mark.parametrize(("compute_dtype", "products"), [("float32", "sparse"), ("bfloat16", "dense")])
@pytest.mark.parametrize("architecture", TOP_K_FAMILY)
def test_a_step_that_is_not_watched_asks_the_device_for_nothing(architecture, compute_dtype, products, monkeypatch):
    with session(architecture, compute_dtype=compute_dtype, products=products) as running:
        for _ in range(3):
            running.train_step()
        assert len(running.dead.dead_M) >= F // 2
        monkeypatch.setattr(Session, "_watched", False)
        batch_BD = next(running.batches).clone()
        monkeypatch.setattr(Session, "_next_batch", lambda self: batch_BD)
        with Silence():
            loss = running.train_step()
        assert running.workspace.ran == products
        assert bool(loss.total.isfinite())
        assert float(loss.parts["aux"]) > 0


def test_the_watchman_sees_what_asks():
    for asking in (lambda x: float(x.sum()), torch.nonzero, lambda x: x[x > 0], lambda x: torch.tensor([1.0])):
        with pytest.raises(AssertionError), Silence():
            asking(torch.ones(3))


def test_between_looks_the_dead_are_those_of_the_last_one(monkeypatch, tmp_path):
    """And a checkpoint in between keeps them."""
    with session("topk", tmp_path) as running:
        for _ in range(3):
            running.train_step()
        monkeypatch.setattr(Session, "_watched", False)
        seen_M = running.dead.dead_M.clone()
        running.dead.since_fired_F.zero_()
        running.train_step()
        assert torch.equal(running.dead.dead_M, seen_M)
        running.save()
    with session("topk", tmp_path) as resumed:
        found = latest_checkpoint(tmp_path)
        assert found is not None
        assert resumed.restore(*load_checkpoint(found, "cpu")) == []
        assert torch.equal(resumed.dead.dead_M, seen_M)


def test_bfloat16_products_leave_the_weights_in_float32(tmp_path):
    curves = {}
    for compute_dtype in ("float32", "bfloat16"):
        with session("topk", compute_dtype=compute_dtype) as running:
            curves[compute_dtype] = torch.stack([running.train_step().parts["mse"] for _ in range(4)])
            assert {parameter.dtype for parameter in running.sae.parameters()} == {torch.float32}
            copy = running.parameters.rounded_W_enc
            if compute_dtype == "bfloat16":
                assert copy is not None
                # The interpreter cuts off what a GPU rounds to the nearest: one unit of the last of 8 bits.
                torch.testing.assert_close(copy.float(), running.sae.W_enc.detach(), rtol=2**-7, atol=0)
                assert copy.stride() == running.sae.W_enc.stride()
            else:
                assert copy is None
    assert not torch.equal(*curves.values())
    torch.testing.assert_close(*curves.values(), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kernels": "torch"}, "the kernels that run are torch"),
        ({"kernels": "triton", "architecture": "relu", "k": None}, "the architecture is not of the top-k family"),
    ],
)
def test_bfloat16_products_are_refused_where_there_are_none(fields, reason):
    with (
        pytest.raises(ConfigError, match=reason),
        session(**{"architecture": "topk", "compute_dtype": "bfloat16", **fields}),
    ):
        pass
