"""Which architectures exist: the built-in six, and what plug-ins add."""

from __future__ import annotations

import difflib
from functools import cache

from neuronmap import plugins
from neuronmap.errors import ConfigError, PluginError
from neuronmap.saes.base import SparseAutoencoder

__all__ = ["get_architecture", "list_architectures"]


@cache
def _architectures() -> dict[str, type[SparseAutoencoder]]:
    from neuronmap.saes.batchtopk import BatchTopKSAE
    from neuronmap.saes.gated import GatedSAE
    from neuronmap.saes.jumprelu import JumpReLUSAE
    from neuronmap.saes.matryoshka import MatryoshkaSAE
    from neuronmap.saes.relu import ReLUSAE
    from neuronmap.saes.topk import TopKSAE

    found: dict[str, type[SparseAutoencoder]] = {}
    built_in = [ReLUSAE, GatedSAE, TopKSAE, BatchTopKSAE, JumpReLUSAE, MatryoshkaSAE]
    for cls in [*built_in, *plugins.collect("neuronmap_sae_architectures")]:
        if not (isinstance(cls, type) and issubclass(cls, SparseAutoencoder) and hasattr(cls, "architecture")):
            raise PluginError(f"{cls!r} is not a SparseAutoencoder subclass with a name in 'architecture'.")
        if cls.architecture in found:
            raise PluginError(
                f"Two architectures are called '{cls.architecture}': {found[cls.architecture]} and {cls}."
            )
        found[cls.architecture] = cls
    return found


def list_architectures() -> list[str]:
    """Names of all architectures, built-in ones first."""
    return list(_architectures())


def get_architecture(name: str) -> type[SparseAutoencoder]:
    """The class of an architecture.

    Raises:
        ConfigError: for an unknown name, with near ones and the whole list.
    """
    known = _architectures()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"No SAE architecture '{name}'. There are: {', '.join(known)}.", hint=hint)
    return known[name]
