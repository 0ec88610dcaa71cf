"""Which differences between an SAE's model and another one are found, and what each of them allows."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import MODEL, D, hook, make_metadata

from neuronmap.errors import MismatchError
from neuronmap.hub import differences
from neuronmap.saes.fit import require_fit

OTHER = "sha256:" + "9" * 64


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"model_digest": OTHER}, [("model digest", "wrong")]),
        ({"revision": "def"}, [("revision", "note")]),  # the same weights under another name
        ({"model_digest": OTHER, "revision": "def"}, [("model digest", "wrong"), ("revision", "wrong")]),
        ({"name": "a copy"}, []),
        ({"model_digest": OTHER, "name": "tuned"}, [("model digest", "wrong"), ("model name", "note")]),
        ({"tokenizer_digest": OTHER}, [("tokenizer digest", "wrong")]),
        ({"tokenizer_digest": None, "revision": None}, []),
        ({"dtype": "bfloat16"}, [("dtype", "note")]),
        ({"hidden_size": D + 1}, [("width", "impossible")]),
        (
            {"model_digest": OTHER, "num_layers": 9, "architecture": "GPT2LMHeadModel"},
            [("model digest", "wrong"), ("model architecture", "wrong"), ("number of layers", "wrong")],
        ),
    ],
)
def test_each_difference_is_found(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    found = differences(make_metadata(), D, {**MODEL, **changes}, None)
    assert [(difference.what, difference.severity) for difference in found] == expected


def test_the_hook_is_compared_by_path_side_and_width() -> None:
    metadata = make_metadata()
    assert differences(metadata, D, MODEL, hook()) == []
    [place] = differences(metadata, D, MODEL, {**hook(), "side": "in"})
    assert (place.what, place.expected, place.found) == ("hook", "model.layers.2:out", "model.layers.2:in")
    found = differences(metadata, D, MODEL, {**hook(3), "width": 99})
    assert [difference.severity for difference in found] == ["impossible", "wrong"]


def test_an_sae_from_elsewhere_is_judged_by_the_name_it_knows() -> None:
    foreign = make_metadata(model={"name": "gpt2"}, hook={"name": "blocks.1.hook_resid_pre", "layer": 1})
    assert differences(foreign, D, {**MODEL, "name": "gpt2"}, None) == []
    [name] = differences(foreign, D, MODEL, None)
    assert (name.what, name.severity) == ("model name", "wrong")
    assert differences(make_metadata(model=None, hook=None), D, MODEL, None) == []


def test_every_difference_is_in_the_error_and_force_shows_them() -> None:
    found = differences(make_metadata(), D, {**MODEL, "model_digest": OTHER, "dtype": "bfloat16"}, None)
    with pytest.raises(MismatchError, match=r"'demo' does not fit this model: model digest.*; dtype: ") as raised:
        require_fit(found, "demo", force=False)
    assert raised.value.hint
    notes = require_fit(found, "demo", force=True)
    assert [note.split(":")[0] for note in notes] == ["SAE 'demo', forced", "SAE 'demo'"]


def test_notes_alone_do_not_stop() -> None:
    found = differences(make_metadata(), D, {**MODEL, "dtype": "bfloat16"}, None)
    assert require_fit(found, "demo", force=False) == ["SAE 'demo': dtype: the SAE has float32, the model bfloat16"]


def test_force_cannot_change_a_width() -> None:
    found = differences(make_metadata(), D, {**MODEL, "hidden_size": 99}, None)
    with pytest.raises(MismatchError, match="width: the SAE has 12, the model 99") as raised:
        require_fit(found, "demo", force=True)
    assert raised.value.hint == ""
