"""Whether the Triton kernels can run, asked without importing Triton."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec

import torch

__all__ = ["interpreted", "variant", "why_not"]

_OLDEST = (8, 0)
"""CUDA compute capability: the first with bfloat16 products; the kernels are compiled for it in the tests."""
_OLDEST_TRITON = (3, 4)
"""Of torch 2.8, the first with a product of bfloat16 factors summed into float32. The kernels compile with it."""


def interpreted() -> bool:
    """Whether Triton's interpreter was asked for: kernels then run on a CPU, in NumPy, slowly. For tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None if they can."""
    if find_spec("triton") is None:
        return "the package triton is not installed (CUDA builds of torch bring it)"
    if _version() < _OLDEST_TRITON:
        return f"it needs Triton {'.'.join(map(str, _OLDEST_TRITON))}, this is {variant()}"
    if interpreted():
        return None
    if device.type != "cuda":
        return f"it runs on CUDA, not on {device.type}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _OLDEST:
        return f"it needs compute capability {_OLDEST[0]}.{_OLDEST[1]}, this device has {capability[0]}.{capability[1]}"
    return None


def variant() -> str:
    """Triton's version and how it runs, for the log."""
    number = ".".join(map(str, _version()))
    return f"{number}, interpreted" if interpreted() else number


@cache
def _version() -> tuple[int, ...]:
    """Of Triton, from its metadata or, where a build has another name (triton-rocm), from that of its module's package."""
    for name in packages_distributions().get("triton", ["triton"]):
        try:
            return tuple(int(part) for part in re.findall(r"\d+", version(name))[:3])
        except PackageNotFoundError:
            continue
    return (0,)
