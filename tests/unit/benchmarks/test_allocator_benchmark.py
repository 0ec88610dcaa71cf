"""The allocator benchmark's own arithmetic; and that its two kinds of processes are what they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import allocator


def process(seconds: float, faults: int = 0) -> dict[str, Any]:
    return {"kept": True, "seconds": seconds, "faults": faults, "peak_mib": 100}


def test_processes_are_compared_within_a_round() -> None:
    """The machine is half as fast in the second round, and the ratio does not see it."""
    report = allocator.markdown(
        {
            "date": "2030-01-01",
            "commit": "abc",
            "machine": {"cpu": "X", "cores": 2, "threads": 2, "memory_gib": 8.0, "system": "Y"},
            "versions": {"torch": "2"},
            "rounds": 2,
            "found": {
                "harvest": {
                    "kept": [process(0.8), process(1.6)],
                    "system": [process(1.0, 130_000), process(2.0, 130_000)],
                }
            },
        }
    )
    assert "| 1.500 | 1.200 | **0.80** [0.80, 0.80] | 130,000; kept 0 |" in report


@pytest.mark.parametrize(("mode", "said"), [("kept", "false"), ("system", "true")])
def test_a_process_that_is_not_what_it_should_be_ends_the_comparison(
    monkeypatch: pytest.MonkeyPatch, mode: str, said: str
) -> None:
    seen: list[dict[str, str]] = []

    def run(_: list[str], env: dict[str, str], **rest: Any) -> Any:
        seen.append(env)
        return subprocess.CompletedProcess([], 0, stdout=f'{{"kept": {said}}}\n')

    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setattr(allocator.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="could not be run"):
        allocator.in_a_process("harvest", mode, 1)
    assert (seen[0].get("NEURONMAP_MALLOC") == "system") == (mode == "system")
    assert "MALLOC_ARENA_MAX" not in seen[0]
