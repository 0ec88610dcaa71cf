"""``neuronmap sae sweep``: many SAEs from one pass of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.report import number

if TYPE_CHECKING:
    from neuronmap.training import SAEConfig, SweepConfig
    from neuronmap.training.sweeping.estimate import SweepPlan
    from neuronmap.training.sweeping.summary import SweepRow

__all__ = ["sweep", "sweep_help"]

_SETTINGS = ("hook", "architecture", "features", "sparsity", "rate", "seed")
"""Columns that say what an SAE is, in the order of the tables."""


def sweep_help() -> str:
    """A whole file, and its rules, for ``--help``."""
    return "\n".join(
        [
            "**A sweep file** (TOML):",
            "",
            "    [base]                            # the same for all",
            '    model_name = "smollm2-135m"',
            '    corpus = "sotu"',
            "    layer = 15",
            "    hidden_dim = 4096",
            '    name = "sotu-{architecture}-{k}-{seed}"',
            "",
            "    [grid]                            # every combination is an SAE",
            '    architecture = ["topk", "batchtopk"]',
            "    k = [16, 32, 64]",
            "    seed = [0, 1]",
            "",
            "    [[member]]                        # further SAEs, written out",
            '    architecture = "jumprelu"',
            "    target_l0 = 32",
            '    name = "sotu-jumprelu"',
            "",
            "- Settings are those of `sae train`. `name` holds others in braces, so that no two SAEs have the same.",
            "- A setting that an architecture does not have (k for jumprelu) is left out for it; one that no SAE has is an error.",
            "- Model, text, mask, context length, batch size and device are the same for all: they share the stream. Layer, component, "
            "architecture, width, sparsity, learning rate, seed, steps and epochs may differ.",
            "- The order of the data has one seed for all: `data_seed`, else `seed` of [base]. Each SAE's settings hold it, so that "
            "`sae train` with them gives the same weights.",
        ]
    )


@command_output
def sweep(
    file: Annotated[Path | None, typer.Argument(metavar="SWEEP.toml", help="What to train; see below.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="A setting of [base] as name=value; repeat for more.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a sweep: its folder, or its name in runs/ in the home folder.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the SAEs, their parameters, memory and time; train nothing.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of SAEs with the same names.")] = False,
    evaluate: Annotated[bool, typer.Option(help="Evaluate each SAE in the model when it is finished.")] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also write the plot (explained variance over L0) here.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train many SAEs on one stream of activations; each lands in the library, evaluated.

    The language model runs once for all of them, whatever their hooks, and they take turns on each batch: memory of a step is that of
    one. Each comes out as if it had been trained alone with its settings, bit for bit on a CPU. One that diverges or has fewer steps
    leaves without disturbing the others. Ctrl-C saves all of them; **--resume** goes on bit for bit, also after a killed process.

    Examples:

        neuronmap sae sweep sweep.toml --dry-run

        neuronmap sae sweep sweep.toml --set max_tokens=2000000

        neuronmap sae sweep --resume 20260101-120000-sweep-sotu-1a2b3c
    """
    from neuronmap.errors import ConfigError
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.sweeping import plan_of_sweep, require_names_free, sweep_into_library
    from neuronmap.training import load_sweep
    from neuronmap.training.sweeping.summary import PLOT, sweep_rows

    output = Output(as_json, quiet)
    if out is not None and out.suffix.lower() != ".svg":
        raise ConfigError(f"--out {out}: the plot is written as SVG.", hint="Name a file that ends in .svg.")
    if resume is not None and (file is not None or settings or dry_run or replace or not evaluate):
        raise ConfigError(
            "--resume goes on with the sweep's own settings; a file, --set, --replace, --no-evaluate and --dry-run cannot be given."
        )
    if resume is None and file is None:
        raise ConfigError(
            "There is no sweep to train.", hint="neuronmap sae sweep sweep.toml; --help shows such a file."
        )
    config = None if file is None else load_sweep(file, settings or [])
    if dry_run and config is not None:
        members = config.members()
        require_names_free(SAEModelHub(), members, replace=replace)
        plan = plan_of_sweep(config, progress=output.progress())
        output.show(*_planned(members, plan))
        output.document(_plan_document(config, plan))
        return
    done = sweep_into_library(config, resume=resume, evaluate=evaluate, replace=replace, progress=output.progress())
    rows = sweep_rows(done.members())
    plot = done.folder / PLOT
    if out is not None and plot.is_file():
        out.write_bytes(plot.read_bytes())
    output.show(*_shown(rows, plot if out is None else out))
    output.document(
        {
            "schema": "neuronmap/sae.sweep/1",
            "sweep": str(done.folder),
            "plot": str(plot) if plot.is_file() else None,
            "members": [row.model_dump(mode="json") for row in rows],
            "plan": None,
        }
    )


def _planned(members: Sequence[SAEConfig], plan: SweepPlan) -> list[RenderableType]:
    columns = ["name", *_SETTINGS, "steps", "parameters"]
    rows = []
    for config, one in zip(members, plan.plans, strict=True):
        asked = {"k": config.k, "L0": config.target_l0, "penalty": config.sparsity_penalty}
        rows.append(
            [
                str(config.name),
                config.component if config.layer is None else f"{config.component} of layer {config.layer}",
                config.resolved_architecture,
                number(one.d_sae),
                ", ".join(f"{name} = {value:g}" for name, value in asked.items() if value is not None) or "as usual",
                f"{one.peak_rate:.2g}",
                str(config.seed),
                number(one.steps),
                number(one.parameter_bytes // 4),
            ]
        )
    return [*_table(columns, rows), "", *map(escape, plan.lines())]


def _table(columns: list[str], rows: list[list[str]]) -> list[RenderableType]:
    """What differs as a table, and what is the same for all in a line above it."""
    same = [at for at, name in enumerate(columns) if name in _SETTINGS and len({row[at] for row in rows}) == 1]
    shown = [at for at in range(len(columns)) if at not in same]
    heads = [columns[at] for at in shown]
    right = [name for name in heads if name not in ("name", "hook", "architecture", "sparsity", "front")]
    made = table("", heads, [[row[at] for at in shown] for row in rows], right=right, whole=["name"])
    words = ", ".join(f"{columns[at]} {rows[0][at]}" for at in same)
    return [f"The same for all: {escape(words)}.", "", made] if len(rows) > 1 and words else [made]


def _plan_document(config: SweepConfig, plan: SweepPlan) -> dict[str, Any]:
    members = [
        {"name": one.name, "config": one.to_dict(), "parameters": p.parameter_bytes // 4, "steps": p.steps}
        for one, p in zip(config.members(), plan.plans, strict=True)
    ]
    numbers = {
        "hooks": plan.hooks,
        "parameters": plan.parameters,
        "memory_bytes": plan.total_bytes,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "seconds": plan.seconds,
        "members": members,
    }
    return {"schema": "neuronmap/sae.sweep/1", "sweep": None, "plot": None, "members": [], "plan": numbers}


def _shown(rows: Sequence[SweepRow], plot: Path) -> list[RenderableType]:
    columns = ["name", *_SETTINGS, "L0", "expl. var.", "CE score", "dead", "front"]
    cells = [
        [
            row.name,
            row.hook,
            row.architecture,
            number(row.features),
            row.sparsity,
            "-" if row.learning_rate is None else f"{row.learning_rate:.2g}",
            str(row.seed),
            *(
                ["-" if row.l0 is None else f"{row.l0:.1f}", number(row.explained_variance)]
                if row.status == "finished"
                else [row.status, "-"]
            ),
            number(row.ce_score),
            number(row.dead),
            "front" if row.front else "",
        ]
        for row in rows
    ]
    parts: list[RenderableType] = [*_table(columns, cells), ""]
    parts.append("front: no other SAE of the hook explains as much with an L0 as low. Held-out text.")
    parts += [f"{escape(row.name)}: {escape(row.error)}" for row in rows if row.error]
    if plot.is_file():
        parts.append(f"Plot: {escape(str(plot))}")
    parts.append("Compare them: neuronmap sae leaderboard. One of them: neuronmap sae show NAME.")
    return parts
