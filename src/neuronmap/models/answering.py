"""A language model that answers chats, one at a time: what ``neuronmap models serve`` puts behind an OpenAI-compatible address.

An answer of a JSON schema is not hoped for but written: brackets, names and commas come from the schema, the model writes the values only
(the idea of Willard and Louf 2023, arXiv 2307.09702, for the few kinds of schema that labels need). So even a small model's answers
can be read; whether they are right is another matter. Known: objects with all their properties, strings, whole numbers of one
digit, booleans, lists of a fixed length. What a prompt shares with the one before is not computed again.

Shapes: T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuronmap.errors import InputError, ModelFormatError
from neuronmap.models.language_model import LanguageModel

__all__ = ["ChatAnswer", "ChatModel"]

_LONGEST_STRING = 80
"""Tokens of one string of a schema."""


@dataclass
class ChatAnswer:
    """What the model wrote.

    Attributes:
        text: the answer.
        finish: ``stop`` or ``length``.
        prompt_tokens, completion_tokens: how many.
        tokens: of the answer: its text, natural log-probability, and (text, log-probability) of the likeliest; forced ones have 0.
    """

    text: str = ""
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: list[tuple[str, float, list[tuple[str, float]]]] = field(default_factory=list)


class ChatModel:
    """A model with a chat template (without one, messages are put one after the other).

    Args:
        model: a language model with a head and a tokenizer.

    Raises:
        ModelFormatError: it has no head or no tokenizer.
    """

    def __init__(self, model: LanguageModel) -> None:
        if not model.has_lm_head or model.tokenizer is None:
            raise ModelFormatError(
                f"{model.identity.name} has no language-model head or no tokenizer, so it cannot answer."
            )
        self.model, self.tokenizer = model, model.tokenizer
        config = model.module.generation_config
        ends = config.eos_token_id if config is not None else None
        self._ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        self._kept_ids: list[int] = []
        self._kept: Any = None

    def answer(
        self,
        messages: Sequence[dict[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        schema: dict[str, Any] | None = None,
        top_logprobs: int = 0,
    ) -> ChatAnswer:
        """Answer a chat.

        Args:
            messages: each with ``role`` and ``content``.
            max_tokens: most tokens of the answer.
            temperature: 0 for the likeliest token.
            seed: of sampling.
            schema: JSON schema of the answer; None for free text.
            top_logprobs: alternatives told at each token.

        Raises:
            InputError: the chat is longer than the model can take, or the schema is of a kind that is not known.
        """
        ids = self._prompt(messages)
        longest = self.model.max_length
        if longest is not None and len(ids) + max_tokens > longest:
            raise InputError(
                f"The prompt has {len(ids)} tokens; with max_tokens {max_tokens} that is more than the model's maximum context length "
                f"of {longest}."
            )
        with self.model.running, torch.inference_mode():
            writer = _Writer(self, ids, max_tokens, temperature, seed, top_logprobs)
            if schema is None:
                writer.free()
            else:
                writer.value(schema)
        return writer.answer

    def _prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if self.tokenizer.chat_template is not None:
            made = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
            return [int(one) for one in made["input_ids"]]
        text = "\n\n".join(message["content"] for message in messages) + "\n\n"
        return [int(one) for one in self.tokenizer(text)["input_ids"]]

    def forward(self, ids: list[int]) -> Tensor:
        """float32 [V]: logits after some tokens; what they share with the last call is not computed again."""
        shared = 0
        for mine, kept in zip(ids, self._kept_ids, strict=False):
            if mine != kept:
                break
            shared += 1
        shared = min(shared, len(ids) - 1)
        if self._kept is not None and shared < len(self._kept_ids):
            try:
                self._kept.crop(shared - len(self._kept_ids))  # negative: so many are taken off the end
            except (AttributeError, NotImplementedError, RuntimeError, ValueError):  # a cache that cannot be cut
                self._kept = None
        if self._kept is None:
            shared = 0
        new = torch.tensor([ids[shared:]], device=self.model.device)
        found = self.model.module(input_ids=new, past_key_values=self._kept, use_cache=True, logits_to_keep=1)
        self._kept, self._kept_ids = found.past_key_values, list(ids)
        logits_V: Tensor = found.logits[0, -1].float()
        return logits_V

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return token in self._ends


class _Writer:
    """One answer under way."""

    def __init__(
        self, chat: ChatModel, ids: list[int], max_tokens: int, temperature: float, seed: int, top_logprobs: int
    ) -> None:
        self.chat, self.ids, self.left = chat, ids, max_tokens
        self.temperature, self.top = temperature, top_logprobs
        self.random = torch.Generator().manual_seed(seed)
        self.answer = ChatAnswer(prompt_tokens=len(ids))
        self.tokenizer = chat.tokenizer

    def free(self) -> None:
        """Any text, until the model ends it."""
        begin = len(self.ids)
        while self.left:
            token = self._choose(self.chat.forward(self.ids), None)
            if self.chat.ends(token):
                self.answer.tokens.pop()
                self.answer.text = self.tokenizer.decode(self.ids[begin:], skip_special_tokens=True)
                return
            self._take(token)
        self.answer.text = self.tokenizer.decode(self.ids[begin:], skip_special_tokens=True)
        self.answer.finish = "length"

    def value(self, schema: dict[str, Any]) -> None:
        """A value of a schema; cut off where the tokens do not suffice."""
        kind = schema.get("type")
        if self.answer.finish == "length":
            return
        if kind == "object":
            for number, (name, inner) in enumerate(schema.get("properties", {}).items()):
                self._force(("{" if number == 0 else ", ") + f'"{name}": ')
                self.value(inner)
            self._force("}")
        elif kind == "array" and schema.get("minItems") == schema.get("maxItems") is not None:
            self._force("[")
            for number in range(int(schema["minItems"])):
                if number:
                    self._force(", ")
                self.value(schema["items"])
            self._force("]")
        elif kind == "string":
            self._string()
        elif kind == "boolean":
            self._one_of(["true", "false"])
        elif kind == "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 9)
            self._one_of([str(one) for one in schema.get("enum", range(low, high + 1))])
        else:
            raise InputError(f"response_format: a json_schema with {kind or 'no type'} of this kind is not known here.")

    def _string(self) -> None:
        self._force('"')
        begin, written = len(self.ids), ""
        for _ in range(_LONGEST_STRING):
            if not self.left:
                break
            token = self._choose(self.chat.forward(self.ids), None)
            if self.chat.ends(token):
                self.answer.tokens.pop()
                break
            text = self.tokenizer.decode([*self.ids[begin:], token], skip_special_tokens=True)
            stop = next((place for place, sign in enumerate(text) if sign in '"\n\\'), None)
            if stop is not None:
                written = text[:stop]
                self.answer.tokens.pop()
                break
            self._take(token)
            written = text
        if not self.left:
            self.answer.finish = "length"
        self.answer.text += "".join(sign if sign.isprintable() else " " for sign in written)
        self._force('"')

    def _one_of(self, texts: list[str]) -> None:
        """One of some texts, token by token among those that can still come."""
        open_ones = {text: self.tokenizer.encode(text, add_special_tokens=False) for text in texts}
        place = 0
        while any(len(tokens) > place for tokens in open_ones.values()):
            if len(open_ones) > 1 and any(len(tokens) == place for tokens in open_ones.values()):
                raise InputError("response_format: a json_schema with a choice that begins another is not known here.")
            if not self.left:
                self.answer.finish = "length"
                return
            allowed = sorted({tokens[place] for tokens in open_ones.values()})
            chosen = self._choose(self.chat.forward(self.ids), allowed)
            self._take(chosen)
            open_ones = {text: tokens for text, tokens in open_ones.items() if tokens[place] == chosen}
            place += 1
        self.answer.text += next(iter(open_ones))

    def _force(self, text: str) -> None:
        """Text that is not the model's choice."""
        if self.answer.finish == "length":
            return
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        if len(tokens) > self.left:
            self.answer.finish = "length"
            return
        for token in tokens:
            self.answer.tokens.append((self.tokenizer.decode([token]), 0.0, []))
            self._take(token)
        self.answer.text += text

    def _take(self, token: int) -> None:
        self.ids.append(token)
        self.left -= 1
        self.answer.completion_tokens += 1

    def _choose(self, logits_V: Tensor, allowed: list[int] | None) -> int:
        if allowed is not None:
            only_V = torch.full_like(logits_V, -torch.inf)
            only_V[allowed] = logits_V[allowed]
            logits_V = only_V
        logprob_V = logits_V.log_softmax(-1)
        if self.temperature > 0:
            share_V = (logits_V / self.temperature).softmax(-1).cpu()
            token = int(torch.multinomial(share_V, 1, generator=self.random))
        else:
            token = int(logprob_V.argmax())
        best = logprob_V.topk(min(self.top, len(allowed) if allowed is not None else self.top)) if self.top else None
        tops = [] if best is None else [
            (self.tokenizer.decode([int(one)]), float(value))
            for value, one in zip(best.values, best.indices, strict=True)
        ]  # fmt: skip
        self.answer.tokens.append((self.tokenizer.decode([token]), float(logprob_V[token]), tops))
        return token
