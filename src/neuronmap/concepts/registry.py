"""Concepts by name: the built-in ones, what plug-ins bring, and files of the user."""

from __future__ import annotations

import difflib
from pathlib import Path

from neuronmap.concepts.builtin import BUILT_IN
from neuronmap.concepts.concept import Concept
from neuronmap.concepts.user import concept_from_file
from neuronmap.errors import ConfigError, PluginError
from neuronmap.plugins import collect

__all__ = ["get_concepts", "list_concepts"]

_FILE_ENDINGS = (".json", ".yaml", ".yml")


def list_concepts() -> list[Concept]:
    """All concepts that go by a name: built-in ones in their order, then those of plug-ins.

    Raises:
        PluginError: a plug-in gives something else, or a name that is taken.
    """
    found = {concept.name: concept for concept in BUILT_IN}
    for part in collect("neuronmap_concepts"):
        if not isinstance(part, Concept):
            raise PluginError(f"A plug-in gave {part!r} as a concept; neuronmap.concepts.Concept is wanted.")
        if part.name in found:
            raise PluginError(f"A plug-in gave a concept named '{part.name}'; that name is taken.")
        found[part.name] = part
    return list(found.values())


def get_concepts(name: str) -> list[Concept]:
    """Concepts of a name.

    Args:
        name: a family (``grammatical_number``) for all its variants, one concept (``grammatical_number:subject``), or the
            path of a ``.json``, ``.yaml`` or ``.yml`` file.

    Returns:
        At least one concept.

    Raises:
        ConfigError: there is none; names near ones. Or the file cannot be used; lists all its faults.
        PluginError: as :func:`list_concepts`.

    Example:
        >>> [concept.name for concept in get_concepts("syntactic_role")]
        ['syntactic_role:thematic', 'syntactic_role:grammatical']
    """
    listed = list_concepts()
    found = [concept for concept in listed if name in (concept.name, concept.family)]
    if found:
        return found
    if Path(name).suffix.lower() in _FILE_ENDINGS:
        return [concept_from_file(name)]
    names = list(dict.fromkeys(part for concept in listed for part in (concept.family, concept.name)))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    raise ConfigError(
        f"There is no concept named '{name}'. Concepts: {', '.join(concept.name for concept in listed)}.",
        hint=f"Did you mean {' or '.join(near)}?" if near else "Or give the path of a .yaml or .json file.",
    )
