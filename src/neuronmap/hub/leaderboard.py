"""``leaderboard``: SAEs of one model and hook side by side, from the evaluations that are stored with them.

Evaluations are grouped by what makes figures comparable (:mod:`neuronmap.hub.comparable`). Within a group figures are ranked; across
groups never: the largest group is shown, and the others are named with what they differ in and what would make them comparable.

- **Rank.** Best first. An SAE shares the rank of the best one above it whose 95 % interval its own overlaps. Only intervals of each SAE
  are stored, none of differences, so that a shared rank says "not told apart here", not "equal". Without an interval there is no rank.
- **One evaluation an SAE.** Of several with the group's key the newest; each row names its own, and those of the SAE that are not shown.
- **Front.** An SAE is on the Pareto front when no other has a figure at least as good at an L0 at most as high, one of them strictly.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.evaluation.metrics import Behaviour, Reconstruction, Sparsity
from neuronmap.evaluation.suites.record import SUITES, SuiteName
from neuronmap.hashing import short
from neuronmap.hub.comparable import TITLES, Measured, differing, measurements, remedy
from neuronmap.hub.entry import LibraryEntry, name_matches
from neuronmap.hub.leaderboard_record import (
    DifferingField,
    EvaluationGroup,
    Leaderboard,
    LeaderboardColumn,
    NotEvaluated,
    OtherEvaluation,
    RankedSAE,
    RefusedGroup,
    SharedFact,
    StoredFigure,
)
from neuronmap.hub.library import SAEModelHub

__all__ = ["leaderboard", "pareto_front", "parse_range", "ranks"]

_BETTER = {
    **dict.fromkeys(("explained_variance", "explained_variance_median", "cosine", "fraction_alive"), "higher"),
    **dict.fromkeys(("ce_score_zero", "ce_score_mean", "kl_score_zero", "kl_score_mean"), "higher"),
    **dict.fromkeys(("mse", "ce_sae", "delta_ce", "kl_sae", "dead_at_n"), "lower"),
    **dict.fromkeys(("fraction", "full", "share_above_09@structure"), "lower"),
    **dict.fromkeys(("main_f1", "share_above_07", "share_above_09", "mean_cosine", "alive_share_above_07"), "higher"),
}
_DEFAULT: dict[SuiteName, tuple[str, ...]] = {
    "core": ("explained_variance", "ce_score_mean", "kl_sae", "fraction_alive"),
    "probing": ("auc_k1", "auc_k5", "auc_k16"),
    "absorption": ("fraction", "full", "main_f1"),
    "structure": ("share_above_09", "max_cosine_median", "meta_explained"),
    "stability": ("share_above_07", "share_above_09", "mean_cosine"),
}
_SPELT = {
    "l0": "L0",
    "l1": "L1",
    "ce": "CE",
    "kl": "KL",
    "mse": "MSE",
    "auc": "AUC",
    "f1": "F1",
    "sae": "SAE",
    "n": "N",
}
_ORDERS = ("l0", "features", "name")
"""What can be sorted by and is no measure of quality."""
_NEAR_L0 = 1.25
"""SAEs whose L0 differ by more than this factor are not compared without saying so."""


def parse_range(text: str, name: str) -> tuple[float, float]:
    """``10:40``, ``:40``, ``10:`` or one number.

    Raises:
        ConfigError: it is none of these, or its ends are the wrong way round.
    """
    low, colon, high = text.partition(":")
    try:
        ends = (float(low) if low.strip() else 0.0, float(high) if high.strip() else float("inf"))
        ends = ends if colon else (float(low), float(low))
    except ValueError:
        ends = (1.0, 0.0)
    if not 0 <= ends[0] <= ends[1]:
        raise ConfigError(f"{name} = {text!r}: LOW:HIGH with numbers from 0, or one number.", hint="For example: 20:40")
    return ends


def ranks(figures: Sequence[StoredFigure]) -> list[tuple[int | None, bool]]:
    """Ranks of figures that are in order, the best first.

    Returns:
        For each its rank and whether others share it; None without an interval. A rank begins anew at the first figure whose interval
        does not overlap that of the first one of the rank before.
    """
    groups: list[list[int]] = []
    for at, figure in enumerate(figures):
        if figure.has_interval and not (groups and _overlap(figures[groups[-1][0]], figure)):
            groups.append([at])
        elif figure.has_interval:
            groups[-1].append(at)
    found: list[tuple[int | None, bool]] = [(None, False)] * len(figures)
    before = 0
    for group in groups:
        for at in group:
            found[at] = (before + 1, len(group) > 1)
        before += len(group)
    return found


def _overlap(one: StoredFigure, other: StoredFigure) -> bool:
    ends = (one.low, one.high, other.low, other.high)
    low, high, other_low, other_high = (end if end is not None else float("nan") for end in ends)
    return low <= other_high and other_low <= high


def pareto_front(points: Sequence[tuple[float | None, float | None]], better: str) -> list[bool]:
    """Which points no other one beats: L0 at most as high and a figure at least as good, one of them strictly.

    Args:
        points: L0 and figure; a point without either is on no front.
        better: ``higher`` or ``lower``.
    """
    sign = 1.0 if better == "higher" else -1.0
    whole = [(at, l0, sign * value) for at, (l0, value) in enumerate(points) if l0 is not None and value is not None]
    found = [False] * len(points)
    for at, l0, value in whole:
        found[at] = not any(x <= l0 and y >= value and (x < l0 or y > value) for _, x, y in whole)
    return found


def leaderboard(
    hub: SAEModelHub,
    *,
    suite: str = "core",
    model: str | None = None,
    layer: int | None = None,
    hook: str | None = None,
    architecture: str | None = None,
    tag: str | Iterable[str] = (),
    features: str | None = None,
    l0: str | None = None,
    metrics: Sequence[str] = (),
    sort: str | None = None,
    group: str | None = None,
) -> Leaderboard:
    """Compare the SAEs of the library by their stored evaluations. Nothing is measured, and no weights are read.

    Args:
        hub: the library.
        suite: core, probing, absorption, structure or stability.
        model, layer, architecture, tag: only such SAEs; as for :meth:`SAEModelHub.search`.
        hook: only SAEs of this component or exact hook.
        features: only SAEs with so many features: ``LOW:HIGH`` or a number.
        l0: only SAEs with this measured L0, likewise: SAEs at other L0 are not comparable.
        metrics: columns; the chief ones of the suite when left out.
        sort: a metric (best first), or ``l0``, ``features``, ``name``; the first column when left out.
        group: beginning of a comparison key, to show those evaluations; the largest group when left out.

    Raises:
        ConfigError: a suite, a metric or a group that there is not, or a range that cannot be read.

    Example:
        >>> board = leaderboard(SAEModelHub(), l0="20:40", sort="ce_score_mean")              # doctest: +SKIP
        >>> [(row.rank, row.sae) for row in board.rows]                                        # doctest: +SKIP
        [(1, 'demo'), (1, 'demo-seed1')]
    """
    chosen = _suite(suite)
    found = _gather(hub, chosen, _Conditions(model, layer, hook, architecture, tag, features, l0))
    groups: dict[str, list[Measured]] = {}
    for one in found.measured:
        groups.setdefault(one.key, []).append(one)
    groups = {key: _newest(members) for key, members in groups.items()}
    if not groups:
        if group:
            raise ConfigError(f"group = {group!r}: no evaluation of these SAEs has such a key.")
        return _empty(chosen, found)
    key = _chosen_key(groups, group)
    return _board(chosen, key, groups, found, metrics, sort)


class _Conditions(NamedTuple):
    model: str | None
    layer: int | None
    hook: str | None
    architecture: str | None
    tag: str | Iterable[str]
    features: str | None
    l0: str | None


class _Found(NamedTuple):
    """What is known of the SAEs that fit."""

    measured: list[Measured]
    not_measured: list[LibraryEntry]
    notes: list[str]


def _suite(name: str) -> SuiteName:
    for one in SUITES:
        if one == name:
            return one
    raise ConfigError(f"suite = {name!r}: one of {', '.join(SUITES)} is wanted.")


def _gather(hub: SAEModelHub, suite: SuiteName, wanted: _Conditions) -> _Found:
    width = parse_range(wanted.features, "features") if wanted.features else None
    l0 = parse_range(wanted.l0, "l0") if wanted.l0 else None
    found = _Found([], [], [])
    entries = hub.search(
        model=wanted.model, layer=wanted.layer, architecture=wanted.architecture, tag=wanted.tag, sort="id"
    )
    outside = unknown = hidden = 0
    for entry in entries:
        place = wanted.hook
        if entry.problem or (place and not (name_matches(entry.component, place) or name_matches(entry.hook, place))):
            continue
        if width is not None and not width[0] <= entry.d_sae <= width[1]:
            continue
        try:
            own, notes = measurements(entry, suite)
        except (DamagedError, InputError):  # since it was listed
            found.notes.append(f"{entry.id} cannot be read any more, and is left out.")
            continue
        found.notes.extend(notes)
        if not own:
            found.not_measured.append(entry)
        elif l0 is None:
            found.measured.extend(own)
        else:
            inside = [one for one in own if one.l0.value is not None and l0[0] <= one.l0.value <= l0[1]]
            found.measured.extend(inside)
            outside += not inside
            hidden += len(own) - len(inside) if inside else 0
            unknown += all(one.l0.value is None for one in own)
    if outside:
        without = f", {unknown} of them without one" if unknown else ""
        found.notes.append(f"{_saes(outside)} with an L0 outside {wanted.l0}{without} {_are(outside)} not shown.")
    if hidden:
        found.notes.append(
            f"{_counted(hidden, 'further evaluation')} of SAEs with an evaluation inside {wanted.l0} {_are(hidden)} not counted: "
            "the L0 measured there is outside."
        )
    return found


def _newest(members: Sequence[Measured]) -> list[Measured]:
    """One evaluation an SAE: of several with one key the newest."""
    found: dict[str, Measured] = {}
    for one in sorted(members, key=lambda one: one.created):
        found[one.entry.id] = one
    return [found[name] for name in sorted(found)]


def _chosen_key(groups: dict[str, list[Measured]], group: str | None) -> str:
    """The largest group; of equally large ones that with the newest SAE."""
    if group:
        fitting = [key for key in groups if short(key, 64).startswith(group.removeprefix("sha256:"))]
        if len(fitting) != 1:
            raise ConfigError(
                f"group = {group!r} fits {len(fitting)} of the comparison keys.",
                hint=f"There are: {', '.join(short(key) for key in groups)}.",
            )
        return fitting[0]
    return max(groups, key=lambda key: (len(groups[key]), max(one.entry.created or "" for one in groups[key]), key))


def _empty(suite: SuiteName, found: _Found) -> Leaderboard:
    return Leaderboard(
        suite=suite, model="", model_digest="", hook="", key="", protocol=(), metrics=(), known_metrics=(), sort="",
        front_metric="", rows=(), left_out=(), not_measured=_not_measured(suite, found), notes=tuple(found.notes),
    )  # fmt: skip


def _board(
    suite: SuiteName,
    key: str,
    groups: dict[str, list[Measured]],
    found: _Found,
    wanted: Sequence[str],
    sort: str | None,
) -> Leaderboard:
    shown = groups[key]
    columns, known = _columns(suite, shown, wanted, sort)
    by = sort or columns[0].name
    metric = next((column for column in columns if column.name == by), columns[0])
    front = next((column for column in [metric, *columns] if column.better), None)
    rows = _rows(shown, columns, by, metric, front, _others(key, shown, found.measured))
    first = shown[0]
    lines = [
        SharedFact(field=name, title=TITLES[name], value=first.facts[name].shown)
        for name in TITLES
        if name in first.facts
    ]
    return Leaderboard(
        suite=suite,
        model=first.model,
        model_digest=first.model_digest,
        hook=first.hook,
        key=short(key),
        protocol=tuple(lines),
        metrics=columns,
        known_metrics=known,
        sort=by,
        front_metric=front.name if front is not None and any(row.l0.value is not None for row in rows) else "",
        rows=tuple(rows),
        groups=_groups(key, groups),
        left_out=_left_out(key, groups),
        not_measured=_not_measured(suite, found),
        notes=(*_cautions(rows, metric, by), *found.notes),
    )


def _columns(
    suite: SuiteName, shown: Sequence[Measured], wanted: Sequence[str], sort: str | None
) -> tuple[tuple[LeaderboardColumn, ...], tuple[str, ...]]:
    known = tuple(dict.fromkeys(name for one in shown for name in one.figures))
    orders = _ORDERS if suite != "core" else _ORDERS[1:]
    asked = [*dict.fromkeys([*wanted, *([sort] if sort and sort not in _ORDERS else [])])]
    if unknown := [name for name in asked if name not in known]:
        raise ConfigError(
            f"These evaluations have no metric {', '.join(unknown)}.",
            hint=f"There are: {', '.join(known)}; sort also takes {', '.join(orders)}.",
        )
    if not wanted:
        chief = [name for name in _DEFAULT[suite] if name in known] or list(known[:1])
        asked = [*chief, *(name for name in asked if name not in chief)]
    return tuple(_metric(suite, name, shown) for name in asked), known


def _metric(suite: SuiteName, name: str, shown: Sequence[Measured]) -> LeaderboardColumn:
    better = _BETTER.get(f"{name}@{suite}", _BETTER.get(name, ""))
    if suite == "probing":
        better = "higher"
    elif name.startswith("dead_on_"):
        better = "lower"
    about = next(
        (
            " ".join((section.model_fields[name].description or "").split())
            for section in (Reconstruction, Sparsity, Behaviour)
            if suite == "core" and name in section.model_fields
        ),
        f"{_words(name)} of the {suite} suite",
    )
    some = any(one.figures[name].has_interval for one in shown if name in one.figures)
    return LeaderboardColumn(name=name, title=_words(name), better=better, about=about, ranked=bool(better) and some)


def _words(name: str) -> str:
    return " ".join(_SPELT.get(word, word) for word in name.split("_"))


def _rows(
    shown: Sequence[Measured],
    columns: Sequence[LeaderboardColumn],
    by: str,
    metric: LeaderboardColumn,
    front: LeaderboardColumn | None,
    others: dict[str, tuple[OtherEvaluation, ...]],
) -> list[RankedSAE]:
    """The SAEs in order, with ranks by the metric that they are sorted by."""
    missing = StoredFigure(value=None, reason="not part of this evaluation")
    figures = [{column.name: one.figures.get(column.name, missing) for column in columns} for one in shown]
    order = sorted(
        range(len(shown)), key=lambda at: (_sort_key(shown[at], figures[at], by, metric), shown[at].entry.id)
    )
    ranked = metric.ranked and metric.name == by
    places = ranks([figures[at][metric.name] for at in order]) if ranked else [(None, False)] * len(order)
    better = front.better if front is not None else ""
    points = [(shown[at].l0.value, figures[at][front.name].value if front else None) for at in order]
    fronts = pareto_front(points, better)
    return [
        RankedSAE(
            sae=shown[at].entry.id,
            architecture=shown[at].entry.architecture,
            features=shown[at].entry.d_sae,
            k=shown[at].entry.k,
            tags=shown[at].entry.tags,
            l0=shown[at].l0,
            figures=figures[at],
            rank=place[0],
            shared=place[1],
            on_front=on_front,
            file=shown[at].file,
            created=shown[at].created,
            others=others[shown[at].entry.id],
        )
        for at, place, on_front in zip(order, places, fronts, strict=True)
    ]


def _sort_key(
    one: Measured, figures: dict[str, StoredFigure], by: str, metric: LeaderboardColumn
) -> tuple[bool, float]:
    """Absent figures last; best first, or smallest first where neither side is better."""
    value: float | None
    if by == "name":
        value = 0.0
    elif by == "features":
        value = one.entry.d_sae
    else:
        value = one.l0.value if by == "l0" else figures[by].value
    if value is None:
        return True, 0.0
    return False, -value if metric.name == by and metric.better == "higher" else value


def _others(
    key: str, shown: Sequence[Measured], measured: Sequence[Measured]
) -> dict[str, tuple[OtherEvaluation, ...]]:
    """The evaluations of each SAE that is shown, but for the one that it is shown with; the newest first."""
    by_name = {one.entry.id: one for one in shown}
    found: dict[str, list[OtherEvaluation]] = {name: [] for name in by_name}
    for other in sorted(measured, key=lambda one: (one.created, one.file), reverse=True):
        own = by_name.get(other.entry.id)
        if own is None or other.file == own.file:
            continue
        said = "measured alike, before the one that is shown" if other.key == key else _told(_differences(own, other))
        found[other.entry.id].append(
            OtherEvaluation(file=other.file, created=other.created, key=short(other.key), said=said)
        )
    return {name: tuple(some) for name, some in found.items()}


def _groups(key: str, groups: dict[str, list[Measured]]) -> tuple[EvaluationGroup, ...]:
    first = groups[key][0]
    ordered = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return tuple(
        EvaluationGroup(
            key=short(other),
            saes=len(members),
            shown=other == key,
            said="" if other == key else _told(_differences(first, members[0])),
        )
        for other, members in ordered
    )


def _left_out(key: str, groups: dict[str, list[Measured]]) -> tuple[RefusedGroup, ...]:
    shown = groups[key]
    names = {one.entry.id for one in shown}
    found = []
    for other, members in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        away = [one for one in members if one.entry.id not in names]
        if other == key or not away:
            continue
        fields = differing(shown[0], away[0])
        lines = _differences(shown[0], away[0])
        advice = remedy(shown, away, fields)
        found.append(
            RefusedGroup(
                key=short(other),
                saes=tuple(one.entry.id for one in away),
                differences=lines,
                said=_said(len(away), lines),
                remedy=advice.said,
                commands=advice.commands,
            )
        )
    return tuple(found)


def _differences(shown: Measured, other: Measured) -> tuple[DifferingField, ...]:
    def told(one: Measured, name: str) -> str:
        return one.facts[name].shown if name in one.facts else "not stated"

    return tuple(
        DifferingField(field=name, title=TITLES[name], shown=told(shown, name), theirs=told(other, name))
        for name in differing(shown, other)
    )


def _told(lines: Sequence[DifferingField]) -> str:
    return "; ".join(f"{line.title}: {line.theirs}, here {line.shown}" for line in lines)


def _said(count: int, lines: Sequence[DifferingField]) -> str:
    return f"{_saes(count)} {_are(count)} left out, measured otherwise ({_told(lines)})."


def _not_measured(suite: SuiteName, found: _Found) -> tuple[NotEvaluated, ...]:
    option = "" if suite == "core" else f" --suite {suite}" + (" --against NAME" if suite == "stability" else "")
    return tuple(
        NotEvaluated(sae=entry.id, command=f"neuronmap sae evaluate {shlex.quote(entry.id)}{option}")
        for entry in found.not_measured
    )


def _cautions(rows: Sequence[RankedSAE], metric: LeaderboardColumn, by: str) -> list[str]:
    found = []
    if metric.name == by and metric.ranked:
        found.append(
            "Equal ranks: 95 % intervals overlap. Only each SAE's own interval is stored, so a shared rank says that they are "
            "not told apart here, not that they are equal."
        )
        if absent := sum(row.rank is None for row in rows):
            found.append(f"{_saes(absent)} {_are(absent)} without a rank: no {by}, or no interval of it, is stored.")
    elif metric.name == by and metric.better:
        found.append(f"No interval of {by} is stored: the order is by value alone, and there are no ranks.")
    elif metric.name == by:
        found.append(f"Neither a high nor a low {by} is better by itself: there are no ranks.")
    sparse = [row.l0.value for row in rows if row.l0.value]
    if sparse and max(sparse) > _NEAR_L0 * min(sparse):
        found.append(
            f"L0 goes from {min(sparse):.3g} to {max(sparse):.3g}: with more active features most figures get better by themselves. "
            "Compare within a range of L0 (--l0), or look at the front."
        )
    return found


def _saes(count: int) -> str:
    return _counted(count, "SAE")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _are(count: int) -> str:
    return "was" if count == 1 else "were"
