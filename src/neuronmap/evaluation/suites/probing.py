"""The probing suite: every binary concept of ours, and data sets of sae-probes where they are at hand, by k-sparse probes.

Items are read at their own position; train and test items share no cluster (lemma). The calibration split of a concept, which
the tracker uses otherwise, is trained on here.

Shapes: N items, D = d_in, F = width of a code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from neuronmap.activations.items import read_hooks
from neuronmap.concepts import Concept, ConceptData, list_concepts
from neuronmap.errors import ConfigError, InputError
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.rows import Autoencoder
from neuronmap.evaluation.suites.coding import encoded, l0_of
from neuronmap.evaluation.suites.record import MeanScore, ProbedSet, ProbeScore, ProbingSuite
from neuronmap.evaluation.suites.sparse_probe import ProbeItems, dense_score, probe_scores
from neuronmap.models import HookPoint, LanguageModel
from neuronmap.progress import Progress

__all__ = ["concept_sets", "probing_suite", "probing_suite_of_rows"]

Named = tuple[Literal["concepts", "sae-probes"], ConceptData]
Read = tuple[Literal["concepts", "sae-probes"], ConceptData, Tensor]
"""Where a set is from, its items, and the activations [N, D] that they were read as."""

_FEWEST = 8


def concept_sets(
    items: int, seed: int, concepts: Sequence[Concept] | None = None
) -> tuple[list[Named], dict[str, str]]:
    """Items of the concepts that are binary, and why the others are left out."""
    found: list[Named] = []
    skipped = {}
    for concept in list_concepts() if concepts is None else concepts:
        if len(concept.classes) != 2:
            skipped[concept.name] = f"{len(concept.classes)} classes; a probe of this suite tells two apart"
        else:
            found.append(("concepts", concept.generate(items, seed)))
    return found, skipped


def probing_suite(
    sae: Autoencoder,
    beside: Callable[[float], Mapping[str, Autoencoder]],
    sets: Sequence[Named],
    skipped: Mapping[str, str],
    *,
    model: LanguageModel,
    hook: HookPoint,
    ks: Sequence[int],
    bootstrap: int,
    seed: int,
    progress: Progress,
) -> ProbingSuite:
    """Read every text once, then probe all dictionaries.

    Args:
        sae: the SAE.
        beside: the baselines for an L0: that of the SAE on the items.
        sets: from :func:`concept_sets` and :func:`neuronmap.evaluation.suites.probe_data.sae_probe_sets`.
        skipped: what is not among them, and why.
        model, hook: where the SAE reads.
        ks: numbers of latents.
        bootstrap: resamples of clusters.
        seed: of folds and resamples.
        progress: where bars go.

    Raises:
        ConfigError: no set, or a k below 1.
        InputError: a set has too few items of a class to train or to test on.
    """
    if not sets:
        raise ConfigError("There is nothing to probe for: no concept has two classes.")
    read = read_hooks(model, [data for _, data in sets], [hook], progress=progress)
    rows = [(source, data, x_ND) for (source, _), (data, (x_ND,)) in zip(sets, read, strict=True)]
    dictionaries = {"sae": sae, **beside(l0_of(sae, [x_ND for _, _, x_ND in rows]))}
    return probing_suite_of_rows(dictionaries, rows, skipped, ks=ks, bootstrap=bootstrap, seed=seed, progress=progress)


def probing_suite_of_rows(
    dictionaries: Mapping[str, Autoencoder],
    read: Sequence[Read],
    skipped: Mapping[str, str],
    *,
    ks: Sequence[int],
    bootstrap: int,
    seed: int,
    progress: Progress,
) -> ProbingSuite:
    """The same from activations that were read already, for the SAE under ``sae`` and others beside it; see :func:`probing_suite`."""
    if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise ConfigError(f"ks = {list(ks)}: different numbers of latents, each 1 or more.")
    sets = []
    with progress.task("Probing", len(read) * len(dictionaries), "probes") as bar:
        for source, data, x_ND in read:
            items = _items(data, bootstrap, seed)
            scores: dict[str, tuple[ProbeScore, ...]] = {}
            for name, dictionary in dictionaries.items():
                scores[name] = probe_scores(encoded(dictionary, x_ND), items, ks, seed)
                bar.advance(1)
            scores["dense"] = (dense_score(x_ND, items, seed),)
            sets.append(
                ProbedSet(
                    name=data.name,
                    source=source,
                    items_digest=data.digest,
                    train=int(items.train_N.sum()),
                    test=int((~items.train_N).sum()),
                    test_clusters=len(items.draws.between_GG),
                    scores=scores,
                )
            )
    return ProbingSuite(ks=tuple(ks), sets=tuple(sets), means=_means(sets, bootstrap, seed), skipped=dict(skipped))


def _items(data: ConceptData, bootstrap: int, seed: int) -> ProbeItems:
    positive = [item.label == data.classes[1] for item in data.items]
    train = [item.split != "test" for item in data.items]
    for split, wanted in (("train", True), ("test", False)):
        counts = [sum(p == label and t == wanted for p, t in zip(positive, train, strict=True)) for label in (0, 1)]
        if min(counts) < (_FEWEST if wanted else 2):
            raise InputError(
                f"{data.name} has {counts[0]} and {counts[1]} items of its classes to {split} a probe on, which is too few.",
                hint="Ask for more items.",
            )
    return ProbeItems.of(positive, [item.cluster for item in data.items], train, bootstrap, seed)


def _means(sets: Sequence[ProbedSet], bootstrap: int, seed: int) -> dict[str, tuple[MeanScore, ...]]:
    """Means over sets; the same resamples of sets for all, so that differences are paired."""
    S = len(sets)
    most = max(range(len(sets[0].scores["sae"])), key=lambda at: sets[0].scores["sae"][at].k or 0)
    drawn_RS = np.random.default_rng(seed).multinomial(S, np.full(S, 1 / S), size=bootstrap if S > 1 else 0) / S

    def values(name: str, at: int, measure: str) -> np.ndarray:
        found = [getattr(one.scores[name][at], measure).value for one in sets]
        return np.array([np.nan if value is None else value for value in found])

    def mean(values_S: np.ndarray) -> Estimate:
        if np.isnan(values_S).any():
            return Estimate(value=None, count=S, reason="not defined for every set")
        value, samples_R = float(values_S.mean()), drawn_RS @ values_S
        if len(samples_R) < 2:
            return Estimate(value=value, count=S, reason="no error: one set, or no resamples")
        low, high = np.quantile(samples_R, [0.025, 0.975])
        return Estimate(value=value, error=float(samples_R.std(ddof=1)), low=float(low), high=float(high), count=S)

    found = {}
    for name, per_k in sets[0].scores.items():
        found[name] = tuple(
            MeanScore(
                k=score.k,
                auc=mean(values(name, at, "auc")),
                accuracy=mean(values(name, at, "accuracy")),
                f1=mean(values(name, at, "f1")),
                lead=None
                if name == "sae"
                else mean(values("sae", at if score.k is not None else most, "auc") - values(name, at, "auc")),
            )
            for at, score in enumerate(per_k)
        )
    return found
