"""Records of the evaluation suites: what was measured, by which rule, and the same of the baselines. No torch here.

As in the core record, what cannot be established is ``null`` with a reason, never 0 or NaN.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.evaluation.metrics import CoreMetrics, Estimate, Spread

__all__ = [
    "BASELINES",
    "RULE",
    "SUITES",
    "AbsorptionOf",
    "AbsorptionSuite",
    "BaselineFacts",
    "CoreSuite",
    "LetterAbsorption",
    "MeanScore",
    "ProbeScore",
    "ProbedSet",
    "ProbingSuite",
    "Redundancy",
    "StabilitySuite",
    "StructureSuite",
    "SuiteName",
    "SuiteProtocol",
    "SuiteRecord",
    "SuiteResult",
    "SuiteRow",
    "stored_note",
]

RULE = 3
"""Version of the definitions; a record of another version is measured again, never compared. 3: the baselines' k is the L0 on the
measured rows."""

SuiteName = Literal["core", "probing", "absorption", "structure", "stability"]
SUITES: tuple[SuiteName, ...] = ("core", "probing", "absorption", "structure", "stability")
BASELINES = ("identity", "pca", "random", "neurons")


class BaselineFacts(FrozenConfig):
    """What a baseline is."""

    description: str
    """In a sentence."""
    d_sae: int
    """Width of its codes."""
    k: int | None
    """Entries it keeps for a row; null for all."""


class CoreSuite(FrozenConfig):
    """Core metrics of the SAE and of every baseline, on the same rows and contexts."""

    suite: Literal["core"] = "core"
    """Which suite it is."""
    sae: CoreMetrics
    """The SAE."""
    baselines: dict[str, CoreMetrics]
    """Each baseline, by name."""


class ProbeScore(FrozenConfig):
    """A logistic probe on a few latents, on test items whose clusters (lemmas) it never saw."""

    k: int | None
    """Latents it reads; null for all."""
    latents: tuple[int, ...]
    """Which ones, the best first; empty when it reads all."""
    strength: float
    """Inverse regularisation C that cross-validation on the training items chose."""
    auc: Estimate
    """Area under the ROC curve."""
    accuracy: Estimate
    """Share of the items that are classified right."""
    f1: Estimate
    """F1 of the positive class."""
    raw_auc: Estimate | None = None
    """With one latent: AUC of its activation itself, signed as on the training items."""


class ProbedSet(FrozenConfig):
    """One contrast: its items, and the probes on every dictionary."""

    name: str
    """Concept, or data set."""
    source: Literal["concepts", "sae-probes"]
    """Our generators, or the files of sae-probes."""
    items_digest: str
    """Digest of its items."""
    train: int
    """Training items; latents and C are chosen on them alone."""
    test: int
    """Test items."""
    test_clusters: int
    """Clusters (lemmas) among them, the units of the intervals."""
    scores: dict[str, tuple[ProbeScore, ...]]
    """By dictionary (``sae`` and the baselines), one for each k; ``dense`` reads the whole activation."""


class MeanScore(FrozenConfig):
    """Mean over the sets, with an interval from resampling sets."""

    k: int | None
    """Latents; null for all."""
    auc: Estimate
    """Mean AUC."""
    accuracy: Estimate
    """Mean accuracy."""
    f1: Estimate
    """Mean F1."""
    lead: Estimate | None = None
    """Mean AUC of the SAE at this k minus this one's (at null: at the SAE's largest k); resamples are paired. Null for the SAE itself."""


class ProbingSuite(FrozenConfig):
    """k-sparse probing (2502.16681): does a contrast lie in a few latents?"""

    suite: Literal["probing"] = "probing"
    """Which suite it is."""
    ks: tuple[int, ...]
    """Numbers of latents."""
    sets: tuple[ProbedSet, ...]
    """One record for each contrast."""
    means: dict[str, tuple[MeanScore, ...]]
    """Mean over the contrasts, by dictionary."""
    skipped: dict[str, str]
    """Concepts that were left out, with the reason."""


class LetterAbsorption(FrozenConfig):
    """One letter, one dictionary."""

    letter: str
    """a to z."""
    main_latents: tuple[int, ...]
    """Latents that stand for the letter: those of the k-sparse probe, k growing while its F1 rises by more than 0.03."""
    main_f1: float
    """Test F1 of those latents: where it is low nothing stands for the letter, and nothing can be absorbed from it."""
    probe_true_positives: int
    """Test words with the letter that the dense probe finds; what the shares are of."""
    absorption_fraction: float
    """Mean over those words of absorbed / (absorbed + main) of the probe's projection."""
    full_absorption: int
    """Words on which all main latents are silent and another one carries the letter."""


class AbsorptionOf(FrozenConfig):
    """Absorption in one dictionary: means over letters, intervals from resampling words within letters."""

    mean_absorption_fraction: Estimate
    """Mean of the letters' absorption fractions."""
    mean_full_absorption: Estimate
    """Mean of the letters' shares of full absorption."""
    mean_main_f1: float
    """Mean test F1 of the main latents; a low absorption counts only where this is high."""
    mean_main_latents: float
    """Mean number of main latents a letter."""
    letters: tuple[LetterAbsorption, ...]
    """Letters that the dense probe reaches and finds in the test words."""


class AbsorptionSuite(FrozenConfig):
    """Feature absorption by first letter (2409.14507)."""

    suite: Literal["absorption"] = "absorption"
    """Which suite it is."""
    possible: bool
    """Whether the model spells well enough for the question to make sense."""
    reason: str | None
    """Why not."""
    words: int
    """Words (single tokens) that were read."""
    letters_reached: int
    """Letters whose dense probe has a test F1 above 0.6; 20 are needed."""
    probe_f1: dict[str, float]
    """Test F1 of the dense probe, by letter."""
    template: str
    """What stands before the word; the word's own token is read."""
    dictionaries: dict[str, AbsorptionOf]
    """``sae`` and the baselines; empty when it is not possible."""


class Redundancy(FrozenConfig):
    """How close decoder rows come to one another."""

    max_cosine: Spread
    """Of each row: cosine with the nearest other row."""
    above_07: float
    """Share of the rows with one above 0.7."""
    above_09: float
    """Share of the rows with one above 0.9."""
    rows: int
    """Rows that were compared with all others."""


class StructureSuite(FrozenConfig):
    """What the weights alone show, and which features fire at all."""

    suite: Literal["structure"] = "structure"
    """Which suite it is."""
    meta_width: int
    """Latents of the meta-SAE: a quarter of the features."""
    meta_k: int
    """Active meta-latents a decoder row."""
    meta_steps: int
    """Steps it was trained."""
    meta_explained: dict[str, float | None]
    """Share of the variance of the (unit) decoder rows that it explains: of the SAE; of random directions; and of rows drawn
    with the same mean and covariance as the SAE's (``matched``)."""
    redundancy: dict[str, Redundancy]
    """Of the SAE and of as many random directions."""
    encoder_decoder_cosine: Spread | None
    """Cosine of each feature's encoder column and decoder row; null without an encoder matrix."""
    dead: int | None
    """Features that fired on none of the tokens; null without a language model."""
    dead_tokens: int
    """Those tokens."""
    dead_density_bound: float | None
    """What never firing on them proves (95 %): a density below 3 / tokens."""


class StabilitySuite(FrozenConfig):
    """How many features a second SAE finds again."""

    suite: Literal["stability"] = "stability"
    """Which suite it is."""
    against: str
    """Name of the second SAE."""
    against_digest: str
    """Digest of its weights."""
    matching: Literal["assignment", "mutual best"]
    """One-to-one: the best assignment, or pairs that are each other's best where there are too many features for that."""
    pairs: int
    """Pairs that were matched."""
    mean_cosine: float | None
    """Mean decoder cosine of the pairs."""
    share_above_07: float
    """Pairs above 0.7, as a share of the smaller SAE's features."""
    share_above_09: float
    """Pairs above 0.9, likewise."""
    alive_share_above_07: float | None
    """The same among features of this SAE that fire; null without a language model."""
    alive_share_above_09: float | None
    """Likewise above 0.9."""
    chance_mean_cosine: float | None
    """The same with random rows of the mean and covariance of the second decoder's."""
    chance_share_above_07: float
    """Pairs above 0.7 by chance, as that share."""
    chance_share_above_09: float
    """Pairs above 0.9 by chance."""
    chance_alive_share_above_07: float | None
    """Pairs above 0.7 by chance, among features of this SAE that fire."""
    best_forth: Redundancy
    """Each feature of this SAE and its nearest of the second; several may share one."""
    best_back: Redundancy
    """Each feature of the second SAE and its nearest of this one."""


AnySuite = Annotated[
    CoreSuite | ProbingSuite | AbsorptionSuite | StructureSuite | StabilitySuite, Field(discriminator="suite")
]


class SuiteProtocol(FrozenConfig):
    """What a suite was measured on."""

    architecture: str
    """The SAE's architecture."""
    d_in: int
    """Width of the activation."""
    d_sae: int
    """Number of features."""
    sae_digest: str
    """Digest of its tensors."""
    model: str | None
    """Language model; null for suites of weights alone."""
    hook: str | None
    """Hook point."""
    model_dtype: str | None = None
    """Precision the model ran in; null for suites of weights alone, and in records of before 2026-11-26."""
    mask: dict[str, Any] | None = None
    """Which positions were rows of the text (``MaskConfig``); likewise."""
    outlier_threshold: float | None = None
    """Norm above which a row of the text was dropped; likewise, and where none is."""
    tokens_digest: str | None
    """Digest of the scored text."""
    fitted_on: str | None
    """Which text baselines (PCA, means, scales) were fitted on; never what is scored."""
    fitted_rows: int
    """Rows of it."""
    l0: float | None
    """Active features of the SAE on those rows."""
    l0_measured: float | None = None
    """Active features of the SAE on the rows that the suite measures (scored text, items, words), which the baselines' k is matched to;
    null without baselines."""
    seed: int
    """Of every draw."""
    resamples: int
    """Of every interval."""
    versions: dict[str, str]
    """Of NeuronMap, torch, transformers and scikit-learn."""


class SuiteRecord(FrozenConfig):
    """One suite's result; a file of its own beside the SAE."""

    format: int = Field(default=1, ge=1, le=1)
    """Version of this record."""
    rule: int = RULE
    """Version of the definitions."""
    key: str
    """Digest of all inputs: equal inputs give the stored result again."""
    created: str
    """ISO 8601, UTC."""
    protocol: SuiteProtocol
    """How it was measured."""
    baselines: dict[str, BaselineFacts]
    """The baselines in it."""
    result: AnySuite
    """What was found."""


class SuiteRow(NamedTuple):
    """One line of the table: a figure of the SAE with the baselines beside it."""

    suite: str
    figure: str
    values: dict[str, Estimate | float | None]
    """``sae``, the baselines, ``dense``, ``chance``: whichever there are."""
    difference: bool = False
    """Whether the values are the SAE's figure minus that of each column, so that the SAE has none."""


class SuiteResult(FrozenConfig):
    """What :func:`neuronmap.evaluation.suites.evaluate_suites` gives."""

    suites: dict[str, SuiteRecord]
    """By suite, in the order they were asked for."""

    def rows(self) -> list[SuiteRow]:
        """The table: the main figures of every suite, with those of the baselines."""
        from neuronmap.evaluation.suites.table import suite_rows

        return [row for record in self.suites.values() for row in suite_rows(record)]

    def summary(self) -> dict[str, float | None]:
        """The SAE's figures by name (``probing_auc_k1``, ...), for a library to search and sort by."""
        from neuronmap.evaluation.suites.table import suite_summary

        return {name: value for record in self.suites.values() for name, value in suite_summary(record).items()}


def stored_note(record: SuiteRecord) -> str:
    """That a suite was measured before."""
    return f"{record.result.suite}: measured before on the same inputs ({record.created}); not measured again."
