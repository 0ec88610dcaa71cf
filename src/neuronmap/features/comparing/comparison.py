"""What comparing two SAEs found: tables, summary, plot, plain JSON.

Shapes: A features of the first SAE, B of the second. What shared, split, merged and unique mean is defined in
:mod:`neuronmap.features.comparing.matching`.
"""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from neuronmap.errors import InputError, MissingDependencyError
from neuronmap.features.comparing.matching import Matching
from neuronmap.features.comparing.similarity import DecoderCosine, FiringSimilarity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Group", "SAEComparison", "Side"]

By = Literal["decoder", "activation"]
Table = Literal["matches", "best_a", "best_b", "splits", "merges", "unique"]

LEVELS = (0.5, 0.7, 0.9)
"""Similarities at which shared features are counted besides the threshold."""


@dataclass(frozen=True)
class Side:
    """One of the two SAEs: what to call it, architecture, F, D, and the model and hook that it reads, where known."""

    name: str
    architecture: str
    features: int
    width: int
    model: str | None
    hook: str | None

    def __str__(self) -> str:
        place = f", {self.model} {self.hook}" if self.model and self.hook else ""
        return f"{self.name} ({self.architecture}, {self.features:,} features{place})"


@dataclass(frozen=True)
class Group:
    """One feature that is several features of the other SAE.

    Attributes:
        one: the feature.
        many: those whose best match it is, best first.
        similarity: of each of them to it.
        coverage: share of the one's firing where any of the many fires; None without rows or firings.
        precision: share of the firing of any of the many where the one fires; None likewise.
        counts: whether it counts as split (or merged): always without rows, else if the coverage is high enough.
    """

    one: int
    many: tuple[int, ...]
    similarity: tuple[float, ...]
    coverage: float | None
    precision: float | None
    counts: bool


@dataclass(frozen=True, eq=False)
class SAEComparison:
    """Two SAEs side by side; made by :func:`neuronmap.features.comparing.compare.compare_saes`.

    Attributes:
        sides: the two SAEs.
        settings: the settings of the comparison, plain JSON.
        decoder: matching by decoder cosine; None where the two have no space in common.
        activation: matching by firing; None without rows.
        primary: which of the two is meant where none is named.
        rows: how much text firing was compared on; empty without rows.
        notes: what a reader should know.
        direction: the decoder cosine itself, for pairs not listed.
        firing: the firing of both at their common places; None without rows.
    """

    sides: tuple[Side, Side]
    settings: dict[str, Any]
    decoder: Matching | None
    activation: Matching | None
    primary: By
    rows: dict[str, Any]
    notes: tuple[str, ...]
    direction: DecoderCosine | None
    firing: FiringSimilarity | None

    def matching(self, by: By | None = None) -> Matching:
        """The matching by one measure (the primary one by default).

        Raises:
            InputError: if the SAEs were not compared by it.
        """
        chosen = by or self.primary
        if chosen not in ("decoder", "activation"):
            raise InputError(f"by = {chosen!r}; decoder or activation is needed.")
        found = self.decoder if chosen == "decoder" else self.activation
        if found is None:
            why = "there were no rows" if chosen == "activation" else "they have no space in common"
            raise InputError(f"The SAEs were not compared by {chosen}: {why}.")
        return found

    def splits(self, by: By | None = None) -> list[Group]:
        """Features of the first SAE that are the best match of two or more of the second."""
        return self._groups[by or self.primary][0] if self.matching(by) else []

    def merges(self, by: By | None = None) -> list[Group]:
        """Features of the second SAE that are the best match of two or more of the first."""
        return self._groups[by or self.primary][1] if self.matching(by) else []

    def counts(self, by: By | None = None) -> dict[str, int | float]:
        """What was found, as numbers.

        Returns:
            ``compared_a``, ``compared_b``: features that could be compared. ``shared``: mutual pairs. ``one_to_one``: pairs of
            the one-to-one matching. ``split``, ``merged``: groups, and ``split_into``, ``merged_from``: features in them.
            ``unique_a``, ``unique_b``. ``shared_by_chance``: pairs that the null gives, expected. ``shared_at_0.5`` and so
            on: mutual pairs at other similarities. ``mean_best_a``, ``mean_best_b``: mean best-match similarity.
        """
        found = self.matching(by)
        splits, merges = ([group for group in groups if group.counts] for groups in (self.splits(by), self.merges(by)))
        compared = int(found.usable_A.sum())
        return {
            "compared_a": compared,
            "compared_b": int(found.usable_B.sum()),
            "shared": len(found.shared()),
            "one_to_one": int((found.pairing.partner_A >= 0).sum()),
            "split": len(splits),
            "split_into": sum(len(group.many) for group in splits),
            "merged": len(merges),
            "merged_from": sum(len(group.many) for group in merges),
            "unique_a": len(found.unique_a()),
            "unique_b": len(found.unique_b()),
            "shared_by_chance": found.chance.shared * compared,
            **{f"shared_at_{level:g}": len(found.shared(level)) for level in LEVELS},
            "mean_best_a": float(np.nanmean(found.value_A)),
            "mean_best_b": float(np.nanmean(found.value_B)),
        }

    def agreement(self) -> float | None:
        """Share of the first SAE's features, compared both ways, whose best match by decoder and by firing is the same."""
        if self.decoder is None or self.activation is None:
            return None
        both = (self.decoder.best_A >= 0) & (self.activation.best_A >= 0)
        same = (self.decoder.best_A == self.activation.best_A)[both]
        return float(same.mean()) if len(same) else None

    def to_pandas(self, table: Table = "matches", by: By | None = None) -> pd.DataFrame:
        """One of the tables.

        Args:
            table: ``matches`` (the one-to-one pairs), ``best_a`` and ``best_b`` (the best match of every feature of one
                SAE: one-to-many), ``splits``, ``merges``, or ``unique`` (features of either without a match).
            by: which measure; the primary one by default.
        """
        import pandas as pd

        builders = {
            "matches": self._pairs_table,
            "best_a": lambda found: self._best_table(found, "a"),
            "best_b": lambda found: self._best_table(found, "b"),
            "splits": lambda _: self._groups_table(self.splits(by)),
            "merges": lambda _: self._groups_table(self.merges(by)),
            "unique": self._unique_table,
        }
        if table not in builders:
            raise InputError(f"There is no table {table!r}; there are {', '.join(builders)}.")
        return pd.DataFrame(builders[table](self.matching(by)))

    def summary(self) -> str:
        """What was found, for people: one block a measure, then the notes."""
        lines = [f"{self.sides[0]} against {self.sides[1]}"]
        for by in self._measured:
            found, figures = self.matching(by), self.counts(by)
            a, b = figures["compared_a"], figures["compared_b"]
            lines += [
                "",
                f"By {found.measure}" + (" (primary)" if by == self.primary and len(self._measured) > 1 else ""),
                f"  threshold {found.threshold:.3f}; chance gives at most {found.chance.rate:.0%} of features a match of"
                f" {found.chance.threshold:.3f} or more ({found.chance.draws} draws)",
                f"  compared {a:,} of {self.sides[0].features:,} and {b:,} of {self.sides[1].features:,} features",
                f"  shared   {figures['shared']:,} pairs: {_share(figures['shared'], a)} of {self.sides[0].name},"
                f" {_share(figures['shared'], b)} of {self.sides[1].name} (by chance {figures['shared_by_chance']:,.1f})",
                "           "
                + ", ".join(f"{figures[f'shared_at_{level:g}']:,} at {level:g} or more" for level in LEVELS),
                f"  one-to-one {figures['one_to_one']:,} pairs",
                f"  split    {figures['split']:,} of {self.sides[0].name} into {figures['split_into']:,}",
                f"  merged   {figures['merged_from']:,} of {self.sides[0].name} into {figures['merged']:,}",
                f"  unique   {figures['unique_a']:,} of {self.sides[0].name} ({_share(figures['unique_a'], a)}),"
                f" {figures['unique_b']:,} of {self.sides[1].name} ({_share(figures['unique_b'], b)})",
            ]
        if (agreement := self.agreement()) is not None:
            lines += ["", f"Decoder and firing name the same best match for {agreement:.1%} of {self.sides[0].name}"]
        if self.rows:
            lines += ["", _rows_line(self.rows)]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    def __repr__(self) -> str:
        figures = self.counts()
        return (
            f"<SAEComparison {self.sides[0]} against {self.sides[1]}: {figures['shared']:,} shared,"
            f" {figures['unique_a']:,} and {figures['unique_b']:,} unique by {self.matching().measure}>"
        )

    def _repr_html_(self) -> str:
        rows = []
        for by in self._measured:
            found, figures = self.matching(by), self.counts(by)
            for name, value, of in (
                ("shared", figures["shared"], f"{figures['shared_by_chance']:,.1f} by chance"),
                *((f"shared at {level:g}", figures[f"shared_at_{level:g}"], "") for level in LEVELS),
                ("one-to-one", figures["one_to_one"], ""),
                ("split", figures["split"], f"into {figures['split_into']:,}"),
                ("merged", figures["merged_from"], f"into {figures['merged']:,}"),
                (f"unique to {self.sides[0].name}", figures["unique_a"], f"of {figures['compared_a']:,}"),
                (f"unique to {self.sides[1].name}", figures["unique_b"], f"of {figures['compared_b']:,}"),
            ):
                cells = (f"{found.measure} ≥ {found.threshold:.3f}", name, f"{value:,}", of)
                rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        caption = html.escape(f"{self.sides[0]} against {self.sides[1]}")
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        head = "<tr><th>measure</th><th>what</th><th>features</th><th></th></tr>"
        return f"<table><caption>{caption}</caption>{head}{''.join(rows)}</table>{notes}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types, with all lists; what is undefined is None."""
        return {
            "sides": [asdict(side) for side in self.sides],
            "settings": self.settings,
            "primary": self.primary,
            "rows": self.rows,
            "agreement": self.agreement(),
            "notes": list(self.notes),
            "measures": {by: self._measure_dict(by) for by in self._measured},
        }

    def plot(self) -> Figure:
        """Histograms of best-match similarity, one panel a measure, with the null behind and the threshold.

        Raises:
            MissingDependencyError: without matplotlib.
        """
        if find_spec("matplotlib") is None:
            raise MissingDependencyError("Plots need matplotlib.", hint='pip install "neuronmap[plots]"')
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.5 * len(self._measured), 4.0), layout="constrained")
        for axis, by in zip(figure.subplots(1, len(self._measured), squeeze=False)[0], self._measured, strict=True):
            found = self.matching(by)
            chance = np.concatenate([found.chance.best_A, found.chance.best_B])
            values = [found.value_A[found.usable_A], found.value_B[found.usable_B]]
            low = min(float(part.min()) for part in (*values, chance) if len(part))
            edges = np.linspace(min(low, 0.0), 1.0, 51)
            axis.hist(
                chance, edges, weights=np.full(len(chance), 1 / max(1, len(chance))), color="0.75", label="by chance"
            )
            for side, value, colour in zip(self.sides, values, ("tab:blue", "tab:orange"), strict=True):
                weights = np.full(len(value), 1 / max(1, len(value)))
                axis.hist(value, edges, weights=weights, histtype="step", linewidth=1.8, color=colour, label=side.name)
            axis.axvline(found.threshold, color="black", linestyle="--", label=f"threshold {found.threshold:.2f}")
            axis.set_xlabel(f"best match, {found.measure}")
            axis.set_ylabel("share of features")
            axis.set_xlim(edges[0], 1.0)
            axis.legend(frameon=False)
        return figure

    # --- parts of the above ------------------------------------------------------------------------------------------

    @property
    def _measured(self) -> list[By]:
        both: list[tuple[By, Matching | None]] = [("decoder", self.decoder), ("activation", self.activation)]
        return [by for by, found in both if found is not None]

    @cached_property
    def _groups(self) -> dict[str, tuple[list[Group], list[Group]]]:
        groups: dict[str, tuple[list[Group], list[Group]]] = {}
        for by in self._measured:
            found = self.matching(by)
            split = [self._group(one, many, found.value_B, of_b=False) for one, many in found.split().items()]
            merged = [self._group(one, many, found.value_A, of_b=True) for one, many in found.merged().items()]
            groups[by] = (split, merged)
        return groups

    def _group(self, one: int, many: list[int], value: npt.NDArray[np.float32], *, of_b: bool) -> Group:
        many = sorted(many, key=lambda feature: (-value[feature], feature))
        coverage, precision = None, None
        if self.firing is not None:
            measured = self.firing.coverage(one, many, of_b=of_b)
            coverage, precision = (None if math.isnan(share) else share for share in measured)
        counts = self.firing is None or (coverage is not None and coverage >= self.settings["coverage"])
        return Group(one, tuple(many), tuple(float(value[f]) for f in many), coverage, precision, counts)

    def _other(
        self, found: Matching, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Columns with the other measure of the same pairs, where there is one."""
        other = self.firing if found is self.decoder else self.direction
        if other is None:
            return {}
        return {other.measure.replace(" ", "_"): other.pairs(a, b)}

    def _pairs_table(self, found: Matching) -> dict[str, Any]:
        a = np.flatnonzero(found.pairing.partner_A >= 0)
        b = found.pairing.partner_A[a]
        mutual = found.mutual_A[a] & (found.best_A[a] == b)
        columns = {"feature_a": a, "feature_b": b, "similarity": found.value_pairing_A[a], "mutual": mutual}
        order = np.argsort(-columns["similarity"], kind="stable")
        return {name: column[order] for name, column in (columns | self._other(found, a, b)).items()}

    def _best_table(self, found: Matching, side: Literal["a", "b"]) -> dict[str, Any]:
        best, value = (found.best_A, found.value_A) if side == "a" else (found.best_B, found.value_B)
        own = np.flatnonzero(best >= 0)
        best, value = best[own], value[own]
        mutual_b = np.zeros(len(found.best_B), bool)
        mutual_b[found.best_A[found.mutual_A]] = True
        columns = {
            f"feature_{side}": own,
            f"feature_{'b' if side == 'a' else 'a'}": best,
            "similarity": value,
            "related": value >= found.threshold,
            "mutual": found.mutual_A[own] if side == "a" else mutual_b[own],
        }
        return columns | self._other(found, *((own, best) if side == "a" else (best, own)))

    def _groups_table(self, groups: list[Group]) -> dict[str, Any]:
        return {
            "feature": [group.one for group in groups],
            "parts": [len(group.many) for group in groups],
            "features": [list(group.many) for group in groups],
            "similarities": [list(group.similarity) for group in groups],
            "coverage": np.array([group.coverage for group in groups], np.float64),
            "precision": np.array([group.precision for group in groups], np.float64),
            "counts": np.array([group.counts for group in groups], bool),
        }

    def _unique_table(self, found: Matching) -> dict[str, Any]:
        a, b = found.unique_a(), found.unique_b()
        return {
            "sae": [self.sides[0].name] * len(a) + [self.sides[1].name] * len(b),
            "feature": np.concatenate([a, b]),
            "best_match": np.concatenate([found.best_A[a], found.best_B[b]]),
            "similarity": np.concatenate([found.value_A[a], found.value_B[b]]),
        }

    def _measure_dict(self, by: By) -> dict[str, Any]:
        found = self.matching(by)
        shared, value_A, pairs = found.shared(), found.value_A, self._pairs_table(found)
        return {
            "measure": found.measure,
            "threshold": found.threshold,
            "null": {
                "draws": found.chance.draws,
                "false_match_rate": found.chance.rate,
                "threshold": found.chance.threshold,
                "shared": found.chance.shared,
                "quantiles_a": _quantiles(found.chance.best_A),
                "quantiles_b": _quantiles(found.chance.best_B),
            },
            "counts": self.counts(by),
            "one_to_one_exact": found.pairing.exact,
            "quantiles_a": _quantiles(found.value_A[found.usable_A]),
            "quantiles_b": _quantiles(found.value_B[found.usable_B]),
            "shared": [[int(a), int(b), float(value_A[a])] for a, b in shared],
            "one_to_one": [
                [int(a), int(b), float(value)]
                for a, b, value in zip(pairs["feature_a"], pairs["feature_b"], pairs["similarity"], strict=True)
            ],
            "splits": [asdict(group) for group in self.splits(by)],
            "merges": [asdict(group) for group in self.merges(by)],
            "unique_a": found.unique_a().tolist(),
            "unique_b": found.unique_b().tolist(),
        }


def _share(count: float, whole: float) -> str:
    return f"{count / whole:.1%}" if whole else "none"


def _quantiles(values: npt.NDArray[np.float32]) -> dict[str, float]:
    """Five quantiles by name; empty for no values."""
    if not len(values):
        return {}
    points = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {
        f"{point:g}": float(value)
        for point, value in zip(points, np.quantile(values.astype(np.float64), points), strict=True)
    }


def _rows_line(rows: dict[str, Any]) -> str:
    part = f", one run of 16 contexts in {rows['stride']}" if rows["stride"] > 1 else ""
    if rows["met_by"] == "token":
        return f"Firing was compared on {rows['places']:,} tokens{part}."
    part = f", about one document in {rows['stride']}" if rows["stride"] > 1 else ""
    return (
        f"Firing was compared on {rows['characters']:,.0f} characters of {rows['documents']:,} documents ({rows['places']:,} pairs of"
        f" overlapping tokens){part}."
    )
