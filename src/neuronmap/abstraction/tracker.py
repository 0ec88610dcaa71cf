"""The tracker: concepts, layers and prompts of one model, measured once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuronmap.abstraction.causal import causal_profile
from neuronmap.abstraction.complexity import best_place, complexity_of, ranked
from neuronmap.abstraction.context import context_needed
from neuronmap.abstraction.keeping import KeptConcept, concept_key, keep, read_kept
from neuronmap.abstraction.layers.sample import reads_later_tokens
from neuronmap.abstraction.layers.similarity import layer_similarity
from neuronmap.abstraction.measuring.concept import STEPS, Measured, measure_concept
from neuronmap.abstraction.probes.probe_set import probes_of
from neuronmap.abstraction.reading import Reading, check_layers, read_concepts
from neuronmap.abstraction.record import ConceptResult, Interval, LayerSimilarity, TrackingReport, Trajectory
from neuronmap.abstraction.settings import Preset, TrackerConfig
from neuronmap.abstraction.summary import depth_draws
from neuronmap.abstraction.trajectory import checked_prompt, follow_prompt
from neuronmap.abstraction.untrained import untrained_like
from neuronmap.concepts import Concept, ConceptData, get_concepts, list_concepts
from neuronmap.errors import ConfigError, InputError
from neuronmap.models import LanguageModel, load_model, wrap_model
from neuronmap.progress import Progress, default

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from neuronmap.corpora import TokenSet

__all__ = ["AbstractionTracker", "chosen_concepts"]

ConceptLike = str | Concept


class AbstractionTracker:
    """Where a model holds concepts, how similar its layers are, and which concepts are more complex for it.

    Args:
        model: a loaded model, a transformers model, or a name for :func:`~neuronmap.models.load_model`; causal models and encoders.
        preset: ``quick`` or ``full``.
        config: settings, in place of a preset's.
        layers: layers to measure, 0 (the embedding) among them; by the settings' stride when left out.
        progress: where notes and bars go.

    Raises:
        ModelError: the model cannot be loaded.
        HookPointError: a layer does not exist.

    Example:
        >>> tracker = AbstractionTracker("smollm2-135m", preset="quick")              # doctest: +SKIP
        >>> report = tracker.track(["grammatical_number:subject"])                    # doctest: +SKIP
        >>> report.concepts[0].summary.half_depth                                     # doctest: +SKIP
        >>> tracker.track_concept_evolution("The keys to the cabinet probably", ["grammatical_number"]).plot()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: LanguageModel | PreTrainedModel | str,
        *,
        preset: Preset = "full",
        config: TrackerConfig | None = None,
        layers: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.progress = progress or default()
        self.model = _as_model(model, self.progress)
        self.preset = preset if config is None else "custom"
        self.config = config or TrackerConfig.preset(preset)
        self.layers = check_layers(self.model, layers, self.config.layer_stride)
        self._kept: dict[str, KeptConcept] = {}
        self._seconds: dict[str, float] = {}
        self._untrained: LanguageModel | None = None
        self._both_ways: bool | None = None

    def track(
        self,
        concepts: Iterable[ConceptLike] | None = None,
        *,
        prompts: Sequence[str] = (),
        tokens: TokenSet | None = None,
        fence: Callable[[], None] | None = None,
    ) -> TrackingReport:
        """Measure concepts, compare layers, follow prompts: everything in one report.

        Args:
            concepts: names, families, files or :class:`~neuronmap.concepts.Concept`; all built-in ones when left out.
            prompts: texts to follow through the layers.
            tokens: text for the comparison of layers; without it layers are not compared.
            fence: called before anything is written to the cache; what it raises stops the run.

        Raises:
            ConfigError: an unknown concept, or a concept file with errors.
            InputError: a concept cannot be measured on this model, or a prompt is too short.
        """
        self._seconds = {}
        chosen = chosen_concepts(concepts)
        for prompt in prompts:
            checked_prompt(self.model, prompt)  # said now, not after minutes
        results = self.measure(chosen, fence=fence)
        warnings = []
        similarity = None
        if tokens is not None and self.config.similarity:
            with self._timed("layers"):
                similarity = self.compare_layers(tokens, concepts=chosen)
        elif self.config.similarity:
            warnings.append("Layers were not compared: no text was given.")
        trajectories = [self.track_concept_evolution(prompt, chosen) for prompt in prompts]
        return TrackingReport(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            code_version=version("neuronmap"),
            model=self.model.identity.to_dict(),
            preset=self.preset,
            settings=self.config.to_dict(),
            layers=list(self.layers),
            blocks=self.model.num_layers,
            concepts=results,
            similarity=similarity,
            trajectories=trajectories,
            seconds={name: round(seconds, 2) for name, seconds in self._seconds.items()},
            warnings=warnings,
        )

    def measure(
        self, concepts: Iterable[ConceptLike] | None = None, *, fence: Callable[[], None] | None = None
    ) -> list[ConceptResult]:
        """Measure concepts at all layers, each one kept as soon as it is finished, and put them in order of complexity.

        Args:
            concepts, fence: as for :meth:`track`.
        """
        chosen = chosen_concepts(concepts)
        missing: list[tuple[Concept, ConceptData, str]] = []
        keys, reused = [], 0
        for concept in chosen:
            data = concept.generate(self.config.items, self.config.seed)
            key = concept_key(self.model, self.layers, concept.to_dict(), data.digest, self.config)
            keys.append(key)
            if key not in self._kept:
                found = read_kept(key)
                if found is None:
                    missing.append((concept, data, key))
                else:
                    self._kept[key] = found
                    reused += 1
        if reused:
            self.progress.note(f"{reused} of {len(chosen)} concepts were measured before and are reused.")
        for family in dict.fromkeys(concept.family for concept, _, _ in missing):
            self._measure_family([one for one in missing if one[0].family == family], fence)
        kept = [self._kept[key] for key in keys]
        draws = {one.result.concept["name"]: one.depths_R for one in kept}
        return ranked([one.result for one in kept], draws)

    def track_concept_evolution(self, prompt: str, concepts: Iterable[ConceptLike] | None = None) -> Trajectory:
        """Follow concepts through one prompt: calibrated log-odds for each token and layer, greyed where they say nothing.

        Args:
            prompt: a text of two tokens or more.
            concepts: as for :meth:`track`; they are measured first where they have not been.

        Returns:
            The trajectory; ``plot()`` draws it.

        Raises:
            InputError: the prompt is one token, or longer than the model takes.
        """
        chosen = chosen_concepts(concepts)
        checked_prompt(self.model, prompt)
        self.measure(chosen)
        with self._timed("prompts"):
            pairs = [(self._kept_of(concept).result, self._kept_of(concept).probes) for concept in chosen]
            return follow_prompt(self.model, prompt, pairs, self.layers, lens=self.config.lens)

    def compare_layers(
        self, tokens: TokenSet, *, other: LanguageModel | None = None, concepts: Iterable[ConceptLike] = ()
    ) -> LayerSimilarity:
        """Compare the layers with each other, or with those of another model, on one token a context.

        Args:
            tokens: text by this model's tokenizer.
            other: a second model.
            concepts: measured concepts, whose directions' spans are compared too.
        """
        chosen = chosen_concepts(concepts) if concepts else []
        directions = [self._kept_of(concept).probes.delta_LCW for concept in chosen]
        return layer_similarity(
            self.model,
            tokens,
            other=other,
            layers=self.layers,
            contexts=self.config.similarity_rows,
            directions_LKW=_span(directions) if directions and other is None else None,
            seed=self.config.seed,
            progress=self.progress,
        )

    def _kept_of(self, concept: Concept) -> KeptConcept:
        data = concept.generate(self.config.items, self.config.seed)
        key = concept_key(self.model, self.layers, concept.to_dict(), data.digest, self.config)
        if key not in self._kept:
            self.measure([concept])
        return self._kept[key]

    def _measure_family(
        self, parts: Sequence[tuple[Concept, ConceptData, str]], fence: Callable[[], None] | None
    ) -> None:
        """Read the texts of a family once, and measure each of its concepts."""
        name, data = parts[0][0].family, [one[1] for one in parts]
        with self._timed("reading"):
            readings = read_concepts(self.model, data, self.layers, title=f"Reading {name}", progress=self.progress)
        baselines: list[Reading | None] = [None] * len(parts)
        if self.config.untrained:
            with self._timed("random weights"):
                title = f"Reading {name}, random weights"
                fewer = [concept.generate(max(self.config.items // 2, 16), self.config.seed) for concept, _, _ in parts]
                baselines = [
                    *read_concepts(self._random_model(), fewer, self.layers, title=title, progress=self.progress)
                ]
        for (concept, _, key), reading, untrained in zip(parts, readings, baselines, strict=True):
            found = self._measured(concept, reading, untrained)
            if fence is not None:
                fence()
            keep(key, found)
            self._kept[key] = found

    def _measured(self, concept: Concept, reading: Reading, untrained: Reading | None) -> KeptConcept:
        with self._timed("probes"), self.progress.task(f"Measuring {concept.name}", STEPS + 1, "steps") as task:
            measured = measure_concept(
                concept,
                reading,
                self.model.num_layers,
                self.config,
                untrained=untrained,
                step=lambda: task.advance(1),
            )
            probes = probes_of(measured, self.config.seed)
            task.advance(1)
        result = measured.result
        if self.config.complexity:
            result = result.updated(complexity=self._complexity(measured))
        if self.config.causal:
            result = self._with_causal(measured, result)
        at_L = np.asarray(reading.layers, dtype=np.float64)
        return KeptConcept(result, probes, depth_draws(at_L, measured.headline.samples_RL.numpy()))

    def _with_causal(self, measured: Measured, result: ConceptResult) -> ConceptResult:
        """With the causal profile, or with the reason why there is none: what was measured before is not lost for it."""
        profile, reason = None, ""
        try:
            with self._timed("causal"):
                profile = causal_profile(
                    self.model,
                    measured,
                    layers=self.config.causal_layers,
                    directions=self.config.causal_directions,
                    seed=self.config.seed,
                    progress=self.progress,
                )
            reason = f"{_no_profile(measured, self.model)}."
        except InputError as error:
            reason = error.message
        if profile is None:
            result = result.updated(warnings=[*result.warnings, f"No causal profile: {reason}"])
        return result.updated(causal=profile)

    def _complexity(self, measured: Measured) -> Any:
        need = Interval(value=None, reason="it was not measured")
        if self.config.context_need:
            if self._both_ways is None:
                self._both_ways = reads_later_tokens(self.model)
            with self._timed("context"):
                need = context_needed(
                    self.model,
                    measured,
                    best_place(measured.result),
                    both_ways=self._both_ways,
                    seed=self.config.seed,
                    progress=self.progress,
                )
        with self._timed("complexity"):
            return complexity_of(measured, context_need=need, seed=self.config.seed)

    def _random_model(self) -> LanguageModel:
        if self._untrained is None:
            self._untrained = untrained_like(self.model, self.config.seed)
        return self._untrained

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - started


def chosen_concepts(concepts: Iterable[ConceptLike] | None) -> list[Concept]:
    """Concepts by name, family, file or as they are, each once; all built-in ones for None.

    Raises:
        ConfigError: none is given, one does not exist, or two of different content have one name.
    """
    if concepts is None:
        return list_concepts()
    wanted = [concepts] if isinstance(concepts, str | Concept) else list(concepts)
    found: dict[str, Concept] = {}
    for one in wanted:
        for concept in [one] if isinstance(one, Concept) else get_concepts(one.strip()):
            if found.setdefault(concept.name, concept).to_dict() != concept.to_dict():
                raise ConfigError(f"Two different concepts are named '{concept.name}'.", hint="Rename one of them.")
    if not found:
        raise ConfigError(
            "No concept was named.", hint=f"Concepts: {', '.join(concept.name for concept in list_concepts())}."
        )
    return list(found.values())


def _as_model(model: LanguageModel | PreTrainedModel | str, progress: Progress) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    return load_model(model, progress=progress) if isinstance(model, str) else wrap_model(model)


def _span(directions: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(directions), dim=1)


def _no_profile(measured: Measured, model: LanguageModel) -> str:
    if not model.has_lm_head:
        return f"{model.identity.name} predicts no next token"
    if measured.concept.outcome is None:
        return "the concept names no behaviour"
    return "the concept has more than two classes"
