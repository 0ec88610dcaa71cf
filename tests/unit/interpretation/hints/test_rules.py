"""Rules as stored: text, JSON and back, and what they predict."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from synthetic import Words

from neuronmap.errors import InputError
from neuronmap.interpretation import Rule, TokenTraits
from neuronmap.interpretation.hints.traits import TRAITS, trait_index

WORDS = Words(["<|end|>", " the", " of", "\n", " walking", "s", " Paris", "42", "é", " war", "());", "."])
RULES = [
    Rule("tokens", tokens=(1,)),
    Rule("tokens", tokens=(1, 6)),
    Rule("previous", tokens=(2,)),
    Rule("ngrams", ngrams=((2, 1), (1, 2, 1))),
    Rule("endings", endings=("ing",)),
    Rule("trait", trait="number"),
    Rule("position", start=1, stop=3),
    Rule("topic", tokens=(9,)),
    Rule("next", tokens=(6,)),
    Rule("always"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_rule_survives_json_and_has_words(rule: Rule) -> None:
    assert Rule.from_json(rule.to_json()) == rule
    assert json.loads(rule.to_json())["kind"] == rule.kind
    assert rule.words(WORDS)
    assert 0 < len(rule.label(WORDS)) <= 40
    assert rule.firing_class


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"kind":"tokens","tokens":["x"]}', '{"kind":"weather"}', '{"kind":"trait","trait":"blue"}'],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="rule_json"):
        Rule.from_json(text)


def test_predictions_on_a_line() -> None:
    ids = np.array([[2, 1, 2, 1, 6, 9, 7]])

    def places(rule: Rule) -> list[int]:
        return np.flatnonzero(rule.predict(ids, TokenTraits(WORDS))[0]).tolist()

    assert places(RULES[0]) == [1, 3]
    assert places(RULES[2]) == [1, 3]
    assert places(RULES[3]) == [1, 3]
    assert places(Rule("ngrams", ngrams=((1, 2, 1),))) == [3]
    assert places(RULES[5]) == [6]
    assert places(RULES[6]) == [1, 2]
    assert places(RULES[7]) == [5, 6]
    assert places(RULES[8]) == [3]
    assert places(RULES[9]) == [0, 1, 2, 3, 4, 5, 6]


def test_a_topic_reaches_32_tokens() -> None:
    ids = np.ones((1, 50), int)
    ids[0, 4] = 9
    assert np.flatnonzero(RULES[7].predict(ids)[0]).tolist() == list(range(4, 36))


def test_what_a_rule_needs_is_asked_for() -> None:
    with pytest.raises(InputError, match="two dimensions"):
        RULES[0].predict(np.array([1, 2]))
    with pytest.raises(InputError, match="needs the traits"):
        RULES[5].predict(np.array([[1, 2]]))


def test_long_lists_say_how_many_more() -> None:
    label = Rule("tokens", tokens=(4,) * 9).label(WORDS)
    assert label == "tokens ' walking', ' walking', +7"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (" Paris", {"capitalised"}),
        (" NATO", {"all_capitals"}),
        ("42", {"number"}),
        ("?!", {"punctuation", "sentence_end"}),
        (' "', {"punctuation", "quote"}),
        ("[", {"punctuation", "bracket"}),
        ("\n\n", {"whitespace", "line_break"}),
        ("  ", {"whitespace"}),
        (" naïve", {"accented"}),
        (" Привет", {"cyrillic", "capitalised"}),
        ("世界", {"han"}),
        ("\ufffd", {"partial"}),
        (" camelCase", {"code_symbol"}),
        (" x_y", {"code_symbol"}),
        ("<|end|>", {"special"}),
        (" walking", set()),
    ],
)
def test_token_traits(text: str, names: set[str]) -> None:
    mask = int(TokenTraits(Words([text])).mask_V[0])
    found = {trait.name for trait in TRAITS if mask >> trait_index(trait.name) & 1}
    if "(" not in text and "[" not in text:
        assert found == names
    else:
        assert names <= found


def test_position_traits_by_hand() -> None:
    words = Words(["<|end|>", " In", "ter", "est", ".", "\n", " In"])
    masks = TokenTraits(words).masks(np.array([[1, 2, 3, 4, 1, 2, 5, 3, 0, 1]]))[0]

    def places(name: str) -> list[int]:
        return [place for place, mask in enumerate(masks.tolist()) if mask >> trait_index(name) & 1]

    assert places("document_start") == [0, 9]
    assert places("word_internal") == [1, 2, 5]
    assert places("sentence_start") == [4]
    assert places("line_start") == [7]
    assert places("repeated") == [4, 5, 7, 9]
    assert places("induction") == [5]


def test_importing_the_room_loads_no_torch() -> None:
    code = "import sys, neuronmap.interpretation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
