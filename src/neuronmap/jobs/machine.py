"""What a supervisor has to know of its machine: devices, free memory, and whether a process is still the one it was.

Nothing here loads torch: GPUs are asked through ``nvidia-smi``.
"""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import psutil

__all__ = [
    "Capacity",
    "capacity",
    "find_process",
    "hostname",
    "is_alive",
    "kill_process",
    "own_start",
    "resolve_device",
]

_START_TOLERANCE_S = 2.0
"""The start of a process is worked out from the boot time, which moves a little when the clock is set."""
_MODULE = "neuronmap.jobs.run"


@dataclass(frozen=True)
class Capacity:
    """Devices of this machine.

    Attributes:
        free: free bytes of each device by name; None where that cannot be asked.
        total: all bytes of each, likewise.
    """

    free: dict[str, int | None] = field(default_factory=dict)
    total: dict[str, int | None] = field(default_factory=dict)


def capacity() -> Capacity:
    """Devices and their memory now."""
    memory = psutil.virtual_memory()
    free: dict[str, int | None] = {"cpu": int(memory.available)}
    total: dict[str, int | None] = {"cpu": int(memory.total)}
    for index, (unused, whole) in enumerate(_gpus()):
        free[f"cuda:{index}"], total[f"cuda:{index}"] = unused, whole
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        free["mps"] = total["mps"] = None
    return Capacity(free, total)


def resolve_device(device: str | None) -> str:
    """``auto`` (or None) and ``cuda`` as one device of this machine; other names as they are."""
    if device in (None, "auto"):
        here = capacity().free
        return next((name for name in ("cuda:0", "mps") if name in here), "cpu")
    return "cuda:0" if device == "cuda" else str(device)


def hostname() -> str:
    """The name of this machine, as it stands with its jobs."""
    return socket.gethostname()[:255]


def own_start() -> float:
    """When this process began, in seconds since 1970: with its number it names the process for good."""
    return float(psutil.Process().create_time())


def find_process(pid: int | None, started: float | None, job: str) -> psutil.Process | None:
    """The process of a job, if it lives on this machine; a stranger that got its number since is not taken for it."""
    if pid is None or started is None:
        return None
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > _START_TOLERANCE_S or process.status() == psutil.STATUS_ZOMBIE:
            return None
        line = process.cmdline()
    except psutil.Error:
        return None
    return process if _MODULE in line and job in line else None


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this number, begun at this time, still runs on this machine."""
    try:
        process = psutil.Process(pid)
        return bool(
            abs(process.create_time() - started) <= _START_TOLERANCE_S and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def kill_process(process: psutil.Process, patience_s: float = 5.0) -> bool:
    """Kill it, and whatever it has started, and wait until it is gone; False if it is not."""
    try:
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        family = [process]
    for member in family:
        try:
            member.kill()
        except psutil.Error:  # gone already
            continue
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not is_alive(process.pid, process.create_time()):
            return True
        time.sleep(0.02)
    return False


def memory_used(process: psutil.Process | None) -> int:
    """Bytes of memory that a process holds; 0 for one that is not there."""
    try:
        return int(process.memory_info().rss) if process is not None else 0
    except psutil.Error:
        return 0


@cache
def _nvidia_smi() -> str | None:
    """The program that knows the GPUs; None where there is none, or torch could not use them."""
    try:
        if "+cpu" in version("torch"):
            return None
    except PackageNotFoundError:
        return None
    return shutil.which("nvidia-smi")


def _gpus() -> list[tuple[int | None, int | None]]:
    """Free and total bytes of each NVIDIA GPU."""
    program = _nvidia_smi()
    if program is None:
        return []
    asked = [program, "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return [(int(free) << 20, int(total) << 20) for free, total in (line.split(",") for line in said.splitlines())]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
