"""Two SAEs against each other: a finished comparison where there is one, else what a glance at the decoders says."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from neuronmap.errors import NeuronMapError
from neuronmap.hub import LibraryEntry
from neuronmap.hub.analyses import pick_analysis
from neuronmap.web.explorer import Explorer
from neuronmap.web.views.names import feature_names
from neuronmap.web.views.neighbours import cosines, decoder_rows
from neuronmap.web.views.saes import SAELine, sae_line

__all__ = ["Comparison", "Glance", "Match", "TwoSAEs", "two_saes"]

GLANCE_FEATURES = 256
"""Features of the first SAE that a glance looks at, evenly spread over their numbers."""
MOST_WEIGHTS = 20_000_000
"""Numbers in a decoder up to which it is read for a glance: 80 MB."""
LEVELS = (0.5, 0.7, 0.9)
_LISTED = 50


class Glance(BaseModel):
    """Best decoder cosines of some features of the first SAE among all of the second."""

    looked_at: int
    of: int
    median: float
    at_least: dict[str, float] = Field(description="Share of them whose best match has this cosine or more.")


class Match(BaseModel):
    """Two features that are each other's best match."""

    a: int
    label_a: str
    b: int
    label_b: str
    similarity: float


class Measure(BaseModel):
    """What was found by one measure."""

    name: str = Field(description="decoder or activation.")
    measure: str
    threshold: float
    chance: float = Field(description="Threshold that chance reaches at the stated rate.")
    false_match_rate: float
    counts: dict[str, float]
    shared: list[Match] = Field(description="The most similar mutual best matches.")
    unique_a: list[int] = Field(description="First features of the first SAE without a match.")
    unique_b: list[int]


class Comparison(BaseModel):
    """A finished comparison."""

    job: str
    finished: str
    measures: list[Measure]
    notes: list[str]
    rows: dict[str, Any] = Field(description="On how much text firing was compared; empty for the decoders alone.")
    stale: str = Field(description="Why it may not be of the SAEs of today; empty if there is no reason.")


class TwoSAEs(BaseModel):
    """Two SAEs side by side."""

    saes: list[str]
    a: SAELine | None
    b: SAELine | None
    comparison: Comparison | None
    running: str = Field(description="Job that compares them now; empty if there is none.")
    glance: Glance | None
    note: str = Field(description="Why there is no glance, or what a reader of it must know.")


def two_saes(explorer: Explorer, a: str, b: str) -> TwoSAEs:
    """Two SAEs; empty names mean: choose them.

    Raises:
        NotInLibraryError: there is no such SAE.
    """
    entries = [entry for entry in explorer.entries() if not entry.problem]
    found = TwoSAEs(
        saes=[entry.id for entry in entries], a=None, b=None, comparison=None, running="", glance=None, note=""
    )
    one = explorer.entry(a) if a else None
    other = explorer.entry(b) if b else None
    found.a = sae_line(explorer, one) if one else None
    found.b = sae_line(explorer, other) if other else None
    if one is None or other is None:
        return found
    if one.problem or other.problem:
        found.note = f"{(one if one.problem else other).id} cannot be used: {one.problem or other.problem}"
    elif one.id == other.id:
        found.note = "This is one SAE twice. Choose two."
    else:
        found.comparison, found.running = _compared(explorer, one, other)
        found.glance, found.note = _glance(one, other)
    return found


def _compared(explorer: Explorer, one: LibraryEntry, other: LibraryEntry) -> tuple[Comparison | None, str]:
    """The newest finished comparison of the two, and the job under way."""
    running = ""
    for job in explorer.jobs.list(kind="compare", limit=200):
        if (job.args.get("a"), job.args.get("b")) != (one.id, other.id):
            continue
        if job.state in ("queued", "running"):
            running = running or job.id
        if job.state == "finished" and job.result and "comparison" in job.result:
            return _comparison(explorer, one, other, job), running
    return None, running


def _comparison(explorer: Explorer, one: LibraryEntry, other: LibraryEntry, job: Any) -> Comparison:
    content = job.result["comparison"]
    newer = [entry.id for entry in (one, other) if (entry.created or "") > (job.finished or "")]
    return Comparison(
        job=job.id,
        finished=job.finished or "",
        measures=[_measure(explorer, one, other, by, values) for by, values in content["measures"].items()],
        notes=content["notes"],
        rows=content["rows"],
        stale=f"{' and '.join(newer)} was made after this comparison." if newer else "",
    )


def _measure(explorer: Explorer, one: LibraryEntry, other: LibraryEntry, by: str, values: dict[str, Any]) -> Measure:
    best = sorted(values["shared"], key=lambda pair: -pair[2])[:_LISTED]
    labels_a = _labels(explorer, one, [pair[0] for pair in best])
    labels_b = _labels(explorer, other, [pair[1] for pair in best])
    return Measure(
        name=by,
        measure=values["measure"],
        threshold=values["threshold"],
        chance=values["null"]["threshold"],
        false_match_rate=values["null"]["false_match_rate"],
        counts=values["counts"],
        shared=[
            Match(a=pair[0], label_a=labels_a[pair[0]], b=pair[1], label_b=labels_b[pair[1]], similarity=pair[2])
            for pair in best
        ],
        unique_a=values["unique_a"][:_LISTED],
        unique_b=values["unique_b"][:_LISTED],
    )


def _labels(explorer: Explorer, entry: LibraryEntry, features: list[int]) -> dict[int, str]:
    """Labels where the SAE has an analysis; empty texts where it has none."""
    try:
        pick_analysis(entry, None)
        store = explorer.analysed(entry.id).store
        return {name.feature: name.label for name in feature_names(store, features)}
    except NeuronMapError:
        return dict.fromkeys(features, "")


def _glance(one: LibraryEntry, other: LibraryEntry) -> tuple[Glance | None, str]:
    if one.d_in != other.d_in:
        return (
            None,
            f"Their decoders have different widths ({one.d_in:,} and {other.d_in:,}): only firing on a text can be compared.",
        )
    if max(one.d_sae, other.d_sae) * one.d_in > MOST_WEIGHTS:
        return None, "Their decoders are too large for a glance; the comparison below looks at all of both."
    note = ""
    if (one.model, one.hook) != (other.model, other.hook):
        note = "They read different places of a model: directions there need not mean the same."
    chosen = np.unique(np.linspace(0, one.d_sae - 1, min(GLANCE_FEATURES, one.d_sae)).astype(int)).tolist()
    best = cosines(decoder_rows(one, chosen), decoder_rows(other, range(other.d_sae))).max(axis=1)
    shares = {f"{level:g}": float((best >= level).mean()) for level in LEVELS}
    return Glance(looked_at=len(chosen), of=one.d_sae, median=float(np.median(best)), at_least=shares), note
