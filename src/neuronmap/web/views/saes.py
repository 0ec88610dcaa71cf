"""SAEs of the library: one line each, and everything of one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from neuronmap.hub import AnalysisEntry, LibraryEntry
from neuronmap.paths import public_name
from neuronmap.web.explorer import Explorer

__all__ = ["AnalysisLine", "SAELine", "analysis_line", "sae_line", "sae_lines"]


class AnalysisLine(BaseModel):
    """One analysis of an SAE."""

    name: str
    corpus: str
    tokens: int
    features: int
    created: str
    size_bytes: int
    problem: str = ""


class SAELine(BaseModel):
    """One SAE of the library."""

    id: str
    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    model: str
    layer: int | None
    component: str | None
    hook: str | None
    tags: list[str]
    created: str
    size_bytes: int
    weights_digest: str
    metrics: dict[str, float] = Field(description="Figures of the evaluation, by name.")
    analyses: list[AnalysisLine] = Field(description="Sound analyses, the newest first.")
    problem: str = Field(description="Why it cannot be used; empty for sound ones.")


def analysis_line(one: AnalysisEntry) -> AnalysisLine:
    """An analysis without its path on this machine."""
    return AnalysisLine(
        name=one.name,
        corpus=public_name(one.corpus),
        tokens=one.tokens,
        features=one.features,
        created=one.created,
        size_bytes=one.size_bytes,
        problem=one.problem,
    )


def sae_line(explorer: Explorer, entry: LibraryEntry) -> SAELine:
    """An entry of the library without its path on this machine."""
    finite: dict[str, Any] = {name: value for name, value in entry.metrics.items() if value == value}
    return SAELine(
        id=entry.id,
        architecture=entry.architecture,
        d_in=entry.d_in,
        d_sae=entry.d_sae,
        k=entry.k,
        model=public_name(entry.model),
        layer=entry.layer,
        component=entry.component,
        hook=entry.hook,
        tags=list(entry.tags),
        created=entry.created or "",
        size_bytes=entry.size_bytes,
        weights_digest=entry.weights_digest or "",
        metrics=finite,
        analyses=[] if entry.problem else [analysis_line(one) for one in explorer.analyses(entry)],
        problem=entry.problem.replace(str(entry.path), entry.id),
    )


def sae_lines(explorer: Explorer) -> list[SAELine]:
    """All SAEs, the newest first."""
    return [sae_line(explorer, entry) for entry in explorer.entries()]
