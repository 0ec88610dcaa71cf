"""The record of one run of the tracker: what API, command line, pages and plots share.

A value of null means "not established" or "not measured", and is shown so; it is never 0 or -1. Lists over layers have one entry for
each of the record's ``layers``, in that order; matrices are layers by layers. Layer 0 is the embedding (what block 0 is given), layer l the
output of block l - 1, and depth is l / L. This module does not import torch: the library and its pages read stored records with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from neuronmap.config import FrozenConfig

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = [
    "RULES_VERSION",
    "Baselines",
    "CausalProfile",
    "Complexity",
    "ConceptResult",
    "ControlTask",
    "CrossScore",
    "Curve",
    "FeatureFlow",
    "FlowEdge",
    "FlowNode",
    "Interval",
    "LayerSimilarity",
    "LeftOut",
    "Matrix",
    "PromptConcept",
    "Series",
    "Summary",
    "TrackingReport",
    "Trajectory",
    "Verdict",
]

RULES_VERSION = 1
"""Raised when a rule of the summary changes; a stored report's summaries can be worked out again from its curves."""

Series = list[float | None]
"""One value a layer."""
Matrix = list[list[float | None]]
"""Layers by layers."""
Verdict = Literal["abstract", "condition-bound", "inverted", "not-detected", "within-only"]


class Interval(FrozenConfig):
    """A figure with its 95 % interval."""

    value: float | None
    """The figure; null when it is not established."""
    low: float | None = None
    """Lower end."""
    high: float | None = None
    """Upper end."""
    reason: str | None = None
    """Why the figure is null."""


class Curve(FrozenConfig):
    """A score at every layer. Intervals come from resampling whole clusters of the test split, the same draws at all layers; the probes are
    fixed."""

    score: Series
    """AUC (macro one-against-the-rest with more than two classes)."""
    low: Series
    """Lower end of the pointwise 95 % interval."""
    high: Series
    """Upper end."""
    band_low: Series
    """Lower end of the band that holds at all layers at once (max |t|)."""
    band_high: Series
    """Upper end."""


class LeftOut(FrozenConfig):
    """Scores on one level of the crossed nuisance, by probes that were trained on the others."""

    level: str
    """The level that was left out."""
    score: Series
    """AUC on it, at each layer."""
    within: Series
    """AUC on it of probes that were trained on all levels."""
    alone: Series
    """AUC on it of probes that were trained on it and nowhere else."""


class CrossScore(FrozenConfig):
    """Cross-condition generalisation (CCGP): the headline."""

    mean: Curve
    """Mean over the levels."""
    worst: Series
    """AUC on the worst level."""
    levels: list[LeftOut]
    """Each level."""


class ControlTask(FrozenConfig):
    """Probes that must tell random labels of word types apart (Hewitt and Liang 2019)."""

    shared: Series
    """AUC where training and test share the words: how much a probe can memorise."""
    real: Series
    """AUC of the concept on the same split."""
    selectivity: Series
    """real - shared."""
    heldout: Series
    """AUC on words that were not in training; chance by construction."""
    labelings: int
    """Random labelings."""


class Baselines(FrozenConfig):
    """What the concept can be read off without the model's layers."""

    mean_of_embeddings: float | None
    """AUC of the mean embedding of all tokens up to the one that is read."""
    position_length: float | None
    """AUC of the token's position and the number of characters before it."""
    random_within: Series | None = None
    """Within score in the same architecture with random weights."""
    random_cross: Series | None = None
    """Cross-condition score there."""


class Summary(FrozenConfig):
    """A concept's curve in a few words. On the cross-condition score where there is one, else on the within score."""

    score: Literal["cross", "within"]
    """Which curve the summary is of."""
    verdict: Verdict
    """abstract: found across conditions; condition-bound: found within, not across; inverted: below chance across;
    within-only: found, and there is nothing to cross; not-detected."""
    statement: str
    """The verdict with the nuisances it is relative to, in a sentence."""
    present_at_embedding: bool
    """The embedding has it already: no emergence is reported."""
    gain: float | None
    """Best score minus the embedding's; below 0.05 there is no effect of layers."""
    emergence: int | None
    """First layer that is above the null and a quarter of the way up, and the next too."""
    emergence_interval: list[int] | None = None
    """5th and 95th percentile over the resamples where it emerges."""
    half_depth: Interval
    """Layer (interpolated) where the curve is half way up: the headline."""
    depth90: Interval
    """Layer where it is nine tenths of the way up."""
    half_depth_relative: float | None
    """half_depth over the number of blocks, for comparing models."""
    peak: list[int]
    """All layers that cannot be told from the best one."""
    best: float | None
    """Score of the best layer."""
    saturation: int | None
    """First layer from which the curve stays at its best until the end of the peak set."""
    decay: int | None
    """First layer after the peak set where it is clearly lower (by over 0.03)."""
    expected_layer: float | None
    """Centre of gravity of the curve's rises (of the running maximum)."""
    handoff: int | None
    """First layer after which neighbouring probe directions have a cosine above 0.9."""


class Complexity(FrozenConfig):
    """How complex the concept is for this model on this data. Components, never summed up."""

    half_depth: Interval
    """As in the summary."""
    mdl_bits: Interval
    """Online code length of the labels at the best layer, in bits (Voita and Titov 2020)."""
    mdl_bits_embedding: Interval
    """The same at the embedding."""
    compression: Interval
    """Bits of the labels when only the classes' shares are known, over mdl_bits."""
    n90: Interval
    """Training items that reach 90 % of the final score above chance, at the best layer."""
    rank90: Interval
    """Principal components that reach it."""
    mlp_gap: Interval
    """AUC of a small MLP minus that of the linear probe, at the layer where it is largest."""
    context_need: Interval
    """Tokens of left context that reach it at the best layer; null when it was not measured or there is nothing to reach."""
    within_cross_gap: Interval
    """Score on each level by probes that saw it minus by those that did not, at the best layer; the mean over the levels."""
    rank: int | None = None
    """Place by half depth, then bits; 1 is the simplest. Null where half depth is not established."""
    rank_low: int | None = None
    """Lowest place in 95 % of the resamples."""
    rank_high: int | None = None
    """Highest place."""
    tie: int | None = None
    """Number of the group of concepts that cannot be told from the group's first."""


class CausalProfile(FrozenConfig):
    """What changes in the model's behaviour when the concept is changed at one layer, at the token that is read."""

    layers: list[int]
    """Layers that were changed."""
    outcome: str
    """The behaviour."""
    clean: float
    """Mean difference of log-probabilities, right continuation minus wrong one."""
    swapped: list[Interval]
    """Change of it when the coordinate along the difference of means is exchanged for the other member's of the pair."""
    erased: list[Interval]
    """Change of it when the concept is erased by LEACE (arXiv 2306.03819)."""
    random_swapped: Series
    """95th percentile of |change| over random directions moved by equal lengths."""
    random_erased: Series
    """The same for random erasures of equal change."""
    random_directions: int
    """How many."""
    items: int
    """Texts it was measured on."""


class ConceptResult(FrozenConfig):
    """One concept in one model."""

    concept: dict[str, Any]
    """What the concept is: name, title, contrast, classes, nuisances, crossed, read_rule, surface."""
    layers: list[int]
    """Layers measured, as in the report."""
    dataset_digest: str
    """Digest of the items."""
    items: int
    """Items measured."""
    clusters: dict[str, int]
    """Clusters in each split: train, calibration, test."""
    examples: list[dict[str, Any]]
    """A few items with text, label, span and condition."""
    within: Curve
    """Held-out clusters, the same conditions."""
    within_bits: Series
    """Usable information in bits: entropy of the labels minus the calibrated log-loss on the test split."""
    within_balanced: Series
    """Balanced accuracy."""
    calibration_error: Series
    """Expected calibration error on the test split."""
    difference_of_means: Series
    """AUC of the difference of class means, held-out clusters: the dominant code, where the probe finds any."""
    difference_norm: Series
    """Norm of that difference in standardised units."""
    difference_reliability: Series
    """Cosine of the differences of two halves of the training clusters."""
    mlp: Series | None = None
    """AUC of an MLP with 64 hidden units, on principal components."""
    cross: CrossScore | None
    """Leave one condition out; null without a crossed nuisance."""
    parallelism: Series | None
    """Mean cosine of the differences of means in different conditions, over their reliabilities."""
    null95: float | None
    """95 % of label permutations stay below this at every layer at once, for the summary's score."""
    null95_within: float | None
    """The same for the within score."""
    p_value: Series
    """Family-wise error over the layers, by the permutations' maximum."""
    permutations: int
    """How many."""
    random_concept95: Series
    """95th percentile of max(AUC, 1 - AUC) on the real labels of probes for random splits of the same texts."""
    control: ControlTask | None = None
    """Control task and selectivity."""
    baselines: Baselines
    """Without the model's layers."""
    rotation: Series
    """Cosine of the probe directions of this layer and the next; the last is null."""
    transfer: Matrix
    """AUC of the probe of one layer (row) applied at another (column)."""
    summary: Summary
    """In a few words."""
    complexity: Complexity | None = None
    """Its components."""
    causal: CausalProfile | None = None
    """Effect on behaviour."""
    warnings: list[str]
    """What the data or the measurement cannot carry."""


class LayerSimilarity(FrozenConfig):
    """How similar the layers' representations are, on one token a context."""

    rows: int
    """Tokens."""
    text: str
    """Which text they are from."""
    layers: list[int]
    """Layers of the first model."""
    other_layers: list[int]
    """Layers of the second model; the same as layers within one model."""
    other_model: str | None = None
    """Name of the second model; null within one."""
    cka: Matrix
    """Debiased linear CKA of raw activations."""
    cka_standardized: Matrix
    """Of activations standardised by dimension."""
    cka_error: Matrix
    """Standard error of the standardised one, over resampled contexts."""
    mutual_knn: Matrix
    """Overlap of the 10 nearest neighbours."""
    procrustes: Matrix
    """1 - residual of the best rotation, both sides centred and scaled to one; 1 is the same shape."""
    predictivity: Matrix
    """R^2 of a ridge regression from the row's layer to the column's, held out."""
    concept_overlap: Matrix | None = None
    """Mean squared cosine of the principal angles of the spans of the concepts' directions."""
    intrinsic_dimension: list[Interval]
    """TwoNN, of each layer."""
    participation_ratio: Series
    """Of the covariance's eigenvalues, standardised activations."""
    mean_norm: Series
    """Mean length of the raw activations."""
    isotropy: Series
    """1 - mean cosine of pairs of rows; 1 is isotropic."""
    first_position_norm: Series
    """Mean length at position 0, which is left out everywhere else."""
    blocks: list[int]
    """First layers of the blocks of similar layers, by change points of the standardised CKA."""
    block_support: list[float]
    """Share of the resamples with a boundary within one layer of it; one for each of blocks, 1 for the first."""


class PromptConcept(FrozenConfig):
    """One concept over a prompt."""

    concept: str
    """Its name."""
    title: str
    """As plots show it."""
    log_odds: list[Series]
    """Calibrated log-odds of the positive class: token by layer, clipped to the calibration's range."""
    classes: list[str]
    """Negative and positive; with more than two classes the first and the one that is shown."""
    grey: list[list[str]]
    """Why a cell says nothing: '' (it does), 'position 0', 'not significant', 'out of domain'. Token by layer."""
    peak_layer: int | None
    """Layer with the largest |log-odds| at the strongest token that is not grey."""
    peak_interval: list[int] | None
    """Layers at that token whose |log-odds| cannot be told from it, by resampling the training clusters."""
    peak_token: int | None
    """That token."""


class Trajectory(FrozenConfig):
    """A prompt through the layers."""

    prompt: str
    """The text."""
    tokens: list[str]
    """Its tokens as text."""
    layers: list[int]
    """Layers, as in the report."""
    concepts: list[PromptConcept]
    """Each concept."""
    lens: list[list[list[str]]] | None = None
    """Logit lens: token by layer, the three tokens that the final norm and unembedding make of it; unreliable at early layers."""
    lens_probability: list[Series] | None = None
    """Probability of the first of them."""

    def plot(self, concept: str | None = None) -> plotly.graph_objects.Figure:
        """Draw a concept over the prompt, tokens by layers.

        Args:
            concept: its name; ``lens`` for the logit lens; the first concept when left out.

        Raises:
            InputError: the prompt was not followed for it; lists what there is.
        """
        from neuronmap.abstraction.plots import plot_named, trajectory_plots

        return plot_named(trajectory_plots(self), concept).to_figure()


class FlowNode(FrozenConfig):
    """A feature in the flow."""

    sae: str
    """Name of its SAE."""
    layer: int
    """Block it reads after."""
    feature: int
    """Its number."""
    density: float
    """Share of the tokens where it is active."""
    mass: float
    """Its share of the SAE's total activation."""
    label: str | None = None
    """Its label, where there is one."""
    concepts: dict[str, float] = Field(default_factory=dict)
    """AUC of the feature for built-in concepts it carries."""


class FlowEdge(FrozenConfig):
    """Two features of neighbouring SAEs that belong together."""

    source: int
    """Index of the node in the earlier layer."""
    target: int
    """Index in the later one."""
    kind: Literal["pass-through", "drift", "split", "merge"]
    """pass-through: same direction, same tokens, each the other's best in both; drift: same tokens (r of 0.5 or more), another
    direction; split, merge: one to several, several to one."""
    cosine: float
    """Of the decoder directions."""
    correlation: float
    """Pearson correlation of the activations over the shared tokens."""
    jaccard: float
    """Tokens where both are active over tokens where either is."""
    support: int
    """Tokens where both are active."""
    ablation: float | None = None
    """Mean change of the target's activation where the source is active, when the source is set to zero; null when not measured."""


class FeatureFlow(FrozenConfig):
    """Features through the layers."""

    saes: list[str]
    """SAEs from early to late."""
    layers: list[int]
    """Their layers."""
    tokens: int
    """Tokens of the shared text."""
    cosine_null: list[float]
    """99th percentile of a feature's best cosine with a randomly rotated decoder, for each pair of neighbours."""
    correlation_null: list[float]
    """99th percentile of its best correlation after the tokens of one side are shifted by whole contexts."""
    counts: list[dict[str, int]]
    """How many features of each kind there are, for each pair: pass-through, drift, split, merge, new, vanishing; unclear (above chance
    with something, but none of these) and untested (too rare or too dense), over both SAEs."""
    nodes: list[FlowNode]
    """Features shown."""
    edges: list[FlowEdge]
    """Edges between them."""
    warnings: list[str] = Field(default_factory=list)
    """What the counts cannot carry."""
    reproduced: list[float | None] | None = None
    """Share of the edges of one half of the text that the other half has too, for each pair; null for a pair without edges."""


class TrackingReport(FrozenConfig):
    """Everything one run found."""

    format: Literal["neuronmap-tracking-report"] = "neuronmap-tracking-report"
    """Says what the document is."""
    format_version: int = 1
    """Version of this document."""
    rules_version: int = RULES_VERSION
    """Version of the summary's rules."""
    created: str
    """ISO 8601, UTC."""
    code_version: str
    """NeuronMap's version."""
    name: str = ""
    """Name in the library of reports; empty when it is not kept."""
    model: dict[str, Any]
    """The model's identity: name, revision, architecture, digests, dtype, width, blocks."""
    preset: str
    """quick, full or custom."""
    settings: dict[str, Any]
    """Every setting, seeds included."""
    layers: list[int]
    """Layers measured, 0 (embedding) to L."""
    blocks: int
    """L."""
    concepts: list[ConceptResult]
    """Each concept."""
    similarity: LayerSimilarity | None = None
    """The layers compared."""
    between: LayerSimilarity | None = None
    """The layers compared with those of a second model."""
    trajectories: list[Trajectory] = Field(default_factory=list)
    """Prompts followed."""
    flow: FeatureFlow | None = None
    """Features followed."""
    seconds: dict[str, float]
    """Time of each part: load is not in it."""
    warnings: list[str] = Field(default_factory=list)
    """What concerns the whole run."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        for one in self.concepts:
            lists: dict[str, Sequence[Any]] = {
                "within": one.within.score,
                "p_value": one.p_value,
                "rotation": one.rotation,
                "transfer": one.transfer,
            }
            if one.cross is not None:
                lists |= {"cross": one.cross.mean.score, **{level.level: level.score for level in one.cross.levels}}
            for name, values in lists.items():
                if len(values) != len(one.layers):
                    raise ValueError(
                        f"{one.concept.get('name')}: {name} has {len(values)} values for {len(one.layers)} layers"
                    )
        return self

    def plot(self, name: str | None = None) -> plotly.graph_objects.Figure:
        """Draw one of the report's plots.

        Args:
            name: its name (``curve-...``, ``transfer-...``, ``complexity``, ``layers-cka``, ``flow``, ...), or a concept's for its
                curve; the first one when left out. :func:`~neuronmap.abstraction.plots.report_plots` lists them.

        Raises:
            InputError: there is none of that name; lists those that are there.
        """
        from neuronmap.abstraction.plots import plot_named, report_plots

        return plot_named(report_plots(self), name).to_figure()
