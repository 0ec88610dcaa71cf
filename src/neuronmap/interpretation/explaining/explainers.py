"""Explainers: from what a feature shows to a question for a language model, and from its answer to a label.

| name | side | sees |
| --- | --- | --- |
| ``top`` | input | the 10 strongest contexts |
| ``quantiles`` | input | those and 2 from each fifth of the firings |
| ``contrast`` | input | the same, and 5 hard negatives |
| ``promoted`` | output | the tokens with the largest and smallest direct logits; no text |

A plug-in adds its own through the hook ``neuronmap_explainers``: objects of subclasses of :class:`Explainer`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from neuronmap import plugins
from neuronmap.errors import ConfigError
from neuronmap.features.storage.store import FeatureStore
from neuronmap.interpretation.endpoint import Answer, Question
from neuronmap.interpretation.explaining.example_sets import ExplainSet, Shown
from neuronmap.interpretation.explaining.rendering import marked, numbered, plain, strengths
from neuronmap.interpretation.explaining.templates import PromptTemplate, read_template
from neuronmap.interpretation.explaining.told import MOST_EXPLANATION, Told, label_in, one_line
from neuronmap.interpretation.hints.rules import quoted

__all__ = ["SCHEMA", "Explainer", "Told", "explainer_of", "explainers"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "explanation": {"type": "string"}},
    "required": ["label", "explanation"],
    "additionalProperties": False,
}
"""Of every explainer's answer."""
_LINE = re.compile(r"^\W*(label|explanation)\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_PROMOTED, _SUPPRESSED = 15, 8


class Explainer:
    """One way to ask for a label. Subclasses set the class attributes and write :meth:`question`."""

    name: ClassVar[str]
    """What ``--method`` calls it."""
    about: ClassVar[str]
    """One line for people."""
    side: ClassVar[Literal["input", "output"]] = "input"
    """What its labels are of."""
    version: ClassVar[int] = 1
    """Of the prompt."""
    max_tokens: ClassVar[int] = 200
    """Most tokens of an answer."""
    usual_tokens: ClassVar[int] = 60
    """Of an answer, for estimates."""

    @property
    def template(self) -> PromptTemplate:
        """The prompt."""
        return read_template("neuronmap.interpretation.explaining.prompts", self.name, self.version)

    @property
    def method(self) -> str:
        """As labels say it: name and version of the prompt."""
        return f"{self.name}@{self.version}"

    def question(self, examples: ExplainSet, store: FeatureStore) -> Question | str:
        """What to ask of a feature; or, where it cannot be asked, why."""
        raise NotImplementedError

    def shown(self, examples: ExplainSet) -> Sequence[Shown]:
        """The examples that the question shows."""
        return ()

    def asked(self, **values: str) -> Question:
        """The prompt with values in their places."""
        return Question(self.template.messages(**values), self.max_tokens, SCHEMA)

    def read(self, answer: Answer) -> Told:
        """The label in an answer, of any length. Lines ``label: ...`` and ``explanation: ...`` do where no JSON could be asked for."""
        value, repairs = answer.value, answer.repairs
        if value is None and answer.form == "text" and not answer.problem.startswith("truncated"):
            lines = {name.lower(): text for name, text in reversed(_LINE.findall(answer.text))}
            if "label" in lines:
                value, repairs = {"explanation": "", **lines}, ("lines instead of JSON",)
        if value is None:
            return Told("", "", problem=answer.problem or "malformed: it holds no label")
        label = label_in(value)
        if not label:
            return Told("", "", problem="empty: the label has no text")
        return Told(label, one_line(value["explanation"])[:MOST_EXPLANATION], repairs)


class _FromTexts(Explainer):
    """What those have in common that see texts."""

    def shown(self, examples: ExplainSet) -> Sequence[Shown]:
        return (*examples.top, *examples.quantiles)

    def question(self, examples: ExplainSet, store: FeatureStore) -> Question | str:
        if examples.problem:
            return examples.problem
        return self.asked(texts=_texts(self.shown(examples)))


class TopExplainer(_FromTexts):
    """From the strongest contexts."""

    name, about = "top", "from the strongest contexts"

    def shown(self, examples: ExplainSet) -> Sequence[Shown]:
        return examples.top or examples.quantiles


class QuantilesExplainer(_FromTexts):
    """From the strongest contexts and some of each strength."""

    name, about = "quantiles", "from the strongest contexts and some of each strength"


class ContrastExplainer(_FromTexts):
    """From contexts of each strength, and places where it is silent."""

    name, about = "contrast", "the same, and places that look alike where it is silent"

    def question(self, examples: ExplainSet, store: FeatureStore) -> Question | str:
        if examples.problem:
            return examples.problem
        if not examples.negatives:
            return "no place where it is silent is known in the half that labels are made from"
        silent = numbered([plain(one) for one in examples.negatives])
        return self.asked(texts=_texts(self.shown(examples)), silent=silent)


class PromotedExplainer(Explainer):
    """From the tokens that it promotes."""

    name, about = "promoted", "the output side: from the tokens that it makes likelier"
    side = "output"

    def question(self, examples: ExplainSet, store: FeatureStore) -> Question | str:
        details = store.feature(examples.feature).details
        likelier, unlikelier = details["promoted"] or [], details["suppressed"] or []
        if not likelier:
            return "the analysis has no direct logits"
        return self.asked(
            likelier=_listed(likelier[:_PROMOTED], store), unlikelier=_listed(unlikelier[:_SUPPRESSED], store)
        )


def explainers() -> dict[str, Explainer]:
    """All explainers by name, ours and those of plug-ins.

    Raises:
        PluginError: a plug-in gives something else, or a name that is taken.
    """
    ours = (QuantilesExplainer(), TopExplainer(), ContrastExplainer(), PromotedExplainer())
    return plugins.named("neuronmap_explainers", Explainer, ours)


def explainer_of(name: str) -> Explainer:
    """The explainer of a name.

    Raises:
        ConfigError: there is none; lists what there is.
    """
    known = explainers()
    if name not in known:
        raise ConfigError(f"There is no way to explain called {name!r}.", hint=f"There are: {', '.join(known)}.")
    return known[name]


def _texts(shown: Sequence[Shown]) -> str:
    largest = max(one.peak for one in shown)
    return numbered([f"{marked(one)}\n   {strengths(one, largest)}" for one in shown])


def _listed(entries: Sequence[dict[str, Any]], store: FeatureStore) -> str:
    return ", ".join(quoted(entry["token"], store.vocabulary) for entry in entries) or "none"
