"""The SAEs of a sweep as they are watched: what each is, how far it came, and what it found."""

from __future__ import annotations

from pydantic import BaseModel, Field

from neuronmap.errors import InputError
from neuronmap.training.sweeping.record import SweepRun
from neuronmap.training.sweeping.summary import sweep_rows

__all__ = ["SweepMember", "sweep_table"]


class SweepMember(BaseModel):
    """One SAE of a sweep."""

    name: str
    status: str = Field(description="waiting, preparing, training, interrupted, diverged or finished.")
    sae: str | None = Field(description="Id in the library; null before it is there.")
    hook: str
    architecture: str
    features: int | None
    sparsity: str = Field(description="What its sparsity is asked for by: k, a penalty, or a target.")
    learning_rate: float | None
    seed: int
    step: int
    steps: int | None
    l0: float | None = Field(description="On held-out text once it is finished, in the last batch before.")
    explained_variance: float | None = Field(description="As l0.")
    ce_score: float | None
    dead: int | None
    front: bool = Field(description="No other finished SAE of this hook explains as much with an L0 as low.")
    error: str


def sweep_table(run: str) -> list[SweepMember]:
    """The members of a sweep, in its order; none before it has begun, or when its folder was removed.

    Args:
        run: name of its folder.
    """
    try:
        members = SweepRun.open(run).members()
    except InputError:
        return []
    return [SweepMember(**row.model_dump(exclude={"run"})) for row in sweep_rows(members)]
