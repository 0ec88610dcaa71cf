"""An analysis of 150 short documents in which features fire by known rules; all activations are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made_stores import table, write_store

from neuronmap.features.collect.layout import EDGES, bin_of
from neuronmap.features.config import AnalysisConfig
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.hints.rules import Rule

WINTER = (" snow", " ice", " frost", " cold", " winter")
SUMMER = (" sun", " heat", " beach", " summer")
NUMBERS = (" one", " two", " seven", " nine")
FILL = (" the", " of", " and", " was", " house", " dog", " ran", " old", " tree", ",", ".", " went", " she", " over")
WORDS = ("<|end|>", *WINTER, *SUMMER, *NUMBERS, *FILL)
ID = {word: number for number, word in enumerate(WORDS)}
WINTER_F, SUMMER_F, NUMBER_F, OF_THE_F, FEW_F, NEVER_F, DENSE_F = range(7)
FEATURES, CONTEXTS, LENGTH, UNIT = 7, 240, 64, 4.0
CONFIG = AnalysisConfig(before=11, after=4)
SAE = "sha256:" + "5" * 64
WEATHER_RULE = Rule("tokens", tokens=tuple(ID[word] for word in WINTER))


class Planted:
    """The store, and what it was made from.

    Attributes:
        store: the analysis.
        value_CTF: float32, every activation.
        document_CT: number of the document of each place, -1 for separators.
        read: contexts that were read again, as (feature, context).
    """

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        ids, document = [], []
        number = 0
        while len(ids) < CONTEXTS * LENGTH:
            length = int(rng.integers(40, 160))
            topic = (WINTER, SUMMER, NUMBERS)[number % 3]
            words = [rng.choice(topic) if rng.random() < 0.1 else rng.choice(FILL) for _ in range(length)]
            ids += [*(ID[str(word)] for word in words), 0]
            document += [number] * length + [-1]
            number += 1
        shape = (CONTEXTS, LENGTH)
        self.ids_CT = np.array(ids[: CONTEXTS * LENGTH], np.uint16).reshape(shape)
        self.document_CT = np.array(document[: CONTEXTS * LENGTH]).reshape(shape)
        self.value_CTF = self._values(rng)
        self.read_places: list[tuple[int, int]] = []
        kept = self.ids_CT != 0
        write_store(folder, self._tables(rng), self.ids_CT, kept, unit=UNIT, edges=(EDGES * UNIT).tolist(),
                    config=CONFIG.model_dump(), facts={"sae": {"id": "planted", "weights_digest": SAE}})  # fmt: skip
        self.store = FeatureStore.open(folder)

    def read(self, wanted: Sequence[tuple[int, int]]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """As the language model would."""
        self.read_places += wanted
        return [self.value_CTF[sequence, :, feature] for feature, sequence in wanted]

    def _values(self, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float32]]:
        flat = self.ids_CT
        before = np.zeros_like(flat)
        before[:, 1:] = flat[:, :-1]
        fires = np.zeros((*flat.shape, FEATURES), bool)
        fires[..., WINTER_F] = np.isin(flat, [ID[word] for word in WINTER])
        fires[..., SUMMER_F] = np.isin(flat, [ID[word] for word in SUMMER])
        fires[..., NUMBER_F] = np.isin(flat, [ID[word] for word in NUMBERS])
        fires[..., OF_THE_F] = (flat == ID[" the"]) & (before == ID[" of"])
        fires[3, 5, FEW_F] = fires[70, 9, FEW_F] = True
        fires[..., DENSE_F] = rng.random(flat.shape) < 0.5
        fires &= (flat != 0)[..., None]
        strength = rng.lognormal(0.0, 0.8, fires.shape) + 0.3
        return np.where(fires, strength, 0.0).astype(np.float32)

    def _tables(self, rng: np.random.Generator) -> dict[str, Any]:
        starts = [(0, 0)] + [
            divmod(place + 1, LENGTH)
            for place in np.flatnonzero(self.document_CT.ravel() == -1)
            if place + 1 < CONTEXTS * LENGTH
        ]
        near = {WINTER_F: [SUMMER_F, NUMBER_F], SUMMER_F: [WINTER_F, NUMBER_F]}
        logits = [{"token": ID[word], "value": 3.0 - rank} for rank, word in enumerate(WINTER)]
        rows, details, hints, examples = [], [], [], []
        for feature in range(FEATURES):
            value_CT = self.value_CTF[:, :, feature]
            fired = value_CT[value_CT > 0]
            firings = len(fired)
            rows.append({
                "feature": feature, "firings": firings, "density": firings / value_CT.size, "max": float(fired.max()) if firings else None,
                "status": "never" if not firings else "rare" if firings < 10 else "dense" if feature == DENSE_F else "alive",
            })  # fmt: skip
            details.append({
                "feature": feature,
                "histogram": np.bincount(bin_of((fired / UNIT).astype(np.float32)), minlength=64).tolist(),
                "neighbours": [{"feature": other, "cosine": 0.5} for other in near.get(feature, [])],
                "coactive": [], "promoted": logits if feature == WINTER_F else [], "suppressed": logits[:1],
            })  # fmt: skip
            ruled = feature == WINTER_F
            hints.append({
                "feature": feature, "class": "tokens" if ruled else "none", "label": "words of winter" if ruled else "",
                "output_label": "", "rule_json": WEATHER_RULE.to_json() if ruled else "",
                "rule": "the token is one of winter" if ruled else "", "f1": 1.0 if ruled else None,
            })  # fmt: skip
            examples += self._examples(feature, value_CT, rng)
        vocabulary = [
            {"token": token, "bytes": word.encode(), "text": word, "special": token == 0, "count": 1}
            for token, word in enumerate(WORDS)
        ]
        documents = [
            {"document": number, "id": f"text.jsonl:{number}", "sequence": sequence, "position": position}
            for number, (sequence, position) in enumerate(starts)
        ]
        return {"features": table("features", rows), "details": table("details", details), "hints": table("hints", hints),
                "examples": table("examples", examples), "vocabulary": table("vocabulary", vocabulary),
                "documents": table("documents", documents)}  # fmt: skip

    def _examples(self, feature: int, value_CT: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
        """24 strongest contexts, 10 drawn from each fifth, 10 silent windows, 10 silent places of its tokens."""
        found = []
        strongest = [int(c) for c in np.argsort(-value_CT.max(1), kind="stable") if value_CT[c].any()][:24]
        found += [
            self._example(feature, "top", 0, rank, (c, int(value_CT[c].argmax()))) for rank, c in enumerate(strongest)
        ]
        places = np.argwhere(value_CT > 0)
        order = np.argsort(value_CT[value_CT > 0], kind="stable")
        for group, part in enumerate(np.array_split(order, 5)):
            drawn = rng.permutation(part)[:10]
            found += [self._example(feature, "quantile", group, rank, tuple(places[p])) for rank, p in enumerate(drawn)]
        silent = [tuple(p) for p in rng.permutation(np.argwhere((value_CT == 0) & (self.ids_CT != 0)))]
        quiet = [p for p in silent if not self._window(feature, p).any()]
        tokens = np.unique(self.ids_CT[value_CT > 0])
        hard = [p for p in silent if self.ids_CT[p] in tokens]
        for kind, chosen in (("random", quiet), ("hard", hard)):
            found += [self._example(feature, kind, 0, rank, p) for rank, p in enumerate(chosen[:12])]
        return found

    def _window(self, feature: int, place: tuple[int, int]) -> np.ndarray:
        sequence, position = place
        return self.value_CTF[sequence, max(0, position - CONFIG.before) : position + CONFIG.after + 1, feature]

    def _example(self, feature: int, kind: str, group: int, rank: int, place: tuple[int, int]) -> dict[str, Any]:
        sequence, position = int(place[0]), int(place[1])
        window = self._window(feature, place)
        offsets = np.flatnonzero(window) - min(position, CONFIG.before)
        return {
            "feature": feature, "kind": kind, "group": group, "rank": rank, "sequence": sequence, "position": position,
            "activation": float(self.value_CTF[sequence, position, feature]), "offsets": offsets.tolist(),
            "activations": window[window > 0].astype(np.float16).astype(np.float32).tolist(),
        }  # fmt: skip
