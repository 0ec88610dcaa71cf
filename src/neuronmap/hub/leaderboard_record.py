"""What a leaderboard says: columns, SAEs with figures and ranks, and what was refused, for people and for machines. No torch here."""

from __future__ import annotations

from typing import Any

from neuronmap.config import FrozenConfig
from neuronmap.evaluation.suites.record import SuiteName

__all__ = [
    "DifferingField",
    "EvaluationGroup",
    "Leaderboard",
    "LeaderboardColumn",
    "NotEvaluated",
    "OtherEvaluation",
    "RankedSAE",
    "RefusedGroup",
    "SharedFact",
    "StoredFigure",
    "table_rows",
]


class StoredFigure(FrozenConfig):
    """One figure of one SAE."""

    value: float | None
    """The figure; null where it could not be established, never 0 in its place."""
    low: float | None = None
    """Lower end of its 95 % interval; null where none is stored."""
    high: float | None = None
    """Upper end of it."""
    reason: str = ""
    """Why value or interval is null."""

    @property
    def has_interval(self) -> bool:
        """Whether it can be held against another one."""
        return self.value is not None and self.low is not None and self.high is not None


class LeaderboardColumn(FrozenConfig):
    """A column."""

    name: str
    """As in ``metrics.json``, or in the suite's table."""
    title: str
    """In words."""
    better: str
    """higher, lower, or empty where neither is better."""
    about: str
    """What it is."""
    ranked: bool
    """Whether it has a better side and intervals, so that ranks by it mean something."""


class SharedFact(FrozenConfig):
    """One fact that all shown figures share."""

    field: str
    """Its name in the comparison key."""
    title: str
    """In words."""
    value: str
    """Shortened where it is a digest."""


class OtherEvaluation(FrozenConfig):
    """A stored evaluation, by the same suite, of an SAE that is shown with another one."""

    file: str
    """Where it is stored, within the bundle."""
    created: str
    """When it was measured; empty where the record does not say."""
    key: str
    """First digits of its comparison key; ``--group`` shows it. That of the table where it is an older one of the same kind."""
    said: str
    """What it differs in from the one that is shown, in a sentence."""


class RankedSAE(FrozenConfig):
    """One SAE, by one of its evaluations."""

    sae: str
    """Name in the library."""
    architecture: str
    """relu, topk, ..."""
    features: int
    """Number of features."""
    k: int | None
    """Active features a token that it was made for; null where the architecture has no k."""
    tags: tuple[str, ...]
    """Free words."""
    l0: StoredFigure
    """Active features a token, measured."""
    figures: dict[str, StoredFigure]
    """By metric."""
    rank: int | None
    """By the metric that is sorted by; null without an interval, or where neither side is better."""
    shared: bool
    """Whether others have that rank: their intervals overlap that of the best of them."""
    on_front: bool
    """Whether it is on the Pareto front of ``front_metric`` against L0."""
    file: str
    """Where the evaluation is stored, within the bundle."""
    created: str
    """When it was measured; empty where the record does not say."""
    others: tuple[OtherEvaluation, ...] = ()
    """Its other evaluations by this suite, the newest first: each SAE stands in the table once."""


class DifferingField(FrozenConfig):
    """One field in which a group differs from the one that is shown."""

    field: str
    """Its name in the comparison key."""
    title: str
    """In words."""
    shown: str
    """In the group that is shown."""
    theirs: str
    """In the other."""


class RefusedGroup(FrozenConfig):
    """SAEs that were measured, but not comparably with those that are shown."""

    key: str
    """First digits of their comparison key; ``--group`` shows them."""
    saes: tuple[str, ...]
    """Their names."""
    differences: tuple[DifferingField, ...]
    """What they differ in."""
    said: str
    """The same in a sentence."""
    remedy: str
    """What would make them comparable."""
    commands: tuple[str, ...]
    """Commands that do; empty where there are none."""


class EvaluationGroup(FrozenConfig):
    """Evaluations with one comparison key, to choose from."""

    key: str
    """First digits of it; ``--group`` shows them."""
    saes: int
    """How many SAEs have such an evaluation."""
    shown: bool
    """Whether it is the table's."""
    said: str
    """What they differ in from those that are shown; empty for these."""


class NotEvaluated(FrozenConfig):
    """An SAE without an evaluation of this suite."""

    sae: str
    """Its name."""
    command: str
    """What measures it."""


class Leaderboard(FrozenConfig):
    """SAEs that may be compared, and those that were refused."""

    suite: SuiteName
    """What was measured."""
    model: str
    """Language model; empty if nothing is shown."""
    model_digest: str
    """Digest of its weights; empty where the bundles do not say."""
    hook: str
    """Hook point."""
    key: str
    """First digits of the comparison key."""
    protocol: tuple[SharedFact, ...]
    """What all shown figures share."""
    metrics: tuple[LeaderboardColumn, ...]
    """Columns."""
    known_metrics: tuple[str, ...]
    """All metrics of these evaluations."""
    sort: str
    """What the rows are sorted by."""
    front_metric: str
    """Column of the Pareto front against L0; empty if there is none."""
    rows: tuple[RankedSAE, ...]
    """The SAEs, best first; those without the figure come last."""
    groups: tuple[EvaluationGroup, ...] = ()
    """All evaluations that fit the conditions, by comparison key, the most SAEs first; one of them is shown."""
    left_out: tuple[RefusedGroup, ...]
    """What was refused, the largest group first."""
    not_measured: tuple[NotEvaluated, ...]
    """SAEs that fit the conditions and have no evaluation of this suite."""
    notes: tuple[str, ...]
    """What a reader must know."""


def table_rows(board: Leaderboard) -> tuple[list[str], list[dict[str, Any]]]:
    """The table as columns and rows for a file; a figure has its interval in two columns beside it, and what is absent is None."""
    names = [one.name for one in board.metrics if one.name != "l0"]
    columns = ["rank", "shared", "sae", "architecture", "features", "k", "on_front", "l0", "l0_low", "l0_high"]
    columns += [column for name in names for column in (name, f"{name}_low", f"{name}_high")]
    columns += ["file", "created", "other_evaluations"]
    rows = []
    for row in board.rows:
        line: dict[str, Any] = {name: getattr(row, name) for name in columns[:7]}
        for name, figure in (("l0", row.l0), *((name, row.figures[name]) for name in names)):
            line |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        line |= {"file": row.file, "created": row.created, "other_evaluations": len(row.others)}
        rows.append(line)
    return columns, rows
