"""The client of OpenAI-compatible endpoints: retries, fallbacks of form, a cache by question, a hard budget."""

from __future__ import annotations

from neuronmap.interpretation.endpoint.budget import Budget, Limit, Spending, parse_budget
from neuronmap.interpretation.endpoint.cache import AnswerCache
from neuronmap.interpretation.endpoint.client import Endpoint
from neuronmap.interpretation.endpoint.config import EndpointConfig
from neuronmap.interpretation.endpoint.question import Answer, Question, TokenChoice, Usage

__all__ = [
    "Answer",
    "AnswerCache",
    "Budget",
    "Endpoint",
    "EndpointConfig",
    "Limit",
    "Question",
    "Spending",
    "TokenChoice",
    "Usage",
    "parse_budget",
]
