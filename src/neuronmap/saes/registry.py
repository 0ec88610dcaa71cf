"""Which architectures exist: the built-in seven, what plug-ins add, and those that can be read but not trained."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from neuronmap import plugins
from neuronmap.errors import ConfigError, PluginError
from neuronmap.saes.inference.options import INFERENCE_ONLY
from neuronmap.saes.options import BUILT_IN, ArchitectureOptions

if TYPE_CHECKING:
    from neuronmap.saes.base import SparseAutoencoder

__all__ = ["architecture_options", "get_architecture", "get_options", "list_architectures"]


@cache
def _architectures() -> dict[str, type[SparseAutoencoder]]:
    from neuronmap.saes.base import SparseAutoencoder
    from neuronmap.saes.batchtopk import BatchTopKSAE
    from neuronmap.saes.gated import GatedSAE
    from neuronmap.saes.inference.abstopk import AbsTopKSAE
    from neuronmap.saes.inference.crosscoder import CrosscoderSAE
    from neuronmap.saes.inference.matching_pursuit import MatchingPursuitSAE
    from neuronmap.saes.inference.temporal import TemporalSAE
    from neuronmap.saes.inference.transcoder import TranscoderSAE
    from neuronmap.saes.jumprelu import JumpReLUSAE
    from neuronmap.saes.lista import ListaSAE
    from neuronmap.saes.matryoshka import MatryoshkaSAE
    from neuronmap.saes.relu import ReLUSAE
    from neuronmap.saes.topk import TopKSAE

    found: dict[str, type[SparseAutoencoder]] = {}
    built_in = [ReLUSAE, GatedSAE, TopKSAE, BatchTopKSAE, JumpReLUSAE, MatryoshkaSAE, ListaSAE]
    read_only = [TranscoderSAE, CrosscoderSAE, AbsTopKSAE, MatchingPursuitSAE, TemporalSAE]
    for cls in [*built_in, *read_only, *plugins.collect("neuronmap_sae_architectures")]:
        if not (isinstance(cls, type) and issubclass(cls, SparseAutoencoder) and hasattr(cls, "architecture")):
            raise PluginError(f"{cls!r} is not a SparseAutoencoder subclass with a name in 'architecture'.")
        if cls.architecture in found:
            raise PluginError(
                f"Two architectures are called '{cls.architecture}': {found[cls.architecture]} and {cls}."
            )
        found[cls.architecture] = cls
    return found


def list_architectures() -> list[str]:
    """Names of the architectures that can be trained, built-in ones first."""
    return [name for name, cls in _architectures().items() if cls.trainable]


@cache
def architecture_options() -> dict[str, type[ArchitectureOptions]]:
    """Settings of every architecture that can be trained, by its name. Imports torch only where a plug-in adds one."""
    if not plugins.collect("neuronmap_sae_architectures"):
        return dict(BUILT_IN)
    return {name: owner.Options for name, owner in _architectures().items() if owner.trainable}


def get_architecture(name: str) -> type[SparseAutoencoder]:
    """The class of an architecture, also of one that is only read (``trainable`` says).

    Raises:
        ConfigError: for an unknown name, with near ones and the whole list.
    """
    known = _architectures()
    if name not in known:
        raise _unknown(name, list_architectures())
    return known[name]


def get_options(name: str) -> type[ArchitectureOptions]:
    """The settings class of an architecture that is to be trained, without torch for the built-in ones.

    Raises:
        ConfigError: as :func:`get_architecture`, and for one that can be read but not trained.
    """
    known = architecture_options()
    if name in INFERENCE_ONLY or (name not in known and _is_read_only(name)):
        raise ConfigError(
            f"SAE architecture '{name}' can be read and used, but NeuronMap does not train it. "
            f"Trained are: {', '.join(known)}."
        )
    if name not in known:
        raise _unknown(name, known)
    return known[name]


def _is_read_only(name: str) -> bool:
    """Whether a plug-in brings an architecture of that name that is not to be trained."""
    return bool(plugins.collect("neuronmap_sae_architectures")) and name in _architectures()


def _unknown(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that no architecture has: near ones and the whole list."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]}?" if near else ""
    return ConfigError(f"No SAE architecture '{name}'. There are: {', '.join(names)}.", hint=hint)
