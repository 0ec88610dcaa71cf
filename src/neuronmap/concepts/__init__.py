"""Concepts: generators of labelled texts in minimal pairs, built in, from plug-ins, or the user's own. No torch in this room."""

from __future__ import annotations

from neuronmap.concepts.checks import checked
from neuronmap.concepts.concept import Concept, Outcome
from neuronmap.concepts.conceptfile import ConceptFile, ConceptText, concept_schema
from neuronmap.concepts.items import SPLITS, ConceptData, Item, Split
from neuronmap.concepts.registry import get_concepts, list_concepts
from neuronmap.concepts.user import concept_from_file, concept_from_items, concept_from_texts

__all__ = [
    "SPLITS",
    "Concept",
    "ConceptData",
    "ConceptFile",
    "ConceptText",
    "Item",
    "Outcome",
    "Split",
    "checked",
    "concept_from_file",
    "concept_from_items",
    "concept_from_texts",
    "concept_schema",
    "get_concepts",
    "list_concepts",
]
