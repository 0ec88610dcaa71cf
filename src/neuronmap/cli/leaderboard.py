"""``neuronmap sae leaderboard``: SAEs of one model and hook side by side, and why others are not among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.report import number

if TYPE_CHECKING:
    from neuronmap.hub.leaderboard_record import Leaderboard, RankedSAE, RefusedGroup, StoredFigure

__all__ = ["leaderboard"]

_COMMANDS_SHOWN = 4
_OTHERS_SHOWN = 8
_LONGEST_HEAD = 10


@command_output
def leaderboard(
    suite: Annotated[
        str, typer.Option("--suite", help="core, probing, absorption, structure or stability: one a leaderboard.")
    ] = "core",
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only SAEs of this language model.")] = None,
    layer: Annotated[int | None, typer.Option("--layer", "-l", help="Only this block, counted from 0.")] = None,
    hook: Annotated[str | None, typer.Option(help="Only this component (residual, mlp, ...) or exact hook.")] = None,
    architecture: Annotated[str | None, typer.Option("--architecture", "-a", help="Only this architecture.")] = None,
    features: Annotated[
        str | None, typer.Option("--features", "-f", metavar="LOW:HIGH", help="Only so many features; or one number.")
    ] = None,
    l0: Annotated[
        str | None, typer.Option("--l0", metavar="LOW:HIGH", help="Only SAEs with this measured L0; 20:, :40.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only SAEs with this tag; repeat for more.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A column; repeat for more. The chief ones if left out.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="A column, best first; or l0, features, name. The first column if left out."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Show the evaluations with this comparison key, not the largest group."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Also write the table, with intervals.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare SAEs of one model and hook by the evaluations that are stored with them.

    Only figures that may be compared stand in one table: of the same model, hook, text, mask, number of tokens, ablations and
    version. What was measured otherwise is left out, with what differs and the commands that would make it comparable. Ranks
    are shared where 95 % intervals overlap; a star marks the front: SAEs that no other beats at an L0 as low.

    An SAE stands in the table once. Below it stands the file that its figures are from, and what others there are of it (on another
    text, with other tokens, by another version), each with the **--group** that shows it.

    Examples:

        neuronmap sae leaderboard --model smollm2-135m --layer 15

        neuronmap sae leaderboard --l0 20:40 --sort ce_score_mean --out table.csv

        neuronmap sae leaderboard --suite probing --metric auc_k1 --metric auc_k16
    """
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.leaderboard import leaderboard as compare

    output = Output(as_json, quiet)
    _require_csv(out)
    hub = SAEModelHub()
    board = compare(
        hub,
        suite=suite,
        model=model,
        layer=layer,
        hook=hook,
        architecture=architecture,
        features=features,
        l0=l0,
        tag=tag or (),
        metrics=metric or (),
        sort=sort,
        group=group,
    )
    output.show(*_shown(board))
    if out is not None:
        _write_csv(board, out)
        output.show(f"Written: {out}")
    output.document({"schema": "neuronmap/sae.leaderboard/1", "library": str(hub.root), "leaderboard": board.to_dict()})


def _require_csv(out: Path | None) -> None:
    from neuronmap.errors import ConfigError

    if out is not None and out.suffix.lower() != ".csv":
        raise ConfigError(f"--out {out}: the table is written as CSV.", hint="Name a file that ends in .csv.")


def _shown(board: Leaderboard) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if board.rows:
        parts.append(
            f"[bold]{escape(board.model)} at {escape(board.hook)}[/], suite {board.suite}, sorted by {board.sort}"
        )
        names = [one.name for one in board.metrics]
        heads = [_head(name) for name in names]
        columns = ["rank", "name", "features", "L0", *heads]
        rows = [_cells(row, names) for row in board.rows]
        parts += ["", table("", columns, rows, right=["rank", "features", "L0", *heads], whole=columns[:4]), ""]
        parts.append("95 % intervals in brackets; - is not established or not measured, never 0.")
        if board.front_metric:
            parts.append(f"* (front): no other SAE has {board.front_metric} as good at an L0 as low.")
        parts += [escape(note) for note in board.notes]
        parts += ["", "[bold]What all of these figures share[/]"]
        parts.append(table("", ["", ""], [[line.title, line.value] for line in board.protocol]))
        parts += ["", "[bold]Files of these figures[/], in each bundle's evaluations"]
        parts += [f"  {escape(row.sae)}: {escape(_file(row.file))}{_beside(row)}" for row in board.rows]
        parts += _others(board)
    else:
        parts += ["No SAE that fits these conditions has an evaluation of this suite.", *map(escape, board.notes)]
    for left in board.left_out:
        parts += ["", *_refused(left, board.suite)]
    if board.not_measured:
        parts += ["", f"[bold]Not measured by the suite {board.suite}[/]"]
        parts += [f"  {escape(one.command)}" for one in board.not_measured[:_COMMANDS_SHOWN]]
        parts += _more(len(board.not_measured))
    return parts


def _cells(row: RankedSAE, names: list[str]) -> list[str]:
    rank = ("-" if row.rank is None else f"{row.rank}{'=' if row.shared else ''}") + (" *" if row.on_front else "  ")
    figures = [_cell(row.figures[name]) for name in names]
    return [rank, f"{row.sae}\n{row.architecture}", number(row.features), number(row.l0.value, 1), *figures]


def _head(name: str) -> str:
    """A long name over two lines, broken at the underscore that is nearest to its middle."""
    places = [place + 1 for place, sign in enumerate(name) if sign == "_"]
    if len(name) <= _LONGEST_HEAD or not places:
        return name
    place = min(places, key=lambda place: abs(2 * place - len(name)))
    return f"{name[:place]}\n{name[place:]}"


def _beside(row: RankedSAE) -> str:
    return f" (and {len(row.others)} more, below)" if row.others else ""


def _file(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".json")


def _others(board: Leaderboard) -> list[RenderableType]:
    """Evaluations of the SAEs in the table that are not in it, and how to see them."""
    lines = [(row.sae, one) for row in board.rows for one in row.others]
    if not lines:
        return []
    shown = [f"  {escape(sae)}: {escape(_file(one.file))}, {escape(one.said)}" for sae, one in lines[:_OTHERS_SHOWN]]
    more = [f"    and {len(lines) - _OTHERS_SHOWN} more; --json has all"] if len(lines) > _OTHERS_SHOWN else []
    keys = dict.fromkeys(one.key for _, one in lines if one.key != board.key)
    return [
        "",
        "[bold]Other evaluations of these SAEs[/] (each stands above once, with the newest that was measured alike)",
        *shown,
        *more,
        *(f"  To see them: {_command(board.suite, key)}" for key in list(keys)[:_COMMANDS_SHOWN]),
    ]


def _command(suite: str, key: str) -> str:
    return f"neuronmap sae leaderboard{'' if suite == 'core' else f' --suite {suite}'} --group {key}"


def _cell(figure: StoredFigure) -> str:
    if not figure.has_interval:
        return number(figure.value)
    return f"{number(figure.value)}\n[{number(figure.low)}, {number(figure.high)}]"


def _refused(left: RefusedGroup, suite: str) -> list[RenderableType]:
    shown = ", ".join(left.saes[:6]) + (", ..." if len(left.saes) > 6 else "")
    parts: list[RenderableType] = [
        f"[bold]Left out:[/] {escape(shown)}",
        f"  {escape(left.said)}",
        f"  {escape(left.remedy)}",
        *(f"    {escape(command)}" for command in left.commands[:_COMMANDS_SHOWN]),
        *_more(len(left.commands)),
    ]
    return [*parts, f"  To see them: {_command(suite, left.key)}"]


def _more(count: int) -> list[RenderableType]:
    return [f"    and {count - _COMMANDS_SHOWN} more; --json has all"] if count > _COMMANDS_SHOWN else []


def _write_csv(board: Leaderboard, file: Path) -> None:
    import csv

    from neuronmap.hub.leaderboard_record import table_rows

    columns, rows = table_rows(board)
    with open(file, "w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
