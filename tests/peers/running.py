"""Scripts that run in the peers' environment (their packages need others than ours)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["run_script"]


def run_script(script: Path, folder: Path) -> None:
    """Run one over a folder; all that it does, in one process: importing sae-lens takes 12 s."""
    environment = {**os.environ, "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    ran = subprocess.run(
        [os.environ["NEURONMAP_PEERS_PYTHON"], str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
