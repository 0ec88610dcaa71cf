"""Searches that cannot mean anything are refused, and say why; nothing is found silently."""

from __future__ import annotations

from typing import Any

import pytest

from neuronmap.errors import InputError
from neuronmap.zoo.records import list_kinds
from neuronmap.zoo.search.query import Query


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "BOGUS"}, "kind: there is no kind 'BOGUS'; there are SAE_MODEL, ANALYSIS_RESULT, EXPLANATIONS"),
        ({"width_min": 100, "width_max": 10}, "width_min = 100 is greater than width_max = 10"),
        ({"l0_min": 2.5, "l0_max": 1.0}, "l0_min = 2.5 is greater than l0_max = 1"),
        ({"metric": ("nonsense",)}, "is no condition"),
        ({"licence": "no such licence"}, "licence"),
    ],
)
def test_a_search_that_cannot_be_understood(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        Query.read(values)
    assert said in refused.value.message
    assert refused.value.message.endswith(".")
    assert not refused.value.message.endswith("..")


def test_every_kind_can_be_searched_for() -> None:
    for kind in list_kinds():
        assert Query.read({"kind": kind.name}).kind == kind.name
    assert Query.read({"width_min": 10, "width_max": 10, "l0_min": 3}).width_max == 10
