"""Facts about the machine and the code that a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]


def machine(threads: int) -> dict[str, Any]:
    """CPU, cores, threads used, memory, system."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "logical_cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_at_start": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def commit() -> str:
    """The commit, with ``+changes`` when the source or the benchmarks differ from it; ``unknown`` outside git."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}+changes" if changed else name


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        named: dict[str, str] = {}
        for line in facts.read_text().splitlines():
            name, _, value = line.partition(":")
            named.setdefault(name.strip(), value.strip())
        if "model name" in named:
            numbers = f"family {named.get('cpu family')} model {named.get('model')}"
            return f"{named['model name']} ({numbers})" if "cpu family" in named else named["model name"]
    return platform.processor() or platform.machine()
