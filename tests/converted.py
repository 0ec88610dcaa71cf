"""The sample model, converted from its GGUF file once a run of the tests: that takes half a minute, and a home of one's own has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock

from neuronmap.models.gguf import dequantised_folder
from neuronmap.models.samples import get_sample
from neuronmap.progress import SilentProgress

__all__ = ["link_converted"]


def link_converted(home: Path, factory: pytest.TempPathFactory) -> None:
    """Let a home that has no cache of models yet use the shared one; the first process that asks makes it, others wait.

    Args:
        home: the folder that NEURONMAP_HOME names in the test.
        factory: of the run, whose folder all processes share.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with FileLock(shared / "converted.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONMAP_HOME", str(shared / "converted"))
        sample = get_sample("smollm2-135m")
        assert sample is not None
        folder, _ = dequantised_folder(sample.require(), SilentProgress())
    (home / "cache").mkdir(parents=True, exist_ok=True)
    (home / "cache" / "models").symlink_to(folder.parent, target_is_directory=True)
