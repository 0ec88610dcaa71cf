"""Memory that this process has used stays its own: settings of glibc's allocator, for processes that are ours.

By default glibc hands large freed blocks back to the kernel, which then zeroes every page of the next one. A language model's
forward pass makes fresh tensors of several MB in every block, so it pays that again and again (measured in docs/performance.md).
With these two settings, freed blocks stay in the heap and are used again:

    M_MMAP_MAX = 0            large blocks come from the heap, not from a mapping of their own
    M_TRIM_THRESHOLD = 2^31-1 the heap's end is not given back

The price is that memory once used is not returned before the process ends, which holds for the whole process. So an
application may choose this and a library may not: ``import neuronmap`` changes nothing. The command, the processes of jobs and the one
that runs models do it. Our own loops do without it, as they keep their buffers.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

__all__ = ["SWITCH", "keep_freed_memory", "memory_state"]

SWITCH = "NEURONMAP_MALLOC"
"""Environment variable: ``system`` leaves the allocator as it is, ``keep`` (or nothing) is the default; others are refused."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_OPTIONS = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))

_state = "as the system sets it (not started as the neuronmap command)"


def memory_state() -> str:
    """What was done with the allocator in this process, in words."""
    return _state


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, where that is safe; True if it was done.

    Left alone: systems without glibc, and whatever the user has set up already.
    """
    global _state  # one process, one allocator
    reason = _reason_against(os.environ)
    if reason is None and not all(_set(option, value) for option, value in _OPTIONS):
        reason = "glibc refused the setting"
    _state = "freed memory is kept" if reason is None else f"as the system sets it ({reason})"
    return reason is None


def _reason_against(environment: Mapping[str, str]) -> str | None:
    """Why the allocator should be left alone, or None."""
    switch = environment.get(SWITCH, "")
    if switch == "system":
        return f"{SWITCH}=system"
    if switch not in ("", "keep"):
        return f"{SWITCH}={switch} is neither system nor keep"
    if sys.platform != "linux" or not _is_glibc():
        return "no glibc"
    own = sorted(name for name in environment if name.startswith("MALLOC_"))
    if own:
        return f"{own[0]} is set"
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return "GLIBC_TUNABLES is set"
    if "malloc" in environment.get("LD_PRELOAD", ""):
        return "LD_PRELOAD brings another allocator"
    return None


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # musl and others do not know the name
        return False


def _set(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(ctypes.c_int(option), ctypes.c_int(value)) == 1
