"""Intruder: is there anything in common at all? Of five texts one is silent; a judge who never sees the label has to find it.

It says how interpretable the feature's firing is, not how good a label is; chance is one in five.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuronmap.interpretation.endpoint import Answer, Question
from neuronmap.interpretation.explaining.example_sets import ScoreSet
from neuronmap.interpretation.explaining.rendering import marked, numbered
from neuronmap.interpretation.judging.choices import wrong_marks
from neuronmap.interpretation.judging.figures import Figures, share_figures
from neuronmap.interpretation.judging.scorers import Batch, Case, Claim, Said, Scorer, Tools
from neuronmap.interpretation.labels.acts import Judgement

__all__ = ["IntruderScorer"]

_TEXTS = 5
_SCHEMA = {
    "type": "object",
    "properties": {"intruder": {"type": "integer", "minimum": 1, "maximum": _TEXTS}},
    "required": ["intruder"],
    "additionalProperties": False,
}


class IntruderScorer(Scorer):
    """Four texts of one strength where it fires, and one where it is silent with marks anywhere."""

    name, about = "intruder", "a language model finds the text that does not belong; it does not see the label"
    headline, chance, of_label, usual_tokens = "share of intruders found", 1 / _TEXTS, False, 8.0

    def batches(self, claim: Claim, examples: ScoreSet, tools: Tools) -> list[Batch]:
        drawn = np.random.default_rng([tools.seed, examples.feature, 2])
        negatives = [examples.negatives[int(place)] for place in drawn.permutation(len(examples.negatives))]
        fifths: dict[str, list[int]] = {}
        for place, one in enumerate(examples.positives):
            fifths.setdefault(one.group, []).append(place)
        tasks = [(group, places[: _TEXTS - 1]) for group, places in fifths.items() if len(places) >= _TEXTS - 1]
        rest = [
            place
            for places in fifths.values()
            for place in (places[_TEXTS - 1 :] if len(places) >= _TEXTS - 1 else places)
        ]
        tasks += [("mixed", rest[start : start + _TEXTS - 1]) for start in range(0, len(rest) - _TEXTS + 2, _TEXTS - 1)]
        made = []
        for (group, places), intruder in zip(tasks, negatives, strict=False):
            firing = [examples.positives[place] for place in places]
            number = max(1, round(float(np.mean([sum(value > 0 for _, value in one.tokens) for one in firing]))))
            texts = [marked(one) for one in firing]
            at = int(drawn.integers(_TEXTS))
            texts.insert(at, marked(intruder, wrong_marks(intruder, number, drawn)))
            question = Question(self.template.messages(texts=numbered(texts)), 32, _SCHEMA)
            made.append(Batch(question, (Case(*intruder.place, group, float(at + 1)),)))
        return made

    def said(self, answer: Answer, batch: Batch) -> tuple[Sequence[Said], str, tuple[str, ...]]:
        if answer.value is None:
            return (), answer.problem, ()
        return [float(answer.value["intruder"])], "", answer.repairs

    def figures(self, judgements: Sequence[Judgement]) -> Figures:
        right = [one if one.said is None else one.updated(truth=True, said=one.said == one.truth) for one in judgements]
        return share_figures([one if one.said is not None else one.updated(truth=True) for one in right], self.chance)
