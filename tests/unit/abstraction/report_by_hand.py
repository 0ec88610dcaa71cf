"""A report written by hand: every part is there, and every figure that can be null is null somewhere."""

from __future__ import annotations

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

LAYERS = [0, 2, 4, 6]
NONE = Interval(value=None, reason="present at the embedding")


def curve(values: list[float | None]) -> Curve:
    low = [None if value is None else round(value - 0.1, 3) for value in values]
    high = [None if value is None else round(value + 0.05, 3) for value in values]
    return Curve(score=values, low=low, high=high, band_low=low, band_high=high)


def summary(**more: object) -> Summary:
    values = {
        "score": "cross", "verdict": "abstract", "statement": "Found across every level of construction.",
        "present_at_embedding": False, "gain": 0.45, "emergence": 2, "emergence_interval": [2, 4],
        "half_depth": Interval(value=1.5, low=1.0, high=2.5), "depth90": Interval(value=3.5, low=3.0, high=4.0),
        "half_depth_relative": 0.25, "peak": [4, 6], "best": 0.95, "saturation": 4, "decay": None,
        "expected_layer": 1.9, "handoff": 4,
    }  # fmt: skip
    return Summary(**{**values, **more})


def concept(name: str, **more: object) -> ConceptResult:
    values = {
        "concept": {
            "name": name, "title": f"Title of {name}", "contrast": "Is it so?", "classes": ["no", "yes"],
            "nuisances": ["construction"], "crossed": "construction", "read_rule": "at the last word", "surface": False,
        },
        "layers": LAYERS, "dataset_digest": "sha256:" + "ab" * 32, "items": 96,
        "clusters": {"train": 12, "calibration": 4, "test": 8},
        "examples": [{"text": "So <it> is here", "label": "yes", "span": [11, 15], "condition": "a"}],
        "within": curve([0.5, 0.8, None, 0.97]), "within_bits": [0.0, -0.1, None, 0.9],
        "within_balanced": [0.5, 0.7, None, 0.9], "calibration_error": [0.1, 0.1, None, 0.05],
        "difference_of_means": [0.5, 0.6, 0.7, None], "difference_norm": [0.1, 1.0, 2.0, None],
        "difference_reliability": [0.0, 0.5, 0.8, 0.9], "mlp": [0.5, 0.85, None, 0.99],
        "cross": CrossScore(
            mean=curve([0.5, 0.7, 0.9, 0.95]), worst=[0.45, 0.6, 0.85, None],
            levels=[
                LeftOut(level="a", score=[0.5, 0.6, 0.9, 0.95], within=[0.5, 0.8, None, 1.0], alone=[0.5, 0.9, 1.0, 1.0]),
                LeftOut(level="b", score=[0.5, 0.8, 0.9, None], within=[0.5, 0.8, 0.9, 1.0], alone=[None, 0.9, 1.0, 1.0]),
            ],
        ),
        "parallelism": [None, 0.5, 0.8, 0.9], "null95": 0.65, "null95_within": 0.66, "p_value": [1.0, 0.2, 0.01, 0.01],
        "permutations": 200, "random_concept95": [0.6, 0.6, None, 0.62],
        "control": ControlTask(
            shared=[0.7, 0.9, 1.0, 1.0], real=[0.5, 0.9, None, 1.0], selectivity=[-0.2, 0.0, None, 0.0],
            heldout=[0.5, 0.5, 0.5, None], labelings=20,
        ),
        "baselines": Baselines(
            mean_of_embeddings=0.6, position_length=None, random_within=[0.5, 0.55, 0.5, 0.5],
            random_cross=[0.5, 0.5, None, 0.5],
        ),
        "rotation": [0.2, 0.7, 0.95, None],
        "transfer": [[0.5, 0.4, None, 0.5], [0.5, 0.8, 0.6, 0.6], [0.5, 0.7, 0.97, 0.9], [0.1, 0.6, 0.9, 0.97]],
        "summary": summary(),
        "complexity": Complexity(
            half_depth=Interval(value=1.5, low=1.0, high=2.5), mdl_bits=Interval(value=40.0, low=35.0, high=45.0),
            mdl_bits_embedding=Interval(value=99.0), compression=Interval(value=2.4), n90=Interval(value=None),
            rank90=Interval(value=4.0, low=3.0, high=6.0), mlp_gap=Interval(value=0.02, low=-0.01, high=0.05),
            context_need=NONE, within_cross_gap=Interval(value=0.02, low=0.0, high=0.04), rank=1, rank_low=1, rank_high=2, tie=1,
        ),
        "causal": CausalProfile(
            layers=[0, 6], outcome="is or are", clean=2.0,
            swapped=[Interval(value=-0.1, low=-0.3, high=0.2), Interval(value=-3.5, low=-4.0, high=-3.0)],
            erased=[Interval(value=None, reason="not measured"), Interval(value=-1.0)],
            random_swapped=[0.2, None], random_erased=[0.2, 0.3], random_directions=20, items=32,
        ),
        "warnings": ["Only 8 clusters in the test split."],
    }  # fmt: skip
    return ConceptResult(**{**values, **more})


def bare_concept(name: str) -> ConceptResult:
    """Nothing that may be missing is there, and nothing was found."""
    nothing: list[float | None] = [None] * len(LAYERS)
    empty = Curve(score=nothing, low=nothing, high=nothing, band_low=nothing, band_high=nothing)
    return concept(
        name, cross=None, parallelism=None, null95=None, null95_within=None, mlp=None, control=None, causal=None,
        complexity=None, within=empty, within_bits=nothing, within_balanced=nothing, calibration_error=nothing,
        difference_of_means=nothing, difference_norm=nothing, difference_reliability=nothing, p_value=nothing,
        random_concept95=nothing, rotation=nothing, transfer=[nothing] * len(LAYERS), warnings=[],
        baselines=Baselines(mean_of_embeddings=None, position_length=None),
        summary=summary(
            score="within", verdict="not-detected", statement="Not detected.", gain=None, emergence=None,
            emergence_interval=None, half_depth=Interval(value=None, reason="not detected"),
            depth90=Interval(value=None, reason="not detected"), half_depth_relative=None, peak=[], best=None,
            saturation=None, decay=None, expected_layer=None, handoff=None,
        ),
    )  # fmt: skip


def similarity(**more: object) -> LayerSimilarity:
    ones = [[1.0, 0.5, None, 0.1], [0.5, 1.0, 0.8, 0.2], [None, 0.8, 1.0, 0.6], [0.1, 0.2, 0.6, 1.0]]
    values = {
        "rows": 256, "text": "sotu", "layers": LAYERS, "other_layers": LAYERS, "cka": ones, "cka_standardized": ones,
        "cka_error": ones, "mutual_knn": ones, "procrustes": ones, "predictivity": ones, "concept_overlap": ones,
        "intrinsic_dimension": [Interval(value=8.0, low=7.0, high=9.0), NONE, Interval(value=9.0), Interval(value=7.0)],
        "participation_ratio": [30.0, None, 200.0, 90.0], "mean_norm": [3.0, 70.0, 100.0, None],
        "isotropy": [0.9, 0.4, None, 0.3], "first_position_norm": [3.0, 900.0, 20000.0, 4000.0],
        "blocks": [0, 4], "block_support": [1.0, 0.62],
    }  # fmt: skip
    return LayerSimilarity(**{**values, **more})


def between() -> LayerSimilarity:
    """The same with a second model of two layers."""
    fields = ("cka", "cka_standardized", "cka_error", "mutual_knn", "procrustes", "predictivity")
    matrices = {field: [[0.1, 0.2], [0.3, None], [0.2, 0.7], [0.1, 0.1]] for field in fields}
    return similarity(
        other_model="other", other_layers=[0, 1], concept_overlap=None, blocks=[0], block_support=[1.0], **matrices
    )


def trajectory() -> Trajectory:
    grey = [["position 0"] * 4, ["not significant", "", "", "out of domain"], ["not significant", "", "", ""]]
    return Trajectory(
        prompt="The keys <b>\n",
        tokens=["The", " keys", " <b>\n"],
        layers=LAYERS,
        concepts=[
            PromptConcept(
                concept="family:one", title="Title of one", classes=["no", "yes"], grey=grey, peak_layer=4, peak_token=1,
                peak_interval=[2, 4], log_odds=[[9.0] * 4, [0.1, -1.0, 2.5, 9.0], [None, 0.5, -0.5, 1.0]],
            ),
            PromptConcept(
                concept="none", title="Title of two", classes=["no", "yes"], grey=[["position 0"] * 4, *[["not significant"] * 4] * 2],
                peak_layer=None, peak_token=None, peak_interval=None, log_odds=[[1.0] * 4] * 3,
            ),
        ],
        lens=[[["a", "b", "c"]] * 4, [[" is<", " was"], [" are"], ["x"], ["y"]], [["averyverylongword", "b"]] * 4],
        lens_probability=[[0.1, 0.2, 0.3, None]] * 3,
    )  # fmt: skip


def flow() -> FeatureFlow:
    nodes = [
        FlowNode(
            sae="early", layer=3, feature=7, density=0.02, mass=0.1, label="commas & <such>", concepts={"one": 0.93}
        ),
        FlowNode(sae="late", layer=5, feature=1, density=0.03, mass=0.2),
        FlowNode(sae="late", layer=5, feature=2, density=0.01, mass=0.05, label="x" * 60),
    ]
    shared = {"cosine": 0.6, "correlation": 0.7, "jaccard": 0.4}
    return FeatureFlow(
        saes=["early", "late"], layers=[3, 5], tokens=16384, cosine_null=[0.2], correlation_null=[0.1],
        counts=[{"pass-through": 5, "drift": 0, "split": 1, "merge": 0, "new": 2, "vanishing": 3, "untested": 4}],
        nodes=nodes,
        edges=[
            FlowEdge(source=0, target=1, kind="split", support=120, ablation=-0.4, **shared),
            FlowEdge(source=0, target=2, kind="split", support=30, **shared),
        ],
        reproduced=[0.8],
    )  # fmt: skip


def full_report(**more: object) -> TrackingReport:
    at_embedding = summary(
        present_at_embedding=True, emergence=None, emergence_interval=None, half_depth=NONE, depth90=NONE,
        half_depth_relative=None, peak=LAYERS,
    )  # fmt: skip
    unranked = concept("one").complexity.updated(half_depth=NONE, rank=None, rank_low=None, rank_high=None, tie=None)
    later = concept("one").complexity.updated(rank=2, half_depth=Interval(value=2.0, low=1.2, high=3.0))
    values = {
        "created": "2026-01-01T00:00:00+00:00", "code_version": "0.1.0", "name": "kept",
        "model": {"name": "tiny", "architecture": "GPT2LMHeadModel", "revision": None, "model_digest": "sha256:1"},
        "preset": "quick", "settings": {"seed": 3}, "layers": LAYERS, "blocks": 6,
        "concepts": [
            concept("family:one"), bare_concept("none"), concept("surface", summary=at_embedding, complexity=unranked),
            concept("three", complexity=later, summary=summary(half_depth=later.half_depth)),
        ],
        "similarity": similarity(), "between": between(), "trajectories": [trajectory()], "flow": flow(),
        "seconds": {"reading": 3.0}, "warnings": ["A warning <of> the run."],
    }  # fmt: skip
    return TrackingReport(**{**values, **more})
