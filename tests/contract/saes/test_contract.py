"""Every registered architecture keeps the contract, at several sizes and with options that reach each branch of its loss."""

from __future__ import annotations

from typing import Any

import pytest

from neuronmap.errors import ConfigError
from neuronmap.saes import SparseAutoencoder, check_sae, get_architecture, list_architectures

BUILT_IN = ["relu", "gated", "topk", "batchtopk", "jumprelu", "matryoshka", "lista"]

# Options away from the defaults; wide windows make the estimated gradients of thresholds act on many entries.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("relu", {"sparsity_penalty": 0.5}),
    ("gated", {"sparsity_penalty": 0.5}),
    ("topk", {"k": 1}),
    ("topk", {"k": 5, "aux_k": 3, "aux_coefficient": 1.0}),
    ("batchtopk", {"k": 5, "aux_k": 3, "aux_coefficient": 1.0}),
    ("matryoshka", {"k": 3, "group_fractions": (0.25, 0.75)}),
    ("matryoshka", {"k": 5, "aux_k": 3, "aux_coefficient": 1.0}),
    ("matryoshka", {"k": 4, "detach_levels": True}),
    ("matryoshka", {"k": 3, "group_fractions": (0.25, 0.75), "detach_levels": True}),
    ("lista", {"k": 5, "aux_k": 3, "aux_coefficient": 1.0}),
    ("lista", {"k": 3, "detach_levels": False, "refinement_step": 1.0}),
    ("lista", {"k": 3, "refinement_step": 0.0, "group_fractions": (1.0,)}),
    ("jumprelu", {"bandwidth": 0.4, "target_l0": 4.0}),
    ("jumprelu", {"bandwidth": 0.4, "sparsity_penalty": 0.02, "dead_penalty": 0.1}),
    ("jumprelu", {"sparsity_form": "tanh", "bandwidth": 0.4, "sparsity_penalty": 0.02, "dead_penalty": 0.1}),
]


def test_the_built_in_architectures_are_registered() -> None:
    assert list_architectures()[: len(BUILT_IN)] == BUILT_IN


@pytest.mark.parametrize("name", list_architectures())
@pytest.mark.parametrize(("d_in", "d_sae", "seed"), [(12, 48, 0), (20, 64, 1), (17, 16, 2)])
def test_architecture_keeps_the_contract(name: str, d_in: int, d_sae: int, seed: int) -> None:
    check_sae(get_architecture(name), d_in=d_in, d_sae=d_sae, seed=seed)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[f"{name}-{sorted(options)}" for name, options in OPTIONS])
def test_contract_holds_with_other_options(name: str, options: dict[str, Any]) -> None:
    cls = get_architecture(name)
    check_sae(cls, seed=3, options=cls.Options.from_dict(options))


@pytest.mark.parametrize(("d_in", "d_sae"), [(2, 48), (12, 8)])
def test_sizes_too_small_for_the_rules_are_refused(d_in: int, d_sae: int) -> None:
    with pytest.raises(ConfigError, match="d_in >= 4 and d_sae >= 16"):
        check_sae(SparseAutoencoder, d_in=d_in, d_sae=d_sae)
