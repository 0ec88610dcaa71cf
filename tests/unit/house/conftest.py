"""What the house-rule tests look at: the files of the repository and the modules of the package."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import neuronmap

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def repository_files() -> list[Path]:
    """Every file that is, or would be, in the repository: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = (ROOT / name for name in sorted(set(listed.split("\0"))) if name)
    return [file for file in files if file.is_file()]


@pytest.fixture(scope="session")
def modules() -> list[ModuleType]:
    """Every module of the package, imported; without the Triton kernels where there is no Triton (outside Linux on x86-64)."""
    names = [found.name for found in pkgutil.walk_packages(neuronmap.__path__, "neuronmap.")]
    if importlib.util.find_spec("triton") is None:
        names = [name for name in names if not name.startswith("neuronmap.saes.kernels.triton.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """``docs/generate.py``, which writes the generated pages."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
