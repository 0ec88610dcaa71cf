"""What a sweep found: a table of its SAEs, and which of them no other beats. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from neuronmap.paths import write_bytes
from neuronmap.training.config import DEFAULT_K
from neuronmap.training.sweeping.drawing import Point, pareto_svg
from neuronmap.training.sweeping.record import MemberRecord, SweepRun

__all__ = ["PLOT", "SweepRow", "draw_sweep", "sweep_rows"]

PLOT = "pareto.svg"


class SweepRow(BaseModel):
    """One SAE of a sweep."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)

    name: str
    """What it is called."""
    status: str
    """waiting, preparing, training, interrupted, diverged or finished."""
    sae: str | None
    """Name in the library; null before it is there."""
    hook: str
    """Layer and component."""
    architecture: str
    """relu, gated, topk, batchtopk, jumprelu, matryoshka, lista, or a plug-in's."""
    features: int | None
    """Number of features; null before the width of the activation is known."""
    sparsity: str
    """What its sparsity is asked for by: k, a penalty, or a target."""
    learning_rate: float | None
    """Peak of the learning rate; null before there is a plan."""
    seed: int
    """Of initialisation and resampling."""
    step: int
    """Steps done."""
    steps: int | None
    """Of the whole plan."""
    l0: float | None
    """Active features per activation: on held-out text once it is finished, in the last batch before."""
    explained_variance: float | None
    """Of held-out activations once it is finished, of the last batch before."""
    ce_score: float | None
    """Share of the model's loss that is kept with the SAE in place; null where it was not evaluated."""
    dead: int | None
    """Features that were dead at the end of training, or are now."""
    front: bool
    """No other finished SAE of this hook explains as much with an L0 as low."""
    run: str
    """Folder of its training run."""
    error: str
    """Why it left, or is not in the library; empty if all went well."""


def sweep_rows(members: Sequence[MemberRecord]) -> list[SweepRow]:
    """The table, in the order of the sweep."""
    rows = [_row(member) for member in members]
    return [row.model_copy(update={"front": _unbeaten(row, rows)}) for row in rows]


def draw_sweep(sweep: SweepRun) -> str | None:
    """Draw explained variance over L0 into the sweep's folder, a panel for each hook.

    Returns:
        The file; None while no member is finished.
    """
    rows = [row for row in sweep_rows(sweep.members()) if _measured(row)]
    panels: dict[str, list[Point]] = {}
    for row in rows:
        label = f"{row.architecture}, {row.features:,} features" if row.features else row.architecture
        point = Point(label, float(row.l0 or 0.0), float(row.explained_variance or 0.0), row.name, row.front)
        panels.setdefault(row.hook, []).append(point)
    if not panels:
        return None
    file = sweep.folder / PLOT
    write_bytes(file, pareto_svg(panels).encode())
    return str(file)


def _row(member: MemberRecord) -> SweepRow:
    config, metrics, figures = member.config, member.metrics, member.figures
    hook = config.component if config.layer is None else f"{config.component} of layer {config.layer}"
    done = member.status == "finished"
    dead = metrics.get("dead_in_training") if done else figures.get("dead")
    return SweepRow(
        name=member.name,
        status=member.status,
        sae=member.sae,
        hook=hook,
        architecture=config.resolved_architecture,
        features=config.hidden_dim or member.plan.get("d_sae"),
        sparsity=_sparsity(member),
        learning_rate=config.learning_rate or member.plan.get("peak_rate"),
        seed=config.seed,
        step=member.step,
        steps=member.steps,
        l0=metrics.get("l0") if done else figures.get("l0"),
        explained_variance=metrics.get("explained_variance") if done else figures.get("explained_variance"),
        ce_score=metrics.get("ce_score_mean"),
        dead=None if dead is None else int(dead),
        front=False,
        run=str(member.run.folder),
        error=member.error,
    )


def _sparsity(member: MemberRecord) -> str:
    from neuronmap.saes.registry import get_options

    config = member.config
    if "k" in get_options(config.resolved_architecture).model_fields:
        return f"k = {config.k or DEFAULT_K}"
    if config.target_l0 is not None:
        return f"L0 = {config.target_l0:g}"
    return f"penalty {config.sparsity_penalty:g}" if config.sparsity_penalty is not None else "as usual"


def _measured(row: SweepRow) -> bool:
    return row.status == "finished" and row.l0 is not None and row.explained_variance is not None


def _unbeaten(row: SweepRow, rows: Iterable[SweepRow]) -> bool:
    if not _measured(row):
        return False
    l0, explained = row.l0 or 0.0, row.explained_variance or 0.0
    for other in rows:
        if other is row or not _measured(other) or other.hook != row.hook:
            continue
        theirs = (other.l0 or 0.0, other.explained_variance or 0.0)
        if theirs[0] <= l0 and theirs[1] >= explained and theirs != (l0, explained):
            return False
    return True
