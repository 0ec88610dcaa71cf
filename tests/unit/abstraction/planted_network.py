"""A network in which everything is known: what is written where, along which direction, and when it goes.

Words carry a bit in one coordinate of their embedding; the last word of a text, "now", carries nothing. Each block looks the bits of the
earlier words up and writes a code for them at every later token, by a schedule over the layers:

    layers < WRITTEN           nothing
    WRITTEN <= l < TURNED      the noun's bit along u
    TURNED <= l < MIXED        the same along v
    MIXED <= l < CLEAR         r along v, and r times the bit along w (r: the bit of another word): no linear probe finds the noun's bit
    CLEAR <= l < ERASED        the noun's bit along v again
    ERASED <= l                nothing

The cue word's bit is written along a direction of its own at all layers from CUE on.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from neuronmap.concepts import Concept, ConceptData, Item, Outcome
from neuronmap.models import LanguageModel, wrap_model

WRITTEN, TURNED, MIXED, CLEAR, ERASED, BLOCKS = 3, 6, 8, 10, 12, 14
CUE = 2
LEMMAS, FILLERS = 60, 12
_NOISE, _NOUN, _SIDE, _CUE, _CODE, _WIDTH = 20, 20, 21, 22, 24, 32

WORDS = [
    *("start", "now"),
    *(f"noun{lemma}{ending}" for lemma in range(LEMMAS) for ending in ("a", "b")),
    *("left", "right", "hot", "cold"),
    *(f"filler{index}" for index in range(FILLERS)),
]


_STEMS = {"left": "side", "right": "side", "hot": "cue", "cold": "cue"}


def embedding() -> Tensor:
    """The table [V, W]: noise, the same for both forms of a word, and the bits."""
    generator = torch.Generator().manual_seed(0)
    table_VW = torch.zeros(len(WORDS), _WIDTH)
    noise: dict[str, Tensor] = {}
    for index, word in enumerate(WORDS):
        stem = _STEMS.get(word, word[:-1] if word.startswith("noun") else word)
        table_VW[index, :_NOISE] = noise.setdefault(stem, torch.randn(_NOISE, generator=generator))
        if word.startswith("noun"):
            table_VW[index, _NOUN] = 1.0 if word.endswith("b") else -1.0
    for word, place in (("left", _SIDE), ("right", _SIDE), ("hot", _CUE), ("cold", _CUE)):
        table_VW[WORDS.index(word), place] = 1.0 if word in ("right", "hot") else -1.0
    return table_VW


class PlantedBlock(nn.Module):
    """Writes the code of one layer."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.mix = nn.Linear(_WIDTH, _WIDTH, bias=False)  # something to look at for the search for roles
        nn.init.zeros_(self.mix.weight)

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """The next layer."""
        h_BTW = hidden_states.clone()
        earlier_BTW = h_BTW.cumsum(1) - h_BTW  # sums over earlier tokens
        noun, side, cue = (earlier_BTW[..., place].clamp(-1, 1) for place in (_NOUN, _SIDE, _CUE))
        code = torch.zeros(*h_BTW.shape[:2], 4, dtype=h_BTW.dtype)
        if WRITTEN <= self.layer < TURNED:
            code[..., 0] = noun
        elif TURNED <= self.layer < MIXED or CLEAR <= self.layer < ERASED:
            code[..., 1] = noun
        elif MIXED <= self.layer < CLEAR:
            code[..., 1], code[..., 2] = side, side * noun
        if self.layer >= CUE:
            code[..., 3] = cue
        h_BTW[..., _CODE : _CODE + 4] = code
        if self.layer == 1:  # what came before, as noise that texts differ by
            h_BTW[..., :_NOISE] = h_BTW[..., :_NOISE] + 0.3 * earlier_BTW[..., :_NOISE]
        return h_BTW + self.mix(h_BTW)


class PlantedConfig(PretrainedConfig):
    """Its configuration."""

    model_type = "planted"

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.hidden_size, self.vocab_size, self.num_hidden_layers = _WIDTH, len(WORDS), BLOCKS
        self.max_position_embeddings = 64


class PlantedModel(PreTrainedModel):
    """The network."""

    config_class = PlantedConfig
    base_model_prefix = "model"
    _tied_weights_keys: Any = None

    def __init__(self, config: PlantedConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(len(WORDS), _WIDTH)
        self.layers = nn.ModuleList(PlantedBlock(layer + 1) for layer in range(BLOCKS))
        self.post_init()
        with torch.no_grad():
            self.embed.weight.copy_(embedding())
            for block in self.layers:
                block.mix.weight.zero_()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def get_input_embeddings(self) -> nn.Module:
        """The table."""
        return self.embed

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """All layers."""
        h_BTW = self.embed(input_ids)
        for layer in self.layers:
            h_BTW = layer(h_BTW)
        return BaseModelOutput(last_hidden_state=h_BTW)


class HeldBlock(nn.Module):
    """The first writes the noun's bit, the others pass on what they get."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.mix = nn.Linear(_WIDTH, _WIDTH, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """The next layer."""
        h_BTW = hidden_states.clone()
        if self.layer == 1:
            earlier_BTW = h_BTW.cumsum(1) - h_BTW
            h_BTW[..., _CODE] += earlier_BTW[..., _NOUN]
            h_BTW[..., :_NOISE] += 0.3 * earlier_BTW[..., :_NOISE]
        return h_BTW + self.mix(h_BTW)


class SpeakingModel(PreTrainedModel):
    """A language model that holds the noun's bit from its first block on, and says "hot" for it, or "cold"."""

    config_class = PlantedConfig
    base_model_prefix = "model"
    _tied_weights_keys: Any = None

    def __init__(self, config: PlantedConfig) -> None:
        super().__init__(config)
        self.model = PlantedModel(config)
        self.model.layers = nn.ModuleList(HeldBlock(layer + 1) for layer in range(4))
        self.lm_head = nn.Linear(_WIDTH, len(WORDS), bias=False)
        with torch.no_grad():
            self.lm_head.weight.zero_()
            self.lm_head.weight[WORDS.index("hot"), _CODE] = 2.0
            self.lm_head.weight[WORDS.index("cold"), _CODE] = -2.0

    def get_input_embeddings(self) -> nn.Module:
        """The table."""
        return self.model.embed

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm_head

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> CausalLMOutput:
        """Logits."""
        return CausalLMOutput(logits=self.lm_head(self.model(input_ids).last_hidden_state))


def speaking_model() -> LanguageModel:
    """The speaking network with its tokenizer."""
    return wrap_model(SpeakingModel(PlantedConfig()), _tokenizer(), name="speaking")


def planted_model() -> LanguageModel:
    """The network with its tokenizer: one token a word."""
    return wrap_model(PlantedModel(PlantedConfig()), _tokenizer(), name="planted")


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="start"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="start", pad_token="start")


def _item(
    order: str, lemma: int, bit: int, side: int, cue: int, filler: int, label: int, classes: tuple[str, str]
) -> Item:
    parts = {
        "n": f"noun{lemma}{'ab'[bit]}",
        "s": ("left", "right")[side],
        "c": ("cold", "hot")[cue],
        "f": f"filler{filler}",
    }
    text = " ".join(["start", *(parts[name] for name in order), "now"])
    split = "train" if lemma < 32 else "calibration" if lemma < 40 else "test"
    return Item(
        text=text,
        label=classes[label],
        span=(len(text) - 3, len(text)),
        cluster=f"noun{lemma}",
        pair=f"{order}-{lemma}-{side}-{cue if label == bit else ''}-{filler}",
        condition=order,
        split=split,
        factors={"order": order},
    )


ORDERS = ("nsf", "sfn", "fnsf")


def bit_concept(outcome: Outcome | None = None, every: int = 1) -> Concept:
    """The noun's bit, in three orders of the words; the other word's bit is balanced."""

    def generate(items: int, seed: int) -> ConceptData:
        made = [
            _item(order, lemma, bit, side, 0, (lemma * 7 + place + side + seed) % FILLERS, bit, ("a", "b"))
            for lemma in range(0, LEMMAS, every)
            for place, order in enumerate(ORDERS)
            for side in (0, 1)
            for bit in (0, 1)
        ]
        return ConceptData("planted:bit", ("a", "b"), tuple(made))

    return Concept(
        "planted:bit",
        "Bit",
        "Which form has the noun?",
        ("a", "b"),
        ("order", "side"),
        "order",
        "at now",
        generate,
        outcome,
    )


def cue_concept(every: int = 1) -> Concept:
    """A label that the cue shows in one order of the words, and its opposite in the other."""

    def generate(items: int, seed: int) -> ConceptData:
        made = [
            _item(
                order,
                lemma,
                lemma % 2,
                side,
                label if order == "ncsf" else 1 - label,
                (lemma + seed) % FILLERS,
                label,
                ("x", "y"),
            )
            for lemma in range(0, LEMMAS, every)
            for order in ("ncsf", "csnf")
            for side in (0, 1)
            for label in (0, 1)
        ]
        return ConceptData("planted:cue", ("x", "y"), tuple(made))

    return Concept("planted:cue", "Cue", "Which label?", ("x", "y"), ("order", "side"), "order", "at now", generate)
