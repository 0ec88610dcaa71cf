"""Features planted in random text: each fires by a rule that is written here as a plain loop or comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from synthetic import Text, Words, state_of

from neuronmap.interpretation import make_hints
from neuronmap.progress import SilentProgress

COMMON = [" the", " of", " and", " to", " in", " is", " it", " was", ".", ",", "\n", " (", ")"]
STEMS = ("walk", "talk", "jump", "wash", "play", "help", "look", "open", "call", "fill")
WORDS = [f" {stem}{end}" for stem in STEMS for end in ("", "ing", "ed", "s")]
NAMES = [" Paris", " London", " Anna", " Peter", " Rome", " Berlin", " Maria"]
TOPIC = [" war", " army", " enemy", " soldier"]
OTHER = [
    " USA",
    " NATO",
    " EU",
    " война",
    " мир",
    " слово",
    "()",
    " foo_bar",
    " camelCase",
    " tree",
    " forest",
    " leaf",
]


class Planted:
    """400 documents, every eighth of them about war; half of the contexts are in the coded sample."""

    def __init__(self) -> None:
        self.vocabulary = Words(["<|end|>", *COMMON, *"0123456789", *WORDS, *NAMES, *OTHER, *TOPIC])
        rng = np.random.default_rng(0)
        usual = np.array([self.vocabulary.id[w] for w in [*COMMON, *"0123456789", *WORDS, *NAMES, *OTHER]])
        weight = np.where(usual <= len(COMMON), 8.0, 1.0)
        topic = [self.vocabulary.id[word] for word in TOPIC]
        documents = []
        for number in range(400):
            ids = rng.choice(usual, size=int(rng.integers(60, 400)), p=weight / weight.sum())
            if number % 8 == 0:
                at = rng.random(len(ids)) < 0.12
                ids[at] = rng.choice(topic, size=int(at.sum()))
            documents.append(ids.tolist())
        self.text = Text(documents, 64)
        self.fires = self._fires(rng)
        self.names = list(self.fires)
        self.state = state_of(
            np.stack(list(self.fires.values())),
            self.text,
            self.vocabulary.size,
            sampled_contexts=self.text.num_contexts // 2,
        )
        two = [self.vocabulary.id[name] for name in (" Rome", " Berlin")]
        self.promoted = np.tile(two, (len(self.names), 1)), np.ones((len(self.names), 2), np.float32)
        self.table = self.hints()
        self.rows: dict[str, dict[str, Any]] = dict(zip(self.names, self.table.to_pylist(), strict=True))

    def hints(self) -> Any:
        return make_hints(self.state, self.text, self.vocabulary, promoted=self.promoted, progress=SilentProgress())

    def among(self, words: list[str], ahead: int = 0) -> np.ndarray:
        """Where the token ``ahead`` places later in the context is one of some words."""
        ids = self.text.ids_CT
        shifted = np.full(ids.shape, -1)
        length = ids.shape[1]
        shifted[:, max(-ahead, 0) : length - max(ahead, 0)] = ids[:, max(ahead, 0) : length - max(-ahead, 0)]
        return np.isin(shifted, [self.vocabulary.id[word] for word in words])

    def _fires(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = self.text.ids_CT.shape
        place = np.broadcast_to(np.arange(shape[1]), shape)
        the, after_of = self.among([" the"]), self.among([" of"], -1)
        return {
            "the": the,
            "the, half of them": the & (rng.random(shape) < 0.5),
            "three words": self.among([" Paris", " tree", " open"]),
            "digits": self.among(list("0123456789")),
            "of the": the & after_of,
            "in of the": the & after_of & self.among([" in"], -2),
            "after of": after_of,
            "position 1": place == 1,
            "early": place < 8,
            "document start": self.text.position_CT == 0,
            "line start": self.among(["\n"], -1),
            "ing": self.among([word for word in WORDS if word.endswith("ing")]),
            "ing or ed": self.among([word for word in WORDS if word.endswith(("ing", "ed"))]),
            "names": self.among(NAMES),
            "capitals": self.among([" USA", " NATO", " EU"]),
            "punctuation": self.among([".", ",", " (", ")", "()"]),
            "newline": self.among(["\n"]),
            "cyrillic": self.among([" война", " мир", " слово"]),
            "topic window": self._near(TOPIC),
            "topic documents": self.text.document_CT % 8 == 0,
            "pairs again": self._pairs_again(),
            "before a city": self.among([" Rome", " Berlin"], 1),
            "random": rng.random(shape) < 0.01,
            "half of all": rng.random(shape) < 0.5,
            "few": the & (rng.random(shape) < 0.002),
            "never": np.zeros(shape, bool),
        }

    def _near(self, words: list[str]) -> np.ndarray:
        return np.logical_or.reduce([self.among(words, -back) for back in range(32)])

    def _pairs_again(self) -> np.ndarray:
        found = np.zeros(self.text.ids_CT.shape, bool)
        for row, ids in enumerate(self.text.ids_CT.tolist()):
            seen: set[tuple[int, int]] = set()
            for place in range(1, len(ids)):
                pair = (ids[place - 1], ids[place])
                found[row, place] = 0 not in pair and pair in seen
                seen.add(pair)
        return found
