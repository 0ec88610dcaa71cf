"""Imports go one way through the layers (the contracts are in pyproject.toml, ``[tool.importlinter]``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_keep_the_layers(root: Path) -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([lint, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
