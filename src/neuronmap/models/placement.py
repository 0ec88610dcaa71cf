"""Which device and precision a model runs in, and whether it fits: one printed rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from neuronmap.errors import ConfigError, MemoryExhaustedError
from neuronmap.models.tuned import Tuned
from neuronmap.paths import human_bytes

__all__ = ["check_memory", "choose_device", "choose_dtype", "memory_errors"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | torch.device) -> tuple[torch.device, str]:
    """The device to use, and why.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns:
        The device, and the reason in a few words (empty when it was asked for).

    Raises:
        ConfigError: for any other value, or a device this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if str(device) == "auto":
        if count:
            return torch.device("cuda"), "a CUDA device is there"
        return (torch.device("mps"), "Apple GPU, no CUDA") if mps else (torch.device("cpu"), "no GPU found")
    here = [
        "cpu",
        *(["cuda", *(f"cuda:{index}" for index in range(count))] if count else []),
        *(["mps"] if mps else []),
    ]
    if str(device) not in here:
        kind = str(device).partition(":")[0]
        why = {
            "cuda": f"no such CUDA device here ({count} found)" if count else "no CUDA device here",
            "mps": "no Apple GPU here",
        }.get(kind, "no such device here")
        raise ConfigError(f"device = {str(device)!r}: {why}; allowed: auto, {', '.join(here)}.")
    return torch.device(device), ""


def choose_dtype(
    dtype: str | torch.dtype, device: torch.device, stored: torch.dtype | None, tuned: Tuned | None = None
) -> tuple[torch.dtype, str]:
    """The precision to use, and why.

    ``auto`` is what was measured on this machine. Without that it is float32 on a CPU (bfloat16
    is 3.5 to 6.7 times slower on CPUs without native support, 3 times faster with it), and the precision the weights
    are stored in elsewhere. Weights stored in half precision keep it on a GPU, whatever was measured.

    Args:
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``, or the torch dtype.
        device: where the model will run.
        stored: precision of the stored weights, None if unknown.
        tuned: what ``neuronmap doctor --tune`` measured for the device, if it did.

    Raises:
        ConfigError: for any other value.
    """
    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        half = stored in (torch.bfloat16, torch.float16) and device.type != "cpu"
        if tuned is not None and not half:
            return _DTYPES[tuned.dtype], f"measured fastest here on {tuned.measured}"
        if device.type == "cpu":
            return torch.float32, "the safe choice on a CPU; `neuronmap doctor --tune` measures the others"
        chosen = stored if stored in _DTYPES.values() and stored is not None else torch.float32
        return chosen, "as the weights are stored"
    if name not in _DTYPES:
        raise ConfigError(f"dtype = {name!r}: allowed are auto, {', '.join(_DTYPES)}.")
    return _DTYPES[name], ""


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_memory(device: torch.device, needed: int, what: str) -> None:
    """Refuse early when the weights do not fit.

    Raises:
        MemoryExhaustedError: says need and free memory.
    """
    free = _free_memory(device)
    if needed > free:
        raise _exhausted(device, needed, free, what)


def _exhausted(device: torch.device, needed: int, free: int, what: str) -> MemoryExhaustedError:
    return MemoryExhaustedError(
        f"{what} needs about {human_bytes(needed)} of memory on {device}, and {human_bytes(free)} are free.",
        hint="Close other programs, use a smaller model, or load with dtype='bfloat16' (half of float32).",
    )


@contextmanager
def memory_errors(device: torch.device, needed: int, what: str) -> Iterator[None]:
    """Turn an out-of-memory failure within the block into ours.

    Args:
        device: where the memory was wanted.
        needed: estimate of the bytes needed, for the message.
        what: what needed it.

    Raises:
        MemoryExhaustedError: instead of torch's and Python's own exceptions.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _exhausted(device, needed, _free_memory(device), what) from error
    except RuntimeError as error:
        # The CPU allocator has no exception class of its own.
        if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise _exhausted(device, needed, _free_memory(device), what) from error
