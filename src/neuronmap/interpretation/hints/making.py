"""Hints: for each feature a rule that predicts where it fires, its label, and how well it predicts on documents it was not made from.

Shapes: F features, N promoted tokens of a feature, n sampled firings.

The documents are split in two by a hash of their id. The rule is made on one half and scored on the other; it never sees the other half's
firings. A label stands only if the rule does well enough on both (``LEAST_F1``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from neuronmap.errors import InputError
from neuronmap.interpretation.hints.candidates import best, find_rules
from neuronmap.interpretation.hints.evidence import Evidence, Halves
from neuronmap.interpretation.hints.matching import match
from neuronmap.interpretation.hints.reading import read_text
from neuronmap.interpretation.hints.rules import Rule, promotes, quoted
from neuronmap.interpretation.hints.scoring import Scores, effective_number, score_rates
from neuronmap.interpretation.hints.topics import TOPIC_BELOW, find_topics, window_shares
from neuronmap.interpretation.hints.traits import TokenTexts, TokenTraits
from neuronmap.progress import Progress, default

if TYPE_CHECKING:
    import pyarrow as pa

    from neuronmap.corpora import TokenSet
    from neuronmap.features.collect.state import FeatureState

__all__ = ["LEAST_F1", "LEAST_FIRINGS", "make_hints"]

LEAST_F1 = 0.2
"""A rule that does not reach this F1 on the fit half, or surely not on the score half, gives no class and no label."""
LEAST_FIRINGS = 10
"""With fewer held-out firings the note says that they are too few."""
LEAST_FIT = 3
"""With fewer firings in the fit half no rule is made."""
PROMOTED_LABEL, PROMOTED_RULE = 3, 10
"""Promoted tokens in the label, and those that rules of the output side may use."""
NEXT_SHARE = 0.5
"""A next token that follows so often is told in the note."""
BLOCK = 4096

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Scored:
    """Scores of a block with what they rest on."""

    scores: Scores
    positives_F: Ints
    predicted_F: Ints


def make_hints(
    state: FeatureState,
    tokens: TokenSet,
    vocabulary: TokenTexts,
    *,
    promoted: tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]] | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """A hint for every feature.

    Args:
        state: what the pass kept; its firing sample, coded sample and token counts are used.
        tokens: the token set that was analysed.
        vocabulary: what each token stands for.
        promoted: tokens with the largest direct logits [F, N] and those logits, for the output side; None without a model.
        progress: where progress goes.

    Returns:
        A table of schema "hints" (:mod:`neuronmap.features.storage.schema`), one row a feature. Figures that are not defined are null.

    Raises:
        MismatchError: the state is not of these tokens, or the tokens are not of this vocabulary.
        InputError: ``promoted`` is not of these features.
    """
    import pyarrow as pa

    from neuronmap.features.storage.schema import arrow_schema

    features = int(state.facts["features"])
    promoted_FN = None if promoted is None else np.asarray(promoted[0])
    if promoted_FN is not None and (promoted_FN.ndim != 2 or len(promoted_FN) != features):
        raise InputError(f"promoted holds token ids of shape {promoted_FN.shape}; there are {features:,} features.")
    traits = TokenTraits(vocabulary)
    reading = read_text(state, tokens, traits)
    halves = Halves(state, reading, traits.size)
    share_V = window_shares(halves.block(0, 0)[0], traits)
    parts: list[dict[str, Any]] = []
    with (progress or default()).task("Hints", features, "features") as task:
        for start in range(0, features, BLOCK):
            stop = min(start + BLOCK, features)
            mine_FN = None if promoted_FN is None else promoted_FN[start:stop]
            fit, score = halves.block(start, stop)
            fit_f1_F, rules = _choose(fit, traits, mine_FN, share_V)
            texts = _Texts(vocabulary, reading.split, fit, score, mine_FN)
            parts.append(texts.columns(start, rules, fit_f1_F, _score(rules, score, traits)))
            task.advance(stop - start)
    schema = arrow_schema("hints")
    columns = {name: _joined([part[name] for part in parts], schema.field(name).type) for name in schema.names}
    return pa.table(columns, schema=schema)


def _joined(parts: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(parts[0], list):
        return pa.array([item for part in parts for item in part], kind)
    values = np.concatenate(parts)
    undefined = np.isnan(values) if values.dtype.kind == "f" else None
    return pa.array(values, kind, mask=undefined)


def _choose(
    fit: Evidence,
    traits: TokenTraits,
    promoted_FN: npt.NDArray[np.integer] | None,
    share_V: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], list[Rule | None]]:
    """The rule of each feature and its F1 on the fit half."""
    found = find_rules(fit, traits, None if promoted_FN is None else promoted_FN[:, :PROMOTED_RULE])
    f1_F, _ = best(found)
    wanted_F = (f1_F < TOPIC_BELOW) & (fit.count_F >= LEAST_FIT)
    found.insert(-1 if promoted_FN is not None else len(found), find_topics(fit, traits, wanted_F, share_V))
    f1_F, rules = best(found)
    enough_F = fit.count_F >= LEAST_FIT
    return f1_F, [rule if enough else None for rule, enough in zip(rules, enough_F, strict=True)]


def _score(rules: list[Rule | None], score: Evidence, traits: TokenTraits) -> _Scored:
    """Scores of each feature's rule on the half it was not made from."""
    matches = match(rules, score, traits)
    features = score.features
    found_F = np.bincount(score.feature_n[matches.found_n], minlength=features).astype(np.float64)
    positives_F = score.count_F.astype(np.float64)
    code, inverse = np.unique(
        score.feature_n * score.reading.units + score.reading.unit_M[score.place_n], return_inverse=True
    )
    rows = np.bincount(inverse, minlength=len(code)).astype(np.float64)
    hits = np.bincount(inverse[matches.found_n], minlength=len(code)).astype(np.float64)
    owner = code // score.reading.units

    def over_units(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(owner, values, minlength=features).astype(np.float64)

    effective_F = effective_number(
        found_F, positives_F, over_units(hits**2), over_units(hits * rows), over_units(rows**2), over_units(np.ones(len(code)))
    )  # fmt: skip
    negatives_F, false_F, predicted_F = _false_calls(matches, score)
    scores = score_rates(
        found_F / np.maximum(positives_F, 1),
        effective_F,
        false_F / np.maximum(score.silent_F, 1),
        negatives_F,
        score.firings_F.astype(np.float64),
        score.rest_F.astype(np.float64),
    )
    return _Scored(scores, score.count_F, predicted_F)


def _false_calls(matches: Any, score: Evidence) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Ints]:
    """Effective number of silent rows, silent rows called firing, and rows called firing, of each feature."""
    units, unit_N = np.unique(score.reading.unit_M[score.place_N], return_inverse=True)
    rows = len(unit_N)
    in_unit_NU = scipy.sparse.csr_matrix(
        (np.ones(rows), unit_N.reshape(-1), np.arange(rows + 1)), shape=(rows, max(len(units), 1))
    )
    rows_U = np.asarray(in_unit_NU.sum(0)).reshape(-1)
    effective_F, false_F = np.zeros(score.features), np.zeros(score.features)
    predicted_F = np.zeros(score.features, np.int64)
    for start, stop, called in matches.called():
        called.data[:] = 1
        fires = score.fires_FN[start:stop].astype(np.float64)
        fired_FU = (fires @ in_unit_NU).tocsr()
        false_FU = (called @ in_unit_NU - called.multiply(fires) @ in_unit_NU).tocsr()

        def total(matrix: Any) -> npt.NDArray[np.float64]:
            return np.asarray(matrix.sum(1), np.float64).reshape(-1)

        false_F[start:stop] = total(false_FU)
        predicted_F[start:stop] = np.diff(called.indptr)
        # silent rows of a unit = its rows - those with firing
        silent_squared = (rows_U**2).sum() - 2 * (fired_FU @ rows_U) + total(fired_FU.multiply(fired_FU))
        effective_F[start:stop] = effective_number(
            false_F[start:stop],
            score.silent_F[start:stop].astype(np.float64),
            total(false_FU.multiply(false_FU)),
            false_FU @ rows_U - total(false_FU.multiply(fired_FU)),
            silent_squared,
            np.full(stop - start, float(len(units))),
        )
    return effective_F, false_F, predicted_F


@dataclass(frozen=True)
class _Texts:
    """Words of a block's hints."""

    vocabulary: TokenTexts
    split: str
    fit: Evidence
    score: Evidence
    promoted_FN: npt.NDArray[np.integer] | None

    def columns(
        self, start: int, rules: list[Rule | None], fit_f1_F: npt.NDArray[np.float64], scored: _Scored
    ) -> dict[str, Any]:
        """Columns of the table for features from ``start`` on."""
        scores = {field.name: getattr(scored.scores, field.name) for field in fields(Scores)}
        without = np.array([rule is None for rule in rules], bool)
        columns: dict[str, Any] = {name: np.where(without, np.nan, values) for name, values in scores.items()}
        columns |= {
            "feature": np.arange(start, start + len(rules), dtype=np.int32),
            "positives": scored.positives_F.astype(np.int32),
            "predicted": scored.predicted_F.astype(np.int32),
            "rule": ["" if rule is None else rule.words(self.vocabulary) for rule in rules],
            "rule_json": ["" if rule is None else rule.to_json() for rule in rules],
            "output_label": [self._promotes(feature) for feature in range(len(rules))],
        }
        texts = [
            self._class(f, rule, float(fit_f1_F[f]), float(scores["f1"][f]), float(scores["f1_high"][f]))
            for f, rule in enumerate(rules)
        ]
        follows = self._next_tokens()
        columns["class"] = [firing_class for firing_class, _, _ in texts]
        columns["label"] = [label for _, label, _ in texts]
        columns["note"] = ["; ".join([*notes, *follows.get(f, ())]) for f, (_, _, notes) in enumerate(texts)]
        return columns

    def _promotes(self, feature: int) -> str:
        if self.promoted_FN is None:
            return ""
        return promotes(self.promoted_FN[feature, :PROMOTED_LABEL].tolist(), self.vocabulary)

    def _class(self, f: int, rule: Rule | None, fit_f1: float, f1: float, f1_high: float) -> tuple[str, str, list[str]]:
        """Class, label and notes of one feature."""
        held_out, firings = int(self.score.count_F[f]), int(self.fit.firings_F[f])
        if firings == 0:
            return "none", "", ["never fired"]
        notes = []
        if self.split != "documents":
            notes.append(f"too few documents to split: fit and score halves are {self.split}")
        if held_out < LEAST_FIRINGS:
            notes.append(f"too few firings ({held_out} held out, {firings} in all)")
        if rule is None:
            return "none", "", [*notes, "no rule was found"] if self.fit.count_F[f] >= LEAST_FIT else notes
        if rule.kind != "always" and fit_f1 < LEAST_F1:
            return (
                "none",
                "",
                [*notes, f"no rule reaches F1 {LEAST_F1} on the fit half; the best is given with its scores"],
            )
        if held_out >= LEAST_FIRINGS and rule.kind != "always" and f1_high < LEAST_F1:
            return (
                "none",
                "",
                [*notes, f"the rule does not hold on held-out documents (F1 {fit_f1:.2f}, then {f1:.2f})"],
            )
        label = rule.label(self.vocabulary)
        if rule.kind == "always":
            label = f"fires on {firings / (firings + int(self.fit.rest_F[f])):.0%} of tokens"
        return rule.firing_class, label, notes

    def _next_tokens(self) -> dict[int, list[str]]:
        """Notes on a token that follows at least half of the firings."""
        token = self.fit.reading.token(self.fit.place_n, 1)
        known = token >= 0
        size = self.vocabulary.size
        pair, count = np.unique(self.fit.feature_n[known] * size + token[known], return_counts=True)
        total_F = np.bincount(self.fit.feature_n[known], minlength=self.fit.features)
        feature = pair // size
        often = (count >= NEXT_SHARE * total_F[feature]) & (total_F[feature] >= LEAST_FIRINGS)
        notes: dict[int, list[str]] = {}
        for f, following, share in zip(
            feature[often], pair[often] % size, (count / total_F[feature])[often], strict=True
        ):
            notes.setdefault(int(f), []).append(f"followed by {quoted(int(following), self.vocabulary)} in {share:.0%}")
        return notes
