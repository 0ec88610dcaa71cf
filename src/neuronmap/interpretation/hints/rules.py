"""Rules: predicates on a position and the text before it that say whether a feature fires there.

Shapes: B texts of T tokens, V vocabulary.

A rule looks at the token, the tokens before it in the same context and its place; only the kind ``next`` looks one token ahead, and
says so. ``Rule.from_json(rule_json).predict(ids_BT, traits)`` evaluates a stored rule on any text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from neuronmap.errors import InputError
from neuronmap.features.storage.text import visible
from neuronmap.hashing import canonical_json
from neuronmap.interpretation.hints.traits import TRAITS, TokenTexts, TokenTraits, trait_index

__all__ = ["LABEL_LENGTH", "TOPIC_WINDOW", "Kind", "Rule", "promotes", "quoted"]

Kind = Literal["tokens", "previous", "ngrams", "endings", "trait", "position", "topic", "next", "always"]
LABEL_LENGTH = 40
TOPIC_WINDOW = 32
"""Tokens, the current one included, in which a topic rule looks for its words."""


@dataclass(frozen=True)
class Rule:
    """One rule. What a kind does not use is empty.

    Attributes:
        kind: ``tokens``: the token is one of ``tokens``. ``previous``: the token before it is. ``ngrams``: it ends one of ``ngrams``.
            ``endings``: its word ends with one of ``endings``, and is longer. ``trait``: it has the trait of :data:`TRAITS`.
            ``position``: its place in the context is from ``start`` to ``stop``, exclusive. ``topic``: one of ``tokens`` is among the
            last 32 tokens, itself included. ``next``: the token after it is one of ``tokens``. ``always``: at every position.
    """

    kind: Kind
    tokens: tuple[int, ...] = ()
    ngrams: tuple[tuple[int, ...], ...] = ()
    endings: tuple[str, ...] = ()
    trait: str = ""
    start: int = 0
    stop: int = 0

    def to_json(self) -> str:
        """Canonical JSON with only what the kind uses."""
        values: dict[str, Any] = {"kind": self.kind}
        if self.kind in ("tokens", "previous", "topic", "next"):
            values["tokens"] = list(self.tokens)
        elif self.kind == "ngrams":
            values["ngrams"] = [list(ngram) for ngram in self.ngrams]
        elif self.kind == "endings":
            values["endings"] = list(self.endings)
        elif self.kind == "trait":
            values["trait"] = self.trait
        elif self.kind == "position":
            values |= {"start": self.start, "stop": self.stop}
        return canonical_json(values)

    @classmethod
    def from_json(cls, text: str) -> Rule:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: it is not a rule, or of a kind or trait this version does not know.
        """
        try:
            values = json.loads(text)
            rule = cls(
                kind=values["kind"],
                tokens=tuple(int(token) for token in values.get("tokens", ())),
                ngrams=tuple(tuple(int(token) for token in ngram) for ngram in values.get("ngrams", ())),
                endings=tuple(str(ending) for ending in values.get("endings", ())),
                trait=str(values.get("trait", "")),
                start=int(values.get("start", 0)),
                stop=int(values.get("stop", 0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"rule_json = {text[:100]!r} is not a rule: {error}.") from None
        if rule.kind not in get_args(Kind) or (rule.kind == "trait" and rule.trait not in {t.name for t in TRAITS}):
            raise InputError(
                f"rule_json = {text[:100]!r} is of a kind or trait that is not known here.",
                hint=f"Kinds: {', '.join(get_args(Kind))}. A newer NeuronMap may have written it.",
            )
        return rule

    def predict(
        self,
        ids_BT: npt.NDArray[np.integer],
        traits: TokenTraits | None = None,
        *,
        starts_BT: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Where the rule says the feature fires.

        Args:
            ids_BT: token ids [B, T], each row one context from its first token on.
            traits: traits of the vocabulary; needed by the kinds ``trait`` and ``endings``.
            starts_BT: bool [B, T], first tokens of documents; None: the first of a row and what follows a special token.

        Returns:
            bool [B, T].

        Raises:
            InputError: ``traits`` is missing, or ids are not two-dimensional.
        """
        ids_BT = np.asarray(ids_BT)
        if ids_BT.ndim != 2:
            raise InputError(
                f"Token ids of shape {ids_BT.shape} were given; a rule is evaluated on texts x tokens, two dimensions."
            )
        if self.kind in ("trait", "endings") and traits is None:
            raise InputError(
                f"A rule of kind {self.kind!r} needs the traits of the vocabulary.", hint="TokenTraits(vocabulary)"
            )
        holds_BT = np.zeros(ids_BT.shape, bool)
        if self.kind == "tokens":
            holds_BT = np.isin(ids_BT, self.tokens)
        elif self.kind == "previous":
            holds_BT[:, 1:] = np.isin(ids_BT[:, :-1], self.tokens)
        elif self.kind == "next":
            holds_BT[:, :-1] = np.isin(ids_BT[:, 1:], self.tokens)
        elif self.kind == "ngrams":
            for ngram in self.ngrams:
                holds_BT |= _ends_ngram(ids_BT, ngram)
        elif self.kind == "endings" and traits is not None:
            numbers = [number for number, ending in enumerate(traits.endings) if ending in self.endings]
            holds_BT = np.asarray(np.isin(traits.ending_VL, numbers).any(axis=1))[ids_BT]
        elif self.kind == "trait" and traits is not None:
            bit = np.uint64(trait_index(self.trait))
            holds_BT = (traits.masks(ids_BT, starts_BT) >> bit & np.uint64(1)) > 0
        elif self.kind == "position":
            holds_BT[:, self.start : self.stop] = True
        elif self.kind == "topic":
            seen_BT = np.cumsum(np.isin(ids_BT, self.tokens), axis=1, dtype=np.int64)
            seen_BT[:, TOPIC_WINDOW:] -= seen_BT[:, :-TOPIC_WINDOW].copy()
            holds_BT = seen_BT > 0
        else:
            holds_BT[:] = True
        return holds_BT

    @property
    def firing_class(self) -> str:
        """The class of the features that it describes."""
        if self.kind == "tokens":
            return "token" if len(self.tokens) == 1 else "tokens"
        if self.kind == "trait":
            return TRAITS[trait_index(self.trait)].firing_class
        classes = {
            "previous": "n-gram",
            "ngrams": "n-gram",
            "endings": "suffix",
            "position": "positional",
            "next": "say",
        }
        return {**classes, "topic": "topic", "always": "dense"}[self.kind]

    def label(self, vocabulary: TokenTexts) -> str:
        """Short name, at most 40 characters."""
        if self.kind == "trait":
            return TRAITS[trait_index(self.trait)].label
        if self.kind == "always":
            return "fires almost everywhere"
        if self.kind == "position":
            last = self.stop - 1
            return f"position {self.start}" if last == self.start else f"positions {self.start} to {last}"
        if self.kind == "endings":
            return _listed("words ending in ", [f"'{ending}'" for ending in self.endings])
        if self.kind == "ngrams":
            return _listed("", [" then ".join(quoted(t, vocabulary) for t in ngram) for ngram in self.ngrams])
        if self.kind == "topic":
            return _listed("topic: ", [vocabulary.text_of(token).strip() for token in self.tokens])
        start = {"previous": "after ", "next": "before "}.get(self.kind, "token ")
        if self.kind == "tokens" and len(self.tokens) > 1:
            start = "tokens "
        return _listed(start, [quoted(token, vocabulary) for token in self.tokens])

    def words(self, vocabulary: TokenTexts) -> str:
        """The rule as a sentence."""
        if self.kind == "trait":
            return TRAITS[trait_index(self.trait)].words
        if self.kind == "always":
            return "every position"
        if self.kind == "position":
            return f"the place in the context is from {self.start} to {self.stop - 1}, counted from 0"
        if self.kind == "endings":
            return (
                f"the token is a word that ends in {' or '.join(repr(ending) for ending in self.endings)} and is longer"
            )
        if self.kind == "ngrams":
            parts = [" then ".join(quoted(t, vocabulary) for t in ngram) for ngram in self.ngrams]
            return f"the token ends {' or '.join(parts)}"
        listed = ", ".join(quoted(token, vocabulary) for token in self.tokens)
        one = f"is {listed}" if len(self.tokens) == 1 else f"is one of {listed}"
        if self.kind == "topic":
            return f"{'one of ' * (len(self.tokens) > 1)}{listed} is among the last {TOPIC_WINDOW} tokens"
        subject = {"previous": "the token before it", "next": "the token after it (one token ahead)"}
        return f"{subject.get(self.kind, 'the token')} {one}"


def quoted(token: int, vocabulary: TokenTexts) -> str:
    """A token in quotes, spaces as they are, what else is invisible with a sign; bytes that are no whole characters as ``<E2 80>``."""
    text = vocabulary.text_of(token)
    if "\ufffd" in text:
        return f"<{vocabulary.bytes_of(token).hex(' ').upper()}>"
    inner = text.strip(" ")
    return f"'{text.replace(inner, visible(inner)) if inner else text}'"


def promotes(tokens: Sequence[int], vocabulary: TokenTexts) -> str:
    """Label of the output side: ``promotes ' Paris', ' London'``; empty without tokens."""
    return _listed("promotes ", [quoted(token, vocabulary) for token in tokens]) if len(tokens) else ""


def _ends_ngram(ids_BT: npt.NDArray[np.integer], ngram: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    length = len(ngram)
    ends_BT = np.zeros(ids_BT.shape, bool)
    if length <= ids_BT.shape[1]:
        tail = np.ones((len(ids_BT), ids_BT.shape[1] - length + 1), bool)
        for place, token in enumerate(ngram):
            tail &= ids_BT[:, place : place + tail.shape[1]] == token
        ends_BT[:, length - 1 :] = tail
    return ends_BT


def _listed(start: str, parts: Sequence[str]) -> str:
    """``start`` and as many parts as fit, the number of the others at the end."""
    text = start + parts[0]
    for shown, part in enumerate(parts[1:], 1):
        more = len(parts) - shown - 1
        longer = f"{text}, {part}"
        if len(longer) + (len(f", +{more}") if more else 0) > LABEL_LENGTH:
            text += f", +{len(parts) - shown}"
            break
        text = longer
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"
