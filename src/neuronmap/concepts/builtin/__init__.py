"""The concepts that come with NeuronMap, a module for each family."""

from __future__ import annotations

from neuronmap.concepts.builtin.category import CATEGORY
from neuronmap.concepts.builtin.definiteness import DEFINITENESS
from neuronmap.concepts.builtin.number import NUMBER
from neuronmap.concepts.builtin.polarity import POLARITY
from neuronmap.concepts.builtin.question import QUESTION
from neuronmap.concepts.builtin.role import ROLE
from neuronmap.concepts.builtin.sentiment import SENTIMENT
from neuronmap.concepts.builtin.tense import TENSE

__all__ = ["BUILT_IN"]

BUILT_IN = (*NUMBER, *CATEGORY, *ROLE, *TENSE, *POLARITY, *SENTIMENT, *DEFINITENESS, *QUESTION)
