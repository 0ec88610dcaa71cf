"""The Triton kernels on a GPU: they train as the torch kernels on a CPU do, and the host does not wait.

Kernels of the test process are interpreted, so a process of its own runs the compiled ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from neuronmap.saes import StepState, Workspace, get_architecture
from neuronmap.saes.topk import TopKFamily
from neuronmap.training.parameters import ParameterStep

B, D, F, STEPS = 512, 96, 4096, 12


def curve(architecture: str, device: str, *, rounds: bool) -> list[float]:
    """Loss of each step; on a GPU, an operation that waits for it is an error after the first step."""
    owner = get_architecture(architecture)
    sae = owner(D, F, owner.Options(k=8), device=device)
    sae.initialise(torch.zeros(D), torch.Generator().manual_seed(1))
    assert isinstance(sae, TopKFamily)
    workspace = Workspace(device, kernels="triton" if device == "cuda" else "torch", products="sparse")
    parameters = ParameterStep(sae, 1e-10, 1.0, workspace, rounds=rounds)
    generator = torch.Generator().manual_seed(2)
    batches = [torch.randn(B, D, generator=generator).to(device) for _ in range(STEPS)]
    dead_M = torch.arange(0, F, 7, device=device)
    losses = []
    for step, x_BD in enumerate(batches):
        if device == "cuda" and step == 1:
            torch.cuda.set_sync_debug_mode("error")
        rounded = parameters.rounded_W_enc
        state = StepState(step=step, dead_M=dead_M, unit_rows=True, rounded_W_enc=rounded)
        loss = sae.loss_and_gradients(x_BD, state, workspace)
        parameters.apply(1e-3, parameters.gradient_norm())
        sae.after_step(loss, state)
        losses.append(loss.total)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    return torch.stack(losses).tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_compiled_kernels_train_like_the_torch_ones(architecture: str, rounds: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, __file__, architecture, str(int(rounds))]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout  # the same bits
    found = json.loads(runs[0].stdout)
    assert found == pytest.approx(curve(architecture, "cpu", rounds=False), rel=2e-2 if rounds else 1e-3)


if __name__ == "__main__":
    print(json.dumps(curve(sys.argv[1], "cuda", rounds=sys.argv[2] == "1")))
