"""Small activations with known structure, and a configuration that trains on them in a second."""

from __future__ import annotations

import pytest
import torch

from neuronmap.training import SAEConfig


def sparse_rows(rows: int = 4096, width: int = 16, atoms: int = 32, seed: int = 0) -> torch.Tensor:
    """Sparse mixtures of random unit directions, with a mean, on a scale far from one."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(atoms, width, generator=g), dim=1)
    active = (torch.rand(rows, atoms, generator=g) < 0.06) * (0.5 + torch.rand(rows, atoms, generator=g))
    return 20.0 * (active @ directions) + 3.0


@pytest.fixture(name="rows")
def _rows() -> torch.Tensor:
    return sparse_rows()


@pytest.fixture
def small() -> dict:
    """Fields for 48 steps of 256 rows on 16-wide activations."""
    return {
        "architecture": "batchtopk",
        "hidden_dim": 48,
        "k": 4,
        "context_length": 64,
        "batch_size": 4,
        "num_epochs": 3.2,
        "learning_rate": 3e-3,
        "checkpoint_every_steps": 7,
        "dead_after_tokens": 1024,
    }


@pytest.fixture
def small_config(small) -> SAEConfig:
    return SAEConfig(**small)
