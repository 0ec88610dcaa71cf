"""What a plug-in may add, and how plug-ins are found.

A plug-in is a package with an entry point in the group ``neuronmap`` that names a module (or object) holding
functions marked with :data:`hookimpl`. Built-in parts register themselves directly in their rooms; only
strangers' parts come through here. A plug-in that fails to load is named in a :class:`PluginError` when its
kind of part is first asked for, and never keeps ``neuronmap --help`` from starting.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

import pluggy

from neuronmap.errors import PluginError

__all__ = ["GROUP", "collect", "hookimpl", "hookspec", "manager", "named"]

Named = TypeVar("Named")

GROUP = "neuronmap"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Specs:
    """The hooks. Each returns a list; lists of all plug-ins are joined."""

    @hookspec
    def neuronmap_sae_architectures(self) -> list[type]:
        """Subclasses of ``neuronmap.saes.SparseAutoencoder``; each must pass ``neuronmap.saes.check_sae``."""
        raise NotImplementedError

    @hookspec
    def neuronmap_corpora(self) -> list[Any]:
        """Named corpora: ``neuronmap.corpora.NamedCorpus`` objects, listed by ``neuronmap corpora list``."""
        raise NotImplementedError

    @hookspec
    def neuronmap_concepts(self) -> list[Any]:
        """``neuronmap.concepts.Concept`` objects; their names must be new."""
        raise NotImplementedError

    @hookspec
    def neuronmap_formats(self) -> list[Any]:
        """Objects of subclasses of ``neuronmap.hub.formats.Format``; their names must be new."""
        raise NotImplementedError

    @hookspec
    def neuronmap_explainers(self) -> list[Any]:
        """Objects of subclasses of ``neuronmap.interpretation.Explainer``: ways to ask for a label; their names must be new."""
        raise NotImplementedError

    @hookspec
    def neuronmap_scorers(self) -> list[Any]:
        """Objects of subclasses of ``neuronmap.interpretation.Scorer``: ways to score a label; their names must be new."""
        raise NotImplementedError

    @hookspec
    def neuronmap_zoo_kinds(self) -> list[Any]:
        """``neuronmap.zoo.records.ArtefactKind`` objects: kinds of artefacts that the zoo takes."""
        raise NotImplementedError


@cache
def manager() -> pluggy.PluginManager:
    """The plug-in manager with every installed plug-in loaded.

    Raises:
        PluginError: names the entry point that could not be imported.
    """
    plugins = pluggy.PluginManager(GROUP)
    plugins.add_hookspecs(Specs)
    for entry in entry_points(group=GROUP):
        try:
            plugins.register(entry.load(), name=entry.name)
        except Exception as error:
            raise PluginError(
                f"Plug-in '{entry.name}' ({entry.value}) could not be loaded: {error!r}.",
                hint="Update or uninstall the package that brings it.",
            ) from error
    return plugins


def named(hook: str, kind: type[Named], ours: Iterable[Named]) -> dict[str, Named]:
    """Parts by their ``name``: ours, then those of plug-ins.

    Args:
        hook: the plug-ins' hook.
        kind: what each must be an object of.
        ours: those that come with NeuronMap.

    Raises:
        PluginError: a plug-in gives something else, or a name that is taken.
    """
    found: dict[str, Named] = {}
    for one in (*ours, *collect(hook)):
        if not isinstance(one, kind):
            raise PluginError(f"{one!r} is no {kind.__name__}.")
        name: str = one.name  # type: ignore[attr-defined]  # every kind has one
        if name in found:
            raise PluginError(f"There are two parts of kind {kind.__name__} called {name!r}.")
        found[name] = one
    return found


def collect(hook: str) -> list[Any]:
    """All parts that plug-ins give for one hook, in load order."""
    results: list[list[Any]] = getattr(manager().hook, hook)()
    return [part for parts in results for part in parts]
