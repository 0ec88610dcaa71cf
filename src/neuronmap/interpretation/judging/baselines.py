"""What a score is worth beside: another feature's label under the same protocol, and the rule of the hints.

- ``shuffled``: the label of another feature of the run, put to the same test on the same examples. A score that is no better says nothing.
- ``rule``: the hint's label, put to the same test as if somebody had written it.
- ``prediction``: what the hint's rule itself predicts on the same examples, without any judge: a text is called firing if the rule holds
  somewhere in it. It costs nothing. The rule was made on the half of the text that labels are made from, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuronmap.errors import InputError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.explaining.example_sets import ScoreSet
from neuronmap.interpretation.hints.rules import Rule
from neuronmap.interpretation.hints.traits import TokenTraits
from neuronmap.interpretation.judging.figures import Figures, judged_figures
from neuronmap.interpretation.labels.acts import Judgement, Label

__all__ = ["BASELINES", "RulePredictions", "said_briefly", "shuffled"]

BASELINES = ("shuffled", "rule", "prediction")


class RulePredictions:
    """What the rules of an analysis' hints say of examples.

    Args:
        store: the analysis.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.there = "hints" in store.tables.names
        self._traits: TokenTraits | None = None

    def label(self, feature: int) -> str:
        """The hint's label; empty if there is none."""
        return self.store.feature(feature).label if self.there else ""

    def judged(self, examples: ScoreSet) -> Figures | None:
        """Balanced accuracy of the rule's own prediction; None where the feature has no rule."""
        hint = self.store.feature(examples.feature).hint if self.there else None
        if hint is None or not hint.get("rule_json"):
            return None
        try:
            rule = Rule.from_json(hint["rule_json"])
        except InputError:
            return None  # of a newer version
        if self._traits is None and rule.kind in ("trait", "endings"):
            self._traits = TokenTraits(self.store.vocabulary)
        judgements = []
        for one in (*examples.positives, *examples.negatives):
            at = one.example
            ids_1T = self.store.context(at.sequence)[None]
            holds_T = rule.predict(ids_1T, self._traits)[0]
            said = bool(holds_T[at.start : at.start + len(at.token_ids)].any())
            sequence, position = one.place
            judgements.append(
                Judgement(sequence=sequence, position=position, group=one.group, truth=one.active, said=said)
            )
        return judged_figures(judgements)


def shuffled(labels: Sequence[Label], seed: int) -> dict[str, Label]:
    """For each label (by id) the label of another feature, of the same side; none where all are of one feature.

    Labels with the same text are not taken for each other.
    """
    found: dict[str, Label] = {}
    for side in ("input", "output"):
        here = [label for label in labels if label.side == side]
        order = [int(place) for place in np.random.default_rng([seed, len(here)]).permutation(len(here))]
        for turn, place in enumerate(order):
            label = here[place]
            others = (here[order[(turn + step) % len(order)]] for step in range(1, len(order)))
            other = next((one for one in others if one.feature != label.feature and one.text != label.text), None)
            if other is not None:
                found[label.id] = other
    return found


def said_briefly(judgements: Sequence[Judgement]) -> Any:
    """What was said of each case, in the order of the score's own judgements: ``"110-0"`` for yes and no, else numbers."""
    if all(one.said is None or isinstance(one.said, bool) for one in judgements):
        return "".join("-" if one.said is None else "1" if one.said else "0" for one in judgements)
    return [None if one.said is None else round(float(one.said), 3) for one in judgements]
