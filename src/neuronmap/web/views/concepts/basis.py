"""On what the numbers of a report rest: model, data, seed, date."""

from __future__ import annotations

from pydantic import BaseModel, Field

from neuronmap.web.reports import OpenReport

__all__ = ["DataBasis", "ReportBasis"]


class DataBasis(BaseModel):
    """The items of one concept."""

    concept: str
    title: str
    items: int
    dataset_digest: str = Field(description="Digest of the items.")


class ReportBasis(BaseModel):
    """Where the numbers beside it come from."""

    report: str = Field(description="Name of the report.")
    model: str
    revision: str | None = Field(description="Revision of a hub model.")
    model_digest: str = Field(description="Digest of configuration and weights.")
    architecture: str
    dtype: str
    blocks: int
    width: int | None
    layers: list[int] = Field(description="Layers that were measured, 0 (embedding) to the number of blocks.")
    preset: str
    seed: int | None
    created: str = Field(description="ISO 8601, UTC.")
    code_version: str = Field(description="Version of NeuronMap.")
    text: str = Field(description="Text on which layers were compared; empty if they were not.")
    data: list[DataBasis] = Field(description="Items of each concept.")
    prompts: list[str] = Field(description="Texts that were followed.")
    has_layers: bool = Field(description="Whether layers were compared.")
    has_flow: bool = Field(description="Whether features were followed.")

    @classmethod
    def of(cls, found: OpenReport) -> ReportBasis:
        """Of an open report."""
        report, model = found.report, found.report.model
        width, similarity = model.get("hidden_size"), report.similarity or report.between
        return cls(
            report=found.name,
            model=str(model.get("name") or ""),
            revision=model.get("revision"),
            model_digest=str(model.get("model_digest") or ""),
            architecture=str(model.get("architecture") or ""),
            dtype=str(model.get("dtype") or ""),
            blocks=report.blocks,
            width=int(width) if width is not None else None,
            layers=report.layers,
            preset=report.preset,
            seed=report.settings.get("seed"),
            created=report.created,
            code_version=report.code_version,
            text=f"{similarity.rows:,} tokens of {similarity.text}" if similarity is not None else "",
            data=[
                DataBasis(
                    concept=str(one.concept["name"]),
                    title=str(one.concept["title"]),
                    items=one.items,
                    dataset_digest=one.dataset_digest,
                )
                for one in report.concepts
            ],
            prompts=[one.prompt for one in report.trajectories],
            has_layers=similarity is not None,
            has_flow=report.flow is not None,
        )

    def only(self, concept: str) -> list[DataBasis]:
        """The items of one concept."""
        return [one for one in self.data if one.concept == concept]
