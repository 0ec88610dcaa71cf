"""The reports of this machine, one line each."""

from __future__ import annotations

from pydantic import BaseModel, Field

from neuronmap.hub.reports import list_reports, reports_folder
from neuronmap.paths import public_name
from neuronmap.web.views.concepts.words import VERDICTS

__all__ = ["ReportLine", "report_lines"]


class ReportLine(BaseModel):
    """One report."""

    name: str
    model: str
    created: str = Field(description="ISO 8601, UTC.")
    preset: str = Field(description="quick, full or custom.")
    concepts: list[str]
    verdicts: dict[str, int] = Field(description="How many concepts have each verdict.")
    prompts: int = Field(description="How many texts were followed.")
    flow: bool = Field(description="Whether features were followed.")
    problem: str = Field(description="Why it cannot be read; empty for sound ones.")


def report_lines() -> list[ReportLine]:
    """All reports, the newest first; damaged ones last."""
    folder, order = str(reports_folder()), {str(name): at for at, name in enumerate(VERDICTS)}
    return [
        ReportLine(
            name=one.name,
            model=public_name(one.model),
            created=one.created,
            preset=one.preset,
            concepts=list(one.concepts),
            verdicts=dict(sorted(one.verdicts.items(), key=lambda pair: order.get(pair[0], len(order)))),
            prompts=one.prompts,
            flow=one.flow,
            problem=one.problem.replace(folder, "<reports>"),
        )
        for one in list_reports()
    ]
