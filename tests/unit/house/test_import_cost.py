"""Starting is cheap: the front door, ``--help`` and everything that only reads stored data load no heavy library."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "pandas", "pyarrow", "scipy", "sklearn", "tokenizers", "safetensors")
LISTING = f"import sys; sys.stderr.write(' '.join(sorted(set(sys.modules) & set({HEAVY!r}))))"


def heavy_after(statements: str) -> list[str]:
    """The heavy libraries that are loaded once ``statements`` have run in a fresh interpreter."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{statements}\n{LISTING}"], capture_output=True, text=True, timeout=120, check=True
    )
    return ran.stderr.split()


def test_import_neuronmap_loads_nothing_heavy() -> None:
    assert heavy_after("import neuronmap") == []


@pytest.mark.parametrize(
    "command", ["--help", "sae --help", "sae train --help", "corpora --help", "models --help", "plan --help"]
)
def test_help_loads_no_torch(command: str) -> None:
    loaded = heavy_after(
        "import contextlib, sys\n"
        "from neuronmap.cli import main\n"
        f"sys.argv = ['neuronmap', *{command.split()!r}]\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    assert not {"torch", "transformers", "datasets"} & set(loaded)


@pytest.mark.parametrize(
    "module",
    [
        "corpora",
        "hub",
        "evaluation",
        "features.storage.store",
        "features.storage.queries",
        "features.export",
        "planning",
        "saes.metadata",
        "training.config",
        "cli",
    ],
)
def test_what_reads_stored_data_needs_no_torch(module: str) -> None:
    assert "torch" not in heavy_after(f"import neuronmap.{module}")


def test_import_neuronmap_takes_under_150_ms() -> None:
    """The quickest of five fresh interpreters, in processor time: other work on the machine lengthens the time of the clock."""
    code = "import time; started = time.process_time(); import neuronmap; print(1000 * (time.process_time() - started))"
    took_ms = [
        float(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
        )
        for _ in range(5)
    ]
    assert min(took_ms) < 150, took_ms
