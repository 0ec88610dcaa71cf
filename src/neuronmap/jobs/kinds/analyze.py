"""``analyze``: every feature of SAEs in one pass, into their feature stores. The call of ``neuronmap sae analyze``.

Cancel and resume: a stop saves the pass where it is, in the cache; the next attempt continues there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError
from neuronmap.features.config import AnalysisConfig
from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds.kind import Kind, Needs, usable
from neuronmap.jobs.kinds.memory import PROCESS_BYTES, analysis_bytes, model_bytes, sae_bytes
from neuronmap.jobs.machine import resolve_device

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Analyze", "AnalyzeArgs", "absolute"]


class AnalyzeArgs(FrozenConfig):
    """What to analyse. ``text`` and ``model`` may be paths."""

    saes: tuple[str, ...] = Field(min_length=1)
    """Names in the library; several of one language model share one pass."""
    text: str | None = None
    """Corpus name, file or folder; what the first SAE was trained on when left out."""
    tokens: int | None = Field(default=None, ge=1)
    """Most tokens of it; all that training read when left out."""
    model: str | None = None
    """Language model, if not the one the SAEs were trained on."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps; as in training when left out."""
    dtype: str | None = None
    """Number format of the language model; as in training when left out."""
    force: bool = False
    """Go on although model, revision or tokenizer differ."""
    settings: AnalysisConfig = Field(default_factory=AnalysisConfig)
    """What the pass keeps of each feature."""
    lens: bool = True
    """Direct logits: what each feature promotes."""
    feature_map: bool = True
    """Two-dimensional map with clusters; left out, with a note, where umap-learn is not installed."""
    hints: bool = True
    """Labels by rules, each with measured precision and recall."""
    replace: bool = False
    """Make it anew although this analysis is there."""


class Analyze(Kind[AnalyzeArgs]):
    """Analyses SAEs of one language model."""

    name = "analyze"
    args = AnalyzeArgs

    def checked(self, args: AnalyzeArgs, hub: SAEModelHub) -> AnalyzeArgs:
        entries = [usable(hub, name) for name in args.saes]
        if len({entry.id for entry in entries}) < len(entries):
            raise ConfigError(f"An SAE is named twice: {', '.join(entry.id for entry in entries)}.")
        if len({entry.model for entry in entries}) > 1:
            raise ConfigError(
                "SAEs of different language models cannot share a pass: "
                f"{', '.join(f'{entry.id} ({entry.model})' for entry in entries)}.",
                hint="Submit one job for each model.",
            )
        return args.updated(
            saes=tuple(entry.id for entry in entries), text=absolute(args.text), model=absolute(args.model)
        )

    def title(self, args: AnalyzeArgs) -> str:
        return f"analysing {', '.join(args.saes)}"

    def needs(self, args: AnalyzeArgs, hub: SAEModelHub) -> Needs:
        entries = [hub.get(name) for name in args.saes]
        device = args.device or (entries[0].training or {}).get("device")
        features = sum(sae_bytes(entry) + analysis_bytes(entry) for entry in entries)
        return Needs(resolve_device(device), PROCESS_BYTES + model_bytes(args.model or entries[0].model) + features)

    def run(self, args: AnalyzeArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.hub.analyzing import AnalysisRequest, analyze_into_library

        given = {name: getattr(args, name) for name in AnalyzeArgs.model_fields if name not in ("saes", "settings")}
        request = AnalysisRequest(config=args.settings, **given)
        made = analyze_into_library(args.saes, request, hub=context.hub, progress=context.progress)
        return {
            "analyses": [{"sae": name, "analysis": store.name} for name, store in zip(args.saes, made, strict=True)]
        }


def absolute(name: str | None) -> str | None:
    """A name that is a path here as an absolute one: the job's process has another working directory."""
    return str(Path(name).resolve()) if name is not None and Path(name).exists() else name
