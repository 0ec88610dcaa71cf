"""Which backend runs where, and what is said of it."""

from __future__ import annotations

import pytest
import torch

from neuronmap.errors import ConfigError
from neuronmap.saes.kernels.choice import backend, describe, kernels_for, require, rounds_products
from neuronmap.saes.kernels.triton import runtime
from neuronmap.saes.workspace import Workspace

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
W_DF = torch.zeros(8, 4).T


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is there, whatever this machine holds, and nobody asked for its interpreter."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(runtime, "find_spec", lambda name: object())
    monkeypatch.setattr(runtime, "_version", lambda: (3, 7, 1))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch finds an H100."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


def test_auto_takes_triton_on_cuda_and_never_on_a_cpu(gpu, monkeypatch):
    assert describe(CUDA) == "triton (3.7.1)"
    require("triton", CUDA)
    for interpret in ("0", "1"):
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
        assert not describe(CPU).startswith("triton")
        assert backend(Workspace(), W_DF).name != "triton"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "the package triton is not installed"),
        ("old", r"it needs Triton 3\.4, this is 3\.2\.0"),
        ("no driver", "torch finds no CUDA device"),
        ("old device", r"it needs compute capability 8\.0, this device has 7\.5"),
    ],
)
def test_what_is_missing_is_named_and_auto_takes_torch(gpu, monkeypatch, fault, reason):
    if fault == "missing":
        monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    elif fault == "old":
        monkeypatch.setattr(runtime, "_version", lambda: (3, 2, 0))
    elif fault == "no driver":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    else:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(ConfigError, match=rf"kernels = 'triton' cannot run: {reason}"):
        require("triton", CUDA)
    assert describe(CUDA).startswith("torch (")
    assert runtime.why_not(CUDA) in describe(CUDA)


def test_a_cpu_runs_them_only_under_the_interpreter_which_is_asked_for_at_the_time(monkeypatch):
    with pytest.raises(ConfigError, match="it runs on CUDA, not on cpu"):
        require("triton", CPU)
    with pytest.raises(ConfigError, match="it runs on CUDA, not on cpu"):
        backend(Workspace(kernels="triton"), W_DF)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    require("triton", CPU)
    assert describe(CPU, "triton") == "triton (3.7.1, interpreted)"


def test_a_code_that_is_not_sparse_is_multiplied_densely_by_the_same_selection(monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed; it is there for Linux on x86-64")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    workspace = Workspace(kernels="triton")
    names = {share: type(kernels_for(workspace, W_DF, share)).__name__ for share in (0.01, 0.5)}
    assert names == {0.01: "TritonKernels", 0.5: "TritonDenseKernels"}


@pytest.mark.parametrize(
    ("asked", "device", "top_k", "expected"),
    [
        ("auto", CUDA, True, True),
        ("auto", CUDA, False, False),
        ("auto", CPU, True, False),
        ("float32", CUDA, True, False),
        ("bfloat16", CUDA, True, True),
    ],
)
def test_products_are_rounded_on_cuda_or_where_asked_for(gpu, asked, device, top_k, expected):
    assert rounds_products(asked, "auto", device, top_k) is expected


def test_the_installed_version_is_read(monkeypatch):
    monkeypatch.undo()
    pytest.importorskip("triton", reason="triton is not installed; it is there for Linux on x86-64")
    import triton

    assert ".".join(map(str, runtime._version())) == triton.__version__.split("+")[0]
