"""Layers by layers, and tokens by layers, as tables of shaded figures: what a heat map shows, to be read without scripts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from neuronmap.abstraction.record import Matrix

__all__ = ["MOST_LAYERS", "evenly", "matrix_table", "shade"]

MOST_LAYERS = 33
"""Rows and columns of a table; of more layers every second, third, ... is shown, and the rest is in the CSV."""


def evenly(count: int, most: int = MOST_LAYERS) -> list[int]:
    """Places from 0 to ``count - 1``, evenly spread, the last among them."""
    if count <= most:
        return list(range(count))
    step = -(-(count - 1) // (most - 1))
    found = list(range(0, count, step))
    return found if found[-1] == count - 1 else [*found, count - 1]


def shade(value: float | None, middle: float = 0.0, most: float = 1.0) -> str:
    """Class of a cell: orange above the middle, blue below, 20 steps to ``most`` away from it."""
    if value is None:
        return ""
    level = min(20, round(20 * abs(value - middle) / (most or 1.0)))
    return f"{'a' if value >= middle else 'n'}{level}" if level else ""


def matrix_table(
    rows: Sequence[int],
    columns: Sequence[int],
    values: Matrix,
    label: str,
    *,
    corner: str = "layer",
    middle: float = 0.0,
    most: float = 1.0,
) -> Markup:
    """A matrix as a table.

    Args:
        rows, columns: layers.
        values: one row a layer.
        label: what it shows.
        corner: what stands above the names of the rows.
        middle: value without shade.
        most: distance from it in full shade.
    """
    down, across = evenly(len(rows)), evenly(len(columns))
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(columns[at]) for at in across)
    lines = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>\n').format(
            rows[row], Markup("").join(_cell(values[row][at], middle, most) for at in across)
        )
        for row in down
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{0}"><table class="heat dense"><caption class="hidden">{0}</caption>'
        '<thead><tr><th scope="col">{1}</th>{2}</tr></thead><tbody>{3}</tbody></table></div>'
    ).format(label, corner, head, lines)


def _cell(value: float | None, middle: float, most: float) -> Markup:
    if value is None:
        return Markup("<td></td>")
    shown = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"
    kind = shade(value, middle, most)
    return Markup('<td class="{}">{}</td>').format(kind, shown) if kind else Markup("<td>{}</td>").format(shown)
