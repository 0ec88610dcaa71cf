"""The backends that every kernel test runs on, and numbers to feed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from neuronmap.saes.kernels.native.backend import NativeKernels
from neuronmap.saes.kernels.native.build import COMPILED, variants
from neuronmap.saes.kernels.native.library import Engine, load_engine
from neuronmap.saes.kernels.portable import DenseKernels, TorchKernels
from neuronmap.saes.kernels.protocol import Kernels
from neuronmap.saes.workspace import Workspace


@dataclass(frozen=True)
class Backend:
    """A way to run kernels.

    Attributes:
        label: for the names of tests.
        dtype: of the tensors it is given.
        make: kernels on a workspace.
    """

    label: str
    dtype: torch.dtype
    make: Callable[[Workspace], Kernels]

    @property
    def tolerance(self) -> float:
        """Of a result over the largest one: sums of up to a few thousand terms, each rounded to 1e-16 (6e-8 in float32)."""
        return 1e-10 if self.dtype == torch.float64 else 1e-5


def native(variant: str | None, dtype: torch.dtype, screened: bool = False) -> Backend:
    """The engine of one instruction set; None where nothing was compiled, which skips. Screened: however small the product."""

    def make(workspace: Workspace) -> Kernels:
        if variant is None:
            pytest.skip("the native engine was not compiled on this machine")
        kernels = NativeKernels(workspace, Engine(COMPILED / f"engine-{variant}.so", dtype == torch.float64))
        kernels.screens_from = 0 if screened else None
        return kernels

    return Backend(f"native-{variant}-{str(dtype)[-2:]}{'-screened' if screened else ''}", dtype, make)


def runnable() -> list[str | None]:
    """Compiled variants that this CPU can run: the chosen one and the lesser ones after it."""
    engine = load_engine()
    if engine is None:
        return [None]
    names = list(variants())
    return [name for name in names[names.index(engine.variant) :] if (COMPILED / f"engine-{name}.so").exists()]


def triton(dense: bool, dtype: torch.dtype) -> Backend:
    """The Triton kernels, interpreted (see the conftest of all tests); skipped where there is no Triton."""

    def make(workspace: Workspace) -> Kernels:
        if find_spec("triton") is None:
            pytest.skip("triton is not installed; it is there for Linux on x86-64")
        from neuronmap.saes.kernels.triton.backend import TritonDenseKernels, TritonKernels

        return TritonDenseKernels(workspace) if dense else TritonKernels(workspace)

    return Backend(f"triton-{'dense-' if dense else ''}{str(dtype)[-2:]}", dtype, make)


NATIVE = [native(variant, dtype) for variant in runnable() for dtype in (torch.float64, torch.float32)]
SCREENED = [native(variant, torch.float32, screened=True) for variant in runnable()]
TORCH = [Backend("torch-64", torch.float64, TorchKernels), Backend("torch-32", torch.float32, TorchKernels)]
DENSE = [Backend("dense-64", torch.float64, DenseKernels), Backend("dense-32", torch.float32, DenseKernels)]

TRITON = [triton(False, dtype) for dtype in (torch.float64, torch.float32)]
TRITON_DENSE = [triton(True, dtype) for dtype in (torch.float64, torch.float32)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``backend`` runs on all but the dense ones, ``any_backend`` on all, the others on those of one language."""
    for name, backends in (
        ("backend", TORCH + NATIVE + SCREENED + TRITON),
        ("any_backend", TORCH + DENSE + NATIVE + SCREENED + TRITON + TRITON_DENSE),
        ("native_backend", NATIVE + SCREENED),
        ("triton_backend", TRITON),
    ):
        if name not in metafunc.fixturenames:
            continue
        if "pieces" not in metafunc.fixturenames:
            metafunc.parametrize(name, backends, ids=[backend.label for backend in backends])
            continue
        # Interpreted kernels are slow, and a pattern of float64 has twice the bits to find; test_curves compares its selection.
        pairs = [(b, how) for how in ("whole", "pieces") for b in backends if b.label != "triton-64"]
        ids = [f"{how}-{backend.label}" for backend, how in pairs]
        metafunc.parametrize((name, "pieces"), pairs, ids=ids, indirect=["pieces"])


@pytest.fixture
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test twice: with the encoder's product taken at once, and in blocks of 37 features or chunks of 3 rows.

    Triton's are blocks of 509 rows, or of 37 features and then of 3072 entries (8-byte ones), in tiles of 512 x 512.
    """
    if request.param == "pieces":
        monkeypatch.setattr("neuronmap.saes.kernels.native.backend.BLOCK_BYTES", 1)
        monkeypatch.setattr("neuronmap.saes.kernels.native.backend.LEAST_BLOCK", 37)
        monkeypatch.setattr("neuronmap.saes.kernels.portable.CHUNK_ENTRIES", 1)
        monkeypatch.setattr("neuronmap.saes.kernels.portable.LEAST_ROWS", 3)
        if find_spec("triton") is not None:
            monkeypatch.setattr("neuronmap.saes.kernels.triton.backend.BLOCK_BYTES", 8 * 3072)
            monkeypatch.setattr("neuronmap.saes.kernels.triton.backend.LEAST_BLOCK", 37)
            monkeypatch.setattr("neuronmap.saes.kernels.triton.backend.ROWS_BYTES", 1)
            monkeypatch.setattr("neuronmap.saes.kernels.triton.backend.LEAST_ROWS", 509)
            monkeypatch.setattr("neuronmap.saes.kernels.triton.tiles.INTERPRETED_ROWS", 512)
            monkeypatch.setattr("neuronmap.saes.kernels.triton.tiles.INTERPRETED_COLUMNS", 512)
    return str(request.param)


@pytest.fixture
def numbers() -> Callable[..., Tensor]:
    """Normal numbers in float64, the same for the same shape and seed."""

    def make(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return make
