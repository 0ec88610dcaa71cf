"""The record of the quality sheet: finished runs of one machine or several, and the cells that follow from them.

    {"benchmark": "quality-sheet", "date", "grid": {widths, l0s, seeds}, "budget": {steps, batch_rows}, "data", "protocol",
     "machines": {name: facts and reference figures}, "runs": [...]}

Only runs are stored. Cells are worked out when they are shown, so records can be put together: runs with the same key (everything that
decides a figure but the code, the device and the last bits of the rows) are one run, and the one finished last counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from neuronmap.errors import MismatchError
from quality_cells import ARCHITECTURES, LIBRARIES, PILOT_L0, PILOT_SEED, Cell, base_variant, ordered_cells, variants
from quality_queue import best_variant, settled

_SAME = ("budget", "protocol")
_DATA = ("model", "model_digest", "hook", "corpus", "context", "tokens", "mask", "rows", "held")


@dataclass(frozen=True)
class Place:
    """One place of the sheet over seeds.

    Attributes:
        library, architecture, variant, features, l0: as of a cell.
        values: by figure (``l0`` among them), one for each seed that has it.
        seeds: those that are finished.
        wanted: seeds asked for.
        hows: how each seed reached the L0.
        around: the lowest and highest L0 of the runs between which figures were interpolated; None where all were measured.
    """

    library: str
    architecture: str
    variant: str
    features: int
    l0: int
    values: dict[str, list[float]]
    seeds: tuple[int, ...]
    wanted: int
    hows: tuple[str, ...]
    around: tuple[float, float] | None = None

    @property
    def empty(self) -> bool:
        return not self.seeds

    @property
    def fair(self) -> bool:
        """Whether every seed was measured at the L0, or between runs on both sides of it."""
        return not self.empty and "nearest" not in self.hows

    def mean(self, name: str) -> float | None:
        found = self.values.get(name, [])
        return statistics.fmean(found) if found else None

    def span(self, name: str) -> tuple[float, float] | None:
        """Lowest and highest seed."""
        found = self.values.get(name, [])
        return (min(found), max(found)) if found else None


def place(record: dict[str, Any], library: str, architecture: str, variant: str, features: int, l0: int) -> Place:
    """One place of the sheet from the runs that there are."""
    values: dict[str, list[float]] = {}
    seeds, hows, around = [], [], []
    for seed in record["grid"]["seeds"]:
        at = settled(Cell(library, architecture, variant, features, l0, seed), record["runs"])
        if at is None:
            continue
        seeds.append(seed)
        hows.append(at.how)
        around += at.l0 if at.how == "interpolated" else ()
        for name, value in {**at.figures, "l0": statistics.fmean(at.l0)}.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    wanted = len(record["grid"]["seeds"])
    span = (min(around), max(around)) if around else None
    return Place(library, architecture, variant, features, l0, values, tuple(seeds), wanted, tuple(hows), span)


def best_place(record: dict[str, Any], library: str, architecture: str, features: int, l0: int) -> Place:
    """The place of a library's best settings: of those that were run at this L0 on the first seed, else those of the pilots.

    Settings that win at the pilots' L0 by a hair may be far behind at another; whoever ran both there is shown with the better.
    """
    at = tried(record, library, architecture, features, l0)
    found = {name: one.mean("explained_variance") for name, one in at.items() if one.fair}
    known = {name: value for name, value in found.items() if value is not None}
    best = max(known, key=lambda name: known[name]) if known else best_of(record, library, architecture, features)
    return place(record, library, architecture, best, features, l0)


def best_of(record: dict[str, Any], library: str, architecture: str, features: int) -> str:
    """The settings that did best in the pilots of a width, by the runs of a record."""
    return best_variant(library, architecture, features, record["runs"])


def default_place(record: dict[str, Any], library: str, architecture: str, features: int, l0: int) -> Place:
    """The place of a library's own defaults."""
    return place(record, library, architecture, "default", features, l0)


def tried(record: dict[str, Any], library: str, architecture: str, features: int, l0: int) -> dict[str, Place]:
    """The places of all settings at an L0, on the first seed alone."""
    one = {**record, "grid": {**record["grid"], "seeds": [PILOT_SEED]}}
    names = variants(library, architecture)
    return {variant: place(one, library, architecture, variant, features, l0) for variant in names}


def pilots(record: dict[str, Any], library: str, architecture: str, features: int) -> dict[str, Place]:
    """The places of all settings that are tried in the pilots."""
    return tried(record, library, architecture, features, PILOT_L0)


def cells_of(record: dict[str, Any]) -> tuple[int, int]:
    """How many cells of the grid are finished, and how many there are, by the best settings as known now."""
    grid = record["grid"]
    cells = list(ordered_cells(grid["widths"], grid["l0s"], grid["seeds"], lambda *method: best_of(record, *method)))
    return sum(settled(cell, record["runs"]) is not None for cell in cells), len(cells)


def methods() -> list[tuple[str, str]]:
    """Architecture and library in the order of the sheet."""
    return [(architecture, library) for architecture in ARCHITECTURES for library in LIBRARIES]


def merged(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record from several, of the same budget, protocol and data.

    Raises:
        MismatchError: they are not of the same budget, protocol or data; names what differs.
    """
    first, *others = records
    for other in others:
        differ = [name for name in _SAME if first[name] != other[name]]
        differ += [f"data.{name}" for name in _DATA if first["data"][name] != other["data"][name]]
        if differ:
            raise MismatchError(
                f"Records of {first['date']} and {other['date']} differ in {', '.join(differ)}, so their cells cannot stand side by side.",
                hint="Run the missing cells with the same options.",
            )
    grid = {name: _union(record["grid"][name] for record in records) for name in ("widths", "l0s", "seeds")}
    machines: dict[str, Any] = {}
    for record in records:
        machines |= record["machines"]
    return {
        **first,
        "date": max(record["date"] for record in records),
        "grid": grid,
        "machines": machines,
        "runs": one_of_each(run for record in records for run in record["runs"]),
    }


def one_of_each(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last finished of runs with the same key, in the order of their ends."""
    found: dict[str, dict[str, Any]] = {}
    for run in sorted(runs, key=lambda run: str(run["finished"])):
        found.pop(run["key"], None)
        found[run["key"]] = run
    return list(found.values())


def _union(lists: Iterable[Sequence[int]]) -> list[int]:
    return list(dict.fromkeys(value for values in lists for value in values))


def settings_shown(
    record: dict[str, Any], library: str, architecture: str, variant: str, features: int
) -> dict[str, Any]:
    """The settings of a method as its runs were told; empty without one."""
    wanted = {"library": library, "architecture": architecture, "variant": variant, "features": features}
    for run in record["runs"]:
        if all(run["run"][name] == value for name, value in wanted.items()):
            found: dict[str, Any] = run["settings"]
            return found
    return {}


__all__ = [
    "Place", "base_variant", "best_of", "best_place", "cells_of", "default_place", "merged", "methods", "one_of_each", "pilots", "place",
    "settings_shown",
]  # fmt: skip
