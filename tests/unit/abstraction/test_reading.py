"""Reading: the right token, all layers, whatever the batch."""

from __future__ import annotations

import copy

import pytest
import torch

from neuronmap.abstraction.reading import check_layers, read_concepts
from neuronmap.activations.items import tokenize_text
from neuronmap.concepts import ConceptData, Item
from neuronmap.errors import HookPointError, InputError, ModelError
from neuronmap.models import LanguageModel, wrap_model

TEXTS = [
    "The quick brown fox jumps",
    "In the winter the river froze",
    "A sparse autoencoder",
    "My fellow citizens, the state of our union is strong",
    "Numbers such as 12",
]


def data_of(texts: list[str], words: list[str] | None = None, name: str = "toy") -> ConceptData:
    """Items that are read at the last word, or at a named one."""
    items = []
    for index, text in enumerate(texts):
        word = text.split()[-1] if words is None else words[index]
        start = text.rindex(word)
        items.append(Item(text, "ab"[index % 2], (start, start + len(word)), f"c{index}", f"p{index}", "", "train"))
    return ConceptData(name, ("a", "b"), tuple(items))


def test_every_layer_is_read_at_the_last_token_of_the_word(tiny_llama: LanguageModel) -> None:
    data = data_of(TEXTS, ["fox", "river", "sparse", "state", "such"])
    layers = check_layers(tiny_llama, None)
    found = read_concepts(tiny_llama, [data], layers)[0]
    whole = copy.deepcopy(
        tiny_llama.module
    )  # transformers leaves hooks of its own in a model that is asked for its hidden states
    for index, item in enumerate(data.items):
        encoded = tiny_llama.tokenizer(item.text, return_offsets_mapping=True)
        place = max(
            at
            for at, (left, right) in enumerate(encoded["offset_mapping"])
            if left < item.span[1] and right > item.span[0]
        )
        assert int(found.position_N[index]) == place
        with torch.no_grad():
            states = whole(torch.tensor([encoded["input_ids"]]), output_hidden_states=True).hidden_states
        for layer in layers[:-1]:  # the last of these is after the final norm
            assert torch.allclose(found.x_LNW[layer, index], states[layer][0, place], atol=1e-5)
        mean = states[0][0, 1 : place + 1].mean(0)
        assert torch.allclose(found.before_NW[index], mean, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 7, 4096])
def test_neither_batch_size_nor_order_changes_anything(tiny_llama: LanguageModel, batch_tokens: int) -> None:
    layers = check_layers(tiny_llama, None)
    base = read_concepts(tiny_llama, [data_of(TEXTS)], layers)[0]
    other = read_concepts(tiny_llama, [data_of(TEXTS[::-1])], layers, batch_tokens=batch_tokens)[0]
    assert torch.allclose(base.x_LNW, other.x_LNW.flip(1), atol=1e-5)


def test_padding_side_of_the_tokenizer_changes_nothing(tiny_llama: LanguageModel) -> None:
    layers = check_layers(tiny_llama, None)
    found = []
    side = tiny_llama.tokenizer.padding_side
    try:
        for tiny_llama.tokenizer.padding_side in ("left", "right"):
            found.append(read_concepts(tiny_llama, [data_of(TEXTS)], layers)[0].x_LNW)
    finally:
        tiny_llama.tokenizer.padding_side = side
    assert torch.equal(found[0], found[1])


def test_texts_that_concepts_share_are_run_once(tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import neuronmap.activations.items as reading

    ran: list[int] = []
    real = reading.capture
    monkeypatch.setattr(
        reading, "capture", lambda model, ids, hooks: (ran.append(len(ids)), real(model, ids, hooks))[1]
    )
    both = [data_of(TEXTS), data_of(TEXTS[:3], ["quick", "winter", "sparse"], "other")]
    first, second = read_concepts(tiny_llama, both, [0, 1])
    assert sum(ran) == len(TEXTS)
    assert (first.x_LNW.shape[1], second.x_LNW.shape[1]) == (5, 3)


def test_position_0_is_left_out_and_counted(tiny_llama: LanguageModel) -> None:
    texts = ["T", *TEXTS]
    found = read_concepts(tiny_llama, [data_of(texts, [text.split()[0] for text in texts])], [0])[0]
    assert found.dropped + len(found.data.items) == len(texts)
    assert found.dropped >= 1
    assert int(found.position_N.min()) > 0
    with pytest.raises(InputError, match="position 0"):
        read_concepts(tiny_llama, [data_of(["T", "A"])], [0])


def test_what_cannot_be_read_is_said(tiny_llama: LanguageModel) -> None:
    nothing = ConceptData("toy", ("a", "b"), (Item("a  b", "a", (1, 1), "c", "p", "", "train"),))
    with pytest.raises(InputError, match="no token"):
        read_concepts(tiny_llama, [nothing], [0])
    with pytest.raises(InputError, match="longer than"):
        tokenize_text(tiny_llama, "word " * 5000)
    bare = wrap_model(tiny_llama.module, None, name="bare")
    with pytest.raises(ModelError, match="no tokenizer"):
        tokenize_text(bare, "text")


def test_layers_are_checked(tiny_llama: LanguageModel) -> None:
    last = tiny_llama.num_layers
    assert check_layers(tiny_llama, None) == tuple(range(last + 1))
    assert check_layers(tiny_llama, None, 3)[-1] == last
    assert check_layers(tiny_llama, [last, 0]) == (0, last)
    for wrong in ([last + 1], [0, -1], []):
        with pytest.raises(HookPointError, match="layers 0"):
            check_layers(tiny_llama, wrong)
    with pytest.raises(HookPointError, match="embedding"):
        check_layers(tiny_llama, [1, 2])
