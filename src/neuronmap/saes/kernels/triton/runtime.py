"""Whether the Triton kernels can run, asked without importing Triton."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

__all__ = ["interpreted", "variant", "why_not"]

_OLDEST = (8, 0)
"""CUDA compute capability: the first with bfloat16 products; the kernels are compiled for it in the tests."""


def interpreted() -> bool:
    """Whether Triton's interpreter was asked for: kernels then run on a CPU, in NumPy, slowly. For tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed (CUDA builds of torch bring it)"
    if interpreted():
        return None
    if device.type != "cuda":
        return f"it runs on CUDA, not on {device.type}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST:
        return f"it needs compute capability {_OLDEST[0]}.{_OLDEST[1]}, this device has less"
    return None


def variant() -> str:
    """Triton's version and how it runs, for the log."""
    try:
        number = version("triton")
    except PackageNotFoundError:
        number = "of unknown version"
    return f"{number}, interpreted" if interpreted() else number
