"""Which backend runs a step, and whether the step is sparse or dense.

``kernels`` names the backend: ``native`` (C, on a CPU), ``triton`` (on CUDA), ``torch`` (public operations, anywhere);
``auto`` takes the first of these that can run. ``products`` says how they are done: over the active entries
(``sparse``), as matrix products (``dense``), or, ``auto``, by the share of entries that is active, against a crossover that was
measured for each backend.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes.kernels.native import library
from neuronmap.saes.kernels.native.backend import NativeKernels
from neuronmap.saes.kernels.native.library import load_engine
from neuronmap.saes.kernels.native.screening import LEAST_WEIGHTS, can_screen
from neuronmap.saes.kernels.portable import DenseKernels, TorchKernels
from neuronmap.saes.kernels.protocol import Kernels
from neuronmap.saes.kernels.sliced import SlicedKernels
from neuronmap.saes.kernels.triton import runtime
from neuronmap.saes.workspace import Workspace

__all__ = [
    "KernelName",
    "ProductsName",
    "describe",
    "is_sparse",
    "kernels_for",
    "require",
    "rounds_products",
    "screens",
    "screens_products",
]

KernelName = Literal["auto", "native", "triton", "torch"]
ProductsName = Literal["auto", "sparse", "dense"]

DENSE = "dense"
TRITON_DENSE = "triton.dense"


def kernels_for(workspace: Workspace, W_enc_DF: Tensor, share: float) -> Kernels:
    """The backend for a code of which a share of the entries is active.

    Args:
        workspace: which kernels and products were asked for, and where backends keep their buffers.
        W_enc_DF: the encoder: its device, precision and memory layout decide what can run.
        share: active entries over all, k / F.
    """
    kernels = backend(workspace, W_enc_DF)
    if is_sparse(workspace, kernels, share):
        workspace.ran = "sparse"
        return kernels
    workspace.ran = DENSE
    return _made(workspace, TRITON_DENSE if kernels.name == "triton" else DENSE, W_enc_DF)


def backend(workspace: Workspace, W_enc_DF: Tensor) -> Kernels:
    """The backend for sparse products."""
    usual = W_enc_DF.dtype in (torch.float32, torch.float64) and W_enc_DF.T.is_contiguous()
    asked = workspace.kernels if usual else "torch"
    key = f"{asked}.{W_enc_DF.dtype}"
    if key not in workspace.chosen:  # a step asks many times; what is there is looked up once
        name = _best(W_enc_DF.device) if asked == "auto" else asked
        workspace.chosen[key] = _made(workspace, name, W_enc_DF)
    found: Kernels = workspace.chosen[key]
    return found


def is_sparse(workspace: Workspace, kernels: Kernels, share: float | None) -> bool:
    """Whether products should run over the active entries.

    Args:
        workspace: what was asked for.
        kernels: the backend that would run them.
        share: active entries over all, as far as known; None counts as dense.
    """
    if workspace.products != "auto":
        return workspace.products == "sparse"
    return share is not None and share <= kernels.dense_above


def require(kernels: str, device: torch.device) -> None:
    """Check that a backend that was asked for by name can run.

    Raises:
        ConfigError: when it cannot, with the reason.
    """
    reason = None
    if kernels == "native":
        reason = library.why_not() if device.type == "cpu" else f"it runs on a CPU, not on {device.type}"
    elif kernels == "triton":
        reason = runtime.why_not(device)
    elif kernels not in get_args(KernelName):
        reason = f"there are {', '.join(get_args(KernelName))}"
    if reason:
        raise ConfigError(f"kernels = {kernels!r} cannot run: {reason}.", hint="kernels = 'auto' takes what is there.")


def describe(device: torch.device, asked: str = "auto", compute_dtype: str = "auto") -> str:
    """One line on what runs on a device, for the log and ``neuronmap doctor``; of a training run, with what its configuration asks for."""
    name = _best(device) if asked == "auto" else asked
    if name == "native" and (engine := load_engine()) is not None:
        threads = torch.get_num_threads() if engine.threaded else 1
        how = ", large products screened in bfloat16" if compute_dtype == "auto" and can_screen() else ""
        return f"native ({engine.variant}, {threads} thread{'s' if threads != 1 else ''}{how})"
    if name == "triton":
        return f"triton ({runtime.variant()})"
    reason = None
    if asked == "auto" and device.type in ("cpu", "cuda"):
        reason = library.why_not() if device.type == "cpu" else runtime.why_not(device)
    return f"{name} ({reason})" if reason else name


def rounds_products(compute_dtype: str, asked: str, device: torch.device, top_k: bool) -> bool:
    """Whether the encoder's product is taken of bfloat16 factors.

    Args:
        compute_dtype: ``auto``, ``float32`` or ``bfloat16``.
        asked: the kernels that were asked for.
        device: where the SAE is trained.
        top_k: whether its architecture belongs to the top-k family, the only one whose steps have such a product.

    Raises:
        ConfigError: when bfloat16 was asked for by name and cannot be had.
    """
    name = _best(device) if asked == "auto" else asked
    can = name == "triton" and top_k
    if compute_dtype == "bfloat16" and not can:
        reason = (
            f"the kernels that run are {name}" if name != "triton" else "the architecture is not of the top-k family"
        )
        raise ConfigError(
            f"compute_dtype = 'bfloat16' needs the triton kernels and one of topk, batchtopk, matryoshka, lista; {reason}.",
            hint="compute_dtype = 'auto' takes what there is.",
        )
    return can and (compute_dtype == "bfloat16" or (compute_dtype == "auto" and device.type == "cuda"))


def screens(compute_dtype: str, weights: int) -> bool:
    """Whether the native kernels would screen the product of an encoder of so many weights here; see :func:`screens_products`."""
    return compute_dtype == "auto" and can_screen() and weights >= LEAST_WEIGHTS


def screens_products(compute_dtype: str) -> bool | None:
    """Whether the native kernels screen large products in bfloat16: with ``auto`` where the CPU has units for it (None), else not.

    What they find has float32 values either way; ``float32`` takes the product itself in that precision.
    """
    return None if compute_dtype == "auto" else False


def _best(device: torch.device) -> str:
    if device.type == "cpu":
        return "native" if load_engine() is not None else "torch"
    return "triton" if device.type == "cuda" and runtime.why_not(device) is None else "torch"


def _made(workspace: Workspace, name: str, W_enc_DF: Tensor) -> Kernels:
    key = f"{name}.{W_enc_DF.dtype}"
    made: Kernels | None = workspace.backends.get(key)
    if made is None:
        made = _make(workspace, name, W_enc_DF)
        if workspace.features.count > 1:
            made = cast("Kernels", SlicedKernels(made))  # its name and crossover are those of the backend inside
        workspace.backends[key] = made
    return made


def _make(workspace: Workspace, name: str, W_enc_DF: Tensor) -> Kernels:
    if name == DENSE:
        return DenseKernels(workspace)
    if name in ("triton", TRITON_DENSE):
        require("triton", W_enc_DF.device)
        from neuronmap.saes.kernels.triton.backend import TritonDenseKernels, TritonKernels  # imports Triton

        return TritonKernels(workspace) if name == "triton" else TritonDenseKernels(workspace)
    if name == "native":
        engine = load_engine(double=W_enc_DF.dtype == torch.float64)
        if engine is not None:
            return NativeKernels(workspace, engine)
        require(name, W_enc_DF.device)
    return TorchKernels(workspace)
