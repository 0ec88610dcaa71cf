"""A small report written by hand: five layers, two concepts, two prompts, the layers compared, features followed."""

from __future__ import annotations

from typing import Any

from neuronmap.abstraction.record import (
    Baselines,
    CausalProfile,
    Complexity,
    ConceptResult,
    ControlTask,
    CrossScore,
    Curve,
    FeatureFlow,
    FlowEdge,
    FlowNode,
    Interval,
    LayerSimilarity,
    LeftOut,
    PromptConcept,
    Summary,
    TrackingReport,
    Trajectory,
)
from neuronmap.abstraction.settings import TrackerConfig

LAYERS = [0, 1, 2, 3, 4]
SUBJECT, QUESTION = "grammatical_number:subject", "question"
TAG = "<script>alert(1)</script>"
DIGEST = "sha256:" + "12345678" * 8


def report(**changes: Any) -> TrackingReport:
    """The report; fields may be changed."""
    return TrackingReport(
        **{
            "created": "2026-01-02T03:04:05+00:00",
            "code_version": "0.1.0",
            "model": {
                "name": "/somewhere/on/this/machine/tiny",
                "revision": None,
                "architecture": "GPT2LMHeadModel",
                "model_digest": DIGEST,
                "tokenizer_digest": DIGEST,
                "dtype": "float32",
                "hidden_size": 32,
                "num_layers": 4,
            },
            "preset": "quick",
            "settings": TrackerConfig.preset("quick", seed=7).to_dict(),
            "layers": LAYERS,
            "blocks": 4,
            "concepts": [subject(), question()],
            "similarity": similarity(),
            "trajectories": [trajectory(f"The keys {TAG}"), trajectory("The key")],
            "flow": flow("first", "later/sae"),
            "seconds": {"reading": 1.5},
            "warnings": ["The whole run is small."],
            **changes,
        }
    )


def curve(*score: float) -> Curve:
    """A curve with a band of a tenth."""
    low, high = [value - 0.1 for value in score], [min(1.0, value + 0.1) for value in score]
    return Curve(score=list(score), low=low, high=high, band_low=low, band_high=high)


def subject() -> ConceptResult:
    """Found across conditions, half way up at layer 2."""
    cross = curve(0.5, 0.55, 0.75, 0.95, 0.94)
    level = LeftOut(level="distant", score=cross.score, within=cross.score, alone=[0.5, None, 0.7, 0.9, 0.9])
    return ConceptResult(
        concept={
            "name": SUBJECT,
            "title": "Number of the subject",
            "contrast": "Is the subject singular or plural?",
            "classes": ["singular", "plural"],
            "nuisances": ["construction", "attractor"],
            "crossed": "construction",
            "read_rule": "at an adverb just before the verb",
            "surface": False,
        },
        items=112,
        clusters={"train": 16, "calibration": 4, "test": 8},
        examples=[
            {"text": f"The keys {TAG} probably", "label": "plural", "span": [35, 43], "condition": "distant"},
            {"text": "The key near it usually", "label": "singular", "span": [16, 23], "condition": "distant"},
        ],
        cross=CrossScore(mean=cross, worst=[0.4, 0.5, 0.7, 0.9, 0.9], levels=[level]),
        summary=Summary(
            score="cross",
            verdict="abstract",
            statement="Found across every level of construction.",
            present_at_embedding=False,
            gain=0.45,
            emergence=2,
            emergence_interval=[1, 2],
            half_depth=Interval(value=1.8, low=1.5, high=2.25),
            depth90=Interval(value=2.8, low=2.5, high=3.0),
            half_depth_relative=0.45,
            peak=[3, 4],
            best=0.95,
            saturation=3,
            decay=None,
            expected_layer=2.1,
            handoff=3,
        ),
        complexity=components(Interval(value=1.8, low=1.5, high=2.25), rank=1),
        causal=CausalProfile(
            layers=[1, 3],
            outcome="is or are after the subject",
            clean=1.25,
            swapped=[Interval(value=-0.1, low=-0.2, high=0.0), Interval(value=-2.0, low=-2.4, high=-1.6)],
            erased=[Interval(value=None, reason="not measured"), Interval(value=-1.1, low=-1.3, high=-0.9)],
            random_swapped=[0.2, 0.3],
            random_erased=[0.1, 0.2],
            random_directions=20,
            items=16,
        ),
        **shared(cross),
    )


def question() -> ConceptResult:
    """Found, with nothing to cross, and at the embedding already."""
    within = curve(1.0, 1.0, 1.0, 1.0, 1.0)
    return ConceptResult(
        concept={
            "name": QUESTION,
            "title": "Question",
            "contrast": "Is it a question?",
            "classes": ["statement", "question"],
            "nuisances": [],
            "crossed": None,
            "read_rule": "at the last word",
            "surface": True,
        },
        items=40,
        clusters={"train": 10, "calibration": 4, "test": 6},
        examples=[],
        cross=None,
        summary=Summary(
            score="within",
            verdict="within-only",
            statement="Found on held-out clusters; there is no condition to cross.",
            present_at_embedding=True,
            gain=0.0,
            emergence=None,
            half_depth=Interval(value=None, reason="present at the embedding"),
            depth90=Interval(value=None, reason="present at the embedding"),
            half_depth_relative=None,
            peak=LAYERS,
            best=1.0,
            saturation=0,
            decay=None,
            expected_layer=None,
            handoff=None,
        ),
        complexity=None,
        **shared(within),
    )


def components(half: Interval, rank: int) -> Complexity:
    """Components of complexity, one of them not measured."""
    bits = Interval(value=85.0, low=77.0, high=94.0)
    return Complexity(
        half_depth=half,
        mdl_bits=bits,
        mdl_bits_embedding=bits,
        compression=Interval(value=1.3, low=1.2, high=1.5),
        n90=Interval(value=12.0, low=5.0, high=15.0),
        rank90=Interval(value=8.0, low=6.0, high=12.0),
        mlp_gap=Interval(value=None, reason="no MLP was trained"),
        context_need=Interval(value=4.0, low=3.0, high=None),
        within_cross_gap=Interval(value=-0.1, low=-0.2, high=0.05),
        rank=rank,
        rank_low=1,
        rank_high=2,
        tie=1,
    )


def shared(within: Curve) -> dict[str, Any]:
    """What both concepts have."""
    five = [0.1, 0.2, 0.3, 0.4, 0.5]
    return {
        "layers": LAYERS,
        "dataset_digest": DIGEST,
        "within": within,
        "within_bits": five,
        "within_balanced": five,
        "calibration_error": five,
        "difference_of_means": five,
        "difference_norm": five,
        "difference_reliability": five,
        "parallelism": five,
        "null95": 0.68,
        "null95_within": 0.7,
        "p_value": [1.0, 0.5, 0.04, 0.01, 0.01],
        "permutations": 200,
        "random_concept95": five,
        "control": ControlTask(shared=five, real=five, selectivity=five, heldout=five, labelings=2),
        "baselines": Baselines(mean_of_embeddings=0.55, position_length=0.5),
        "rotation": [0.2, 0.5, 0.9, 0.95, None],
        "transfer": [[0.5 + 0.1 * row - 0.05 * column for column in range(5)] for row in range(5)],
        "warnings": ["Only 8 clusters in the test split."],
    }


def trajectory(prompt: str) -> Trajectory:
    """A prompt of three tokens, one of which says something."""
    tokens = [prompt[:3], prompt[3:7], prompt[7:]]
    grey = [["position 0"] * 5, ["not significant", "", "", "", ""], ["out of domain"] * 4 + [""]]
    odds = [[0.0] * 5, [0.1, 0.5, -1.0, 2.5, 2.0], [0.0, 0.0, 0.0, 0.0, -0.5]]
    return Trajectory(
        prompt=prompt,
        tokens=tokens,
        layers=LAYERS,
        concepts=[
            PromptConcept(
                concept=SUBJECT,
                title="Number of the subject",
                log_odds=odds,
                classes=["singular", "plural"],
                grey=grey,
                peak_layer=3,
                peak_interval=[3, 4],
                peak_token=1,
            ),
            PromptConcept(
                concept=QUESTION,
                title="Question",
                log_odds=odds,
                classes=["statement", "question"],
                grey=[["position 0"] * 5] * 3,
                peak_layer=None,
                peak_interval=None,
                peak_token=None,
            ),
        ],
        lens=[[[" a", "\n", TAG]] * 5] * 3,
        lens_probability=[[0.1, 0.2, 0.3, 0.4, 0.5]] * 3,
    )


def similarity() -> LayerSimilarity:
    """Layers that are alike the nearer they are."""
    square = [[1.0 - 0.2 * abs(row - column) for column in range(5)] for row in range(5)]
    five = [10.0, 20.0, 30.0, 40.0, 50.0]
    return LayerSimilarity(
        rows=256,
        text="speeches",
        layers=LAYERS,
        other_layers=LAYERS,
        cka=square,
        cka_standardized=square,
        cka_error=[[0.01] * 5] * 5,
        mutual_knn=square,
        procrustes=square,
        predictivity=[[None] * 5, *square[1:]],
        intrinsic_dimension=[Interval(value=12.0, low=10.0, high=14.0)] * 4
        + [Interval(value=None, reason="too few rows")],
        participation_ratio=five,
        mean_norm=five,
        isotropy=[0.1, 0.2, 0.3, 0.4, 0.5],
        first_position_norm=[10.0, 200.0, 2000.0, 2000.0, 50.0],
        blocks=[0, 2],
        block_support=[1.0, 0.8],
    )


def flow(first: str, second: str, edges: int = 3) -> FeatureFlow:
    """Two SAEs with some edges between them."""
    nodes = [
        FlowNode(
            sae=first, layer=1, feature=3, density=0.01, mass=0.02, label=f"ends in {TAG}", concepts={SUBJECT: 0.91}
        ),
        FlowNode(sae=second, layer=3, feature=5, density=0.01, mass=0.02),
        FlowNode(sae=second, layer=3, feature=8, density=0.01, mass=0.02, label="names"),
    ]
    kinds = ["pass-through", "split", "split"]
    return FeatureFlow(
        saes=[first, second],
        layers=[1, 3],
        tokens=65_536,
        cosine_null=[0.3],
        correlation_null=[0.1],
        counts=[{"pass-through": 4, "split": 2, "new": 7}],
        nodes=nodes,
        edges=[
            FlowEdge(
                source=0,
                target=1 + at % 2,
                kind=kinds[at % 3],  # type: ignore[arg-type]
                cosine=0.9,
                correlation=0.8,
                jaccard=0.5,
                support=1000 - at,
                ablation=-0.25 if at == 0 else None,
            )
            for at in range(edges)
        ],
        reproduced=[0.75],
    )
