"""Settings measured on this machine: threads, tokens per forward pass, attention, precision.

``neuronmap doctor --tune`` measures them (``tuning.py``) and writes ``<home>/tuned.json``, one record for each kind
of device. A record counts only on the machine and torch it was measured with, and only where the user set nothing.
Precision is part of a store's key; the others decide the last bits of activations and are noted where they do.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch

from neuronmap.errors import DamagedError
from neuronmap.paths import home, read_json, require_writable, write_json

__all__ = [
    "DEFAULT_BATCH_TOKENS",
    "THREAD_VARIABLES",
    "Tuned",
    "batch_tokens_for",
    "machine_name",
    "tuned_for",
    "tuned_path",
]

DEFAULT_BATCH_TOKENS = 2048
"""Tokens per forward pass where nothing was measured: below 1,024 a CPU loses speed, above 4,096 it runs out of cache."""

_FORMAT = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_AGAIN = "Measure again with `neuronmap doctor --tune`, or delete the file."
_WORDS = {"attention": ("sdpa", "eager"), "dtype": ("float32", "bfloat16", "float16")}
_COUNTS = {"default_threads": 2**14, "threads": 2**14, "batch_tokens": 2**20}
"""Least 1, and the most that a machine may have or a forward pass may sensibly take."""


@dataclass(frozen=True)
class Tuned:
    """What was fastest on one kind of device.

    Attributes:
        machine: what it was measured on; see :func:`machine_name`.
        model: name of the model it was measured with.
        measured: ISO date.
        default_threads: torch's own choice of CPU threads then.
        threads: the fastest number of CPU threads.
        batch_tokens: tokens per forward pass.
        attention: ``eager`` where it was faster, else ``sdpa``: each model's own choice, which is eager if it has no other.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        tokens_per_second: of the chosen settings together.
        speedup: that, over the speed of the settings without tuning.
        rounding: median over tokens of |x - x32|² / |x32|² at the hook, x32 computed in float32; 0 for float32.
    """

    machine: str
    model: str
    measured: str
    default_threads: int
    threads: int
    batch_tokens: int
    attention: str
    dtype: str
    tokens_per_second: float
    speedup: float
    rounding: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :func:`dataclasses.asdict` wrote.

        Raises:
            DamagedError: if a field is missing, unknown or of another type.
        """
        kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float)}
        wrong = [field.name for field in fields(cls) if not isinstance(values.get(field.name), kinds[str(field.type)])]
        wrong += sorted(set(values) - {field.name for field in fields(cls)})
        wrong += [name for name, allowed in _WORDS.items() if values.get(name) not in allowed]
        wrong += [
            name
            for name, most in _COUNTS.items()
            if isinstance(count := values.get(name), int) and not 1 <= count <= most
        ]
        if wrong:
            raise DamagedError(
                f"{tuned_path()} does not hold settings as they are written (at fault: {', '.join(dict.fromkeys(wrong))}).",
                hint=_AGAIN,
            )
        return cls(**values)

    def save(self, device: torch.device) -> Path:
        """Write the record of that kind of device, keeping those of the others; returns the file.

        Raises:
            UnwritablePathError, DiskSpaceError: if the home folder cannot be written.
        """
        require_writable(home())
        try:
            records = _records()
        except DamagedError:
            records = {}
        write_json(tuned_path(), {"format": _FORMAT, "devices": {**records, device.type: asdict(self)}})
        return tuned_path()

    def set_threads(self) -> bool:
        """Use the measured number of threads, unless the user or the program chose one; True if it was changed."""
        chosen = any(os.environ.get(name) for name in THREAD_VARIABLES)
        if chosen or torch.get_num_threads() != self.default_threads or self.threads == self.default_threads:
            return False
        torch.set_num_threads(self.threads)
        return True


def tuned_path() -> Path:
    """Where the settings lie."""
    return home() / "tuned.json"


def machine_name(device: torch.device) -> str:
    """What settings are bound to: processor or GPU, usable cores, instruction set, torch."""
    if device.type == "cuda":
        what = torch.cuda.get_device_name(device)
    else:
        what = f"{_processor()}, {usable_cores()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return f"{what}, torch {torch.__version__}"


def usable_cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    """The processor's own name where the system tells it; ``platform.processor()`` is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    parts = [found.get("model name", ""), *(f"{key} {found[key]}" for key in ("cpu family", "model") if key in found)]
    return " ".join(part for part in parts if part) or platform.processor() or platform.machine()


def _records() -> dict[str, dict[str, Any]]:
    try:
        stored = read_json(tuned_path())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except DamagedError as error:
        raise DamagedError(error.message, hint=_AGAIN) from None
    if not isinstance(stored, dict) or not isinstance(stored.get("devices"), dict) or stored.get("format") != _FORMAT:
        raise DamagedError(f"{tuned_path()} is not a file of measured settings.", hint=_AGAIN)
    devices: dict[str, dict[str, Any]] = stored["devices"]
    return devices


def tuned_for(device: torch.device, *, elsewhere: bool = False) -> Tuned | None:
    """The settings measured for a kind of device on this machine; None if there are none that count here.

    Args:
        device: where the model runs.
        elsewhere: also those of another machine or torch (to be shown, not used).

    Raises:
        DamagedError: if the file cannot be read.
    """
    record = _records().get(device.type)
    if record is None:
        return None
    if not isinstance(record, dict):
        raise DamagedError(f"{tuned_path()} is not a file of measured settings.", hint=_AGAIN)
    tuned = Tuned.from_dict(record)
    return tuned if elsewhere or tuned.machine == machine_name(device) else None


def batch_tokens_for(device: torch.device, asked: int | None) -> int:
    """Tokens per forward pass: as asked, else as measured, else 2,048."""
    if asked is not None:
        return asked
    tuned = tuned_for(device)
    return DEFAULT_BATCH_TOKENS if tuned is None else tuned.batch_tokens


def today() -> str:
    """The date that a measurement is given."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
