"""Under labels that mean nothing, nothing is found; the nulls are made of what is exchangeable."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch

from neuronmap.abstraction.measuring.concept import measure_concept
from neuronmap.abstraction.reading import Reading
from neuronmap.abstraction.record import ConceptResult
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.abstraction.statistics.relabelling import Labels, permuted_labels, random_labels
from neuronmap.concepts import Concept, ConceptData, Item

LAYERS, WIDTH = 6, 16
RUNS = 100


def items_of(lemmas: int, per_lemma: int, *, paired: bool) -> tuple[Item, ...]:
    """Items of lemmas in two conditions; both labels in each lemma, or one a lemma."""
    made = []
    for lemma in range(lemmas):
        split = "train" if lemma < lemmas // 2 else "calibration" if lemma < lemmas * 5 // 8 else "test"
        for index in range(per_lemma):
            label = "ab"[index % 2] if paired else "ab"[lemma % 2]
            condition = "cd"[(index // 2) % 2]
            made.append(
                Item("x y", label, (2, 3), f"lemma{lemma}", f"{lemma}-{index // 2}", condition, split, {"z": condition})  # type: ignore[arg-type]
            )
    return tuple(made)


def random_reading(seed: int, *, paired: bool) -> Reading:
    """Activations that know the lemma, share much between neighbouring layers, and know nothing of the label."""
    items = items_of(32, 8, paired=paired)
    generator = torch.Generator().manual_seed(seed)
    lemma = torch.tensor([int(item.cluster.removeprefix("lemma")) for item in items])
    x = torch.randn(32, WIDTH, generator=generator)[lemma] + 0.5 * torch.randn(len(items), WIDTH, generator=generator)
    layers = [torch.zeros(len(items), WIDTH)]
    for _ in range(LAYERS - 1):
        x = 0.8 * x + 0.6 * (
            torch.randn(32, WIDTH, generator=generator)[lemma] + torch.randn(len(items), WIDTH, generator=generator)
        )
        # A lemma's two forms differ in a way of the lemma's own, the same in all its sentences: not evidence of a label.
        form = torch.tensor([1.0 if item.label == "b" else -1.0 for item in items])[:, None]
        layers.append(x + 0.5 * form * torch.randn(32, WIDTH, generator=generator)[lemma])
    return Reading(
        ConceptData("null", ("a", "b"), items),
        tuple(range(LAYERS)),
        torch.stack(layers),
        torch.randn(len(items), WIDTH, generator=generator),
        torch.full((len(items),), 3),
        0,
    )


CONCEPT = Concept(
    "null", "Null", "?", ("a", "b"), ("z",), "z", "-", lambda items, seed: ConceptData("null", ("a", "b"), ())
)
CONFIG = TrackerConfig(
    permutations=40, resamples=40, random_concepts=20, control_labelings=0, mlp=False, untrained=False, complexity=False
)


@cache
def measured(paired: bool) -> list[ConceptResult]:
    """What is found in each of the runs, with labels that mean nothing."""
    last = LAYERS - 1
    return [
        measure_concept(CONCEPT, random_reading(seed, paired=paired), last, CONFIG.updated(seed=seed)).result
        for seed in range(RUNS)
    ]


@pytest.mark.parametrize("paired", [True, False])
def test_random_labels_give_no_emergence(paired: bool) -> None:
    found = Counter(result.summary.verdict for result in measured(paired))
    wrong = sum(count for verdict, count in found.items() if verdict != "not-detected")
    assert wrong <= 0.05 * RUNS, found


def test_family_wise_p_values_are_those_of_chance() -> None:
    smallest = [min(p for p in result.p_value if p is not None) for result in measured(True)]
    below = sum(p <= 0.05 for p in smallest) / len(smallest)
    assert below <= 0.11  # 0.05 expected; at most 0.11 in 99 % of draws of 100


def test_clusters_of_both_labels_are_flipped_whole() -> None:
    items = items_of(12, 6, paired=True)
    labels = Labels(torch.tensor(["ab".index(item.label) for item in items]), 2)
    drawn = permuted_labels(items, labels, 50, 0)
    flipped = drawn != labels.label_N
    for lemma in range(12):
        rows = flipped[:, lemma * 6 : lemma * 6 + 6]
        assert bool((rows.all(1) | (~rows).all(1)).all())
    assert 0.3 < flipped.double().mean() < 0.7


def test_clusters_of_one_label_exchange_it_within_their_split() -> None:
    items = items_of(16, 4, paired=False)
    labels = Labels(torch.tensor(["ab".index(item.label) for item in items]), 2)
    drawn = permuted_labels(items, labels, 50, 0)
    for split in ("train", "test"):
        rows = torch.tensor([item.split == split for item in items])
        assert bool((drawn[:, rows].sum(1) == labels.label_N[rows].sum()).all())
    assert bool((drawn[:, ::4] == drawn[:, 3::4]).all())  # the same for all items of a lemma
    assert bool((drawn != labels.label_N).any())


def test_random_concepts_label_whole_clusters() -> None:
    items = items_of(16, 4, paired=True)
    drawn = random_labels(items, 3, 40, 0)
    assert set(drawn.unique().tolist()) == {0, 1, 2}
    assert bool((drawn[:, ::4] == drawn[:, 3::4]).all())


def test_a_level_of_few_clusters_cannot_carry_abstraction() -> None:
    """One condition has a single test cluster: whatever its score, nothing is found across it, and the record says why."""
    made = []
    for item in items_of(60, 8, paired=True):
        if item.condition == "d" and item.split == "test" and item.cluster != "lemma59":
            continue
        made.append(item)
    items = tuple(made)
    generator = torch.Generator().manual_seed(0)
    form = torch.tensor([1.0 if item.label == "b" else -1.0 for item in items])[:, None]
    x = torch.randn(4, len(items), WIDTH, generator=generator) + 3 * form * torch.ones(WIDTH)
    x[0] = 0.0
    reading = Reading(ConceptData("few", ("a", "b"), items), (0, 1, 2, 3), x, x[0], torch.full((len(items),), 3), 0)
    result = measure_concept(CONCEPT, reading, 3, CONFIG).result
    assert result.cross is not None
    assert result.cross.levels[1].score[2] == 1.0
    assert result.summary.verdict == "condition-bound"
    assert "(d)" in result.summary.statement
    assert any("d (1)" in warning for warning in result.warnings)


def test_a_control_task_is_at_chance_where_a_pair_is_one_vector() -> None:
    reading = random_reading(0, paired=True)
    result = measure_concept(CONCEPT, reading, LAYERS - 1, CONFIG.updated(control_labelings=5)).result
    assert result.control is not None
    assert result.control.real[0] == 0.5  # layer 0 is zero everywhere
