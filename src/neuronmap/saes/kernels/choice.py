"""Which backend runs a step, and whether the step is sparse or dense.

``kernels`` names the backend: ``native`` (C, on a CPU), ``triton`` (on CUDA), ``torch`` (public operations, anywhere);
``auto`` takes the first of these that can run. ``products`` says how they are done: over the active entries
(``sparse``), as matrix products (``dense``), or, ``auto``, by the share of entries that is active, against a crossover that was
measured for each backend.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from neuronmap.errors import ConfigError
from neuronmap.saes.kernels.native.backend import NativeKernels
from neuronmap.saes.kernels.native.library import load_engine, why_not
from neuronmap.saes.kernels.portable import DenseKernels, TorchKernels
from neuronmap.saes.kernels.protocol import Kernels
from neuronmap.saes.workspace import Workspace

__all__ = ["KernelName", "ProductsName", "describe", "is_sparse", "kernels_for", "require"]

KernelName = Literal["auto", "native", "triton", "torch"]
ProductsName = Literal["auto", "sparse", "dense"]

DENSE = "dense"


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
    return _made(workspace, DENSE, W_enc_DF)


def backend(workspace: Workspace, W_enc_DF: Tensor) -> Kernels:
    """The backend for sparse products."""
    name = workspace.kernels
    if name == "auto":
        name = _best(W_enc_DF.device.type)
    usual = W_enc_DF.dtype in (torch.float32, torch.float64) and W_enc_DF.T.is_contiguous()
    return _made(workspace, name if usual else "torch", W_enc_DF)


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
        reason = why_not() if device.type == "cpu" else f"it runs on a CPU, not on {device.type}"
    elif kernels not in get_args(KernelName):
        reason = f"there are {', '.join(get_args(KernelName))}"
    if reason:
        raise ConfigError(f"kernels = {kernels!r} cannot run: {reason}.", hint="kernels = 'auto' takes what is there.")


def describe(device: torch.device, asked: str = "auto") -> str:
    """One line on what runs on a device, for the log and ``neuronmap doctor``."""
    name = _best(device.type) if asked == "auto" else asked
    if name == "native" and (engine := load_engine()) is not None:
        threads = torch.get_num_threads() if engine.threaded else 1
        return f"native ({engine.variant}, {threads} thread{'s' if threads != 1 else ''})"
    reason = why_not() if device.type == "cpu" and asked == "auto" else None
    return f"{name} ({reason})" if reason else name


def _best(device: str) -> str:
    return "native" if device == "cpu" and load_engine() is not None else "torch"


def _made(workspace: Workspace, name: str, W_enc_DF: Tensor) -> Kernels:
    key = f"{name}.{W_enc_DF.dtype}"
    made = workspace.backends.get(key)
    if made is None:
        made = workspace.backends[key] = _make(workspace, name, W_enc_DF)
    return made


def _make(workspace: Workspace, name: str, W_enc_DF: Tensor) -> Kernels:
    if name == DENSE:
        return DenseKernels(workspace)
    if name == "native":
        engine = load_engine(double=W_enc_DF.dtype == torch.float64)
        if engine is not None:
            return NativeKernels(workspace, engine)
        require(name, W_enc_DF.device)
    return TorchKernels(workspace)
