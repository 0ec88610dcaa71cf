"""What the sweep of defaults says: differences from each default, and whether evidence supports it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from defaults_cells import FIELDS, SETTINGS, Field, Setting

_SAME_L0 = 0.05
_NOT_RUN = "not run"


@dataclass(frozen=True)
class Difference:
    """One value of a setting minus the default, in one field.

    Attributes:
        value: name of the value.
        mean: of the difference over the seeds that both have.
        seeds: how many.
        noise: two standard errors of such a difference, from the spread over seeds that is usual for the field and architecture, or
            its own where that is larger; None where no trial has two seeds.
        l0: L0 of the value over that of the default.
        idle: whether every seed has the same figure to the last digit: the setting never acted.
    """

    value: str
    mean: float
    seeds: int
    noise: float | None
    l0: float
    idle: bool = False

    @property
    def clear(self) -> bool:
        return self.noise is not None and abs(self.mean) > self.noise

    @property
    def fair(self) -> bool:
        """Whether both have about the same L0, without which explained variance says little."""
        return abs(self.l0 - 1) <= _SAME_L0


def by_seed(
    record: dict[str, Any], field: Field, architecture: str, changes: dict[str, Any], name: str
) -> dict[int, float]:
    """A figure of the finished trials with these changes."""
    found = {}
    for trial in record["trials"]:
        mine = (trial["field"], trial["architecture"]) == (field.name, architecture)
        value = trial["figures"].get(name)
        if mine and trial["changes"] == changes and value is not None:
            found[int(trial["seed"])] = float(value)
    return found


def spread(record: dict[str, Any], field: Field, architecture: str) -> float | None:
    """Standard deviation over seeds of a trial of a field and architecture: the median one, so that settings whose seeds lie far apart do
    not widen it for all."""
    groups: dict[str, list[float]] = {}
    for trial in record["trials"]:
        value = trial["figures"].get(field.figure)
        if (trial["field"], trial["architecture"]) == (field.name, architecture) and value is not None:
            groups.setdefault(str(sorted(trial["changes"].items())), []).append(float(value))
    variances = [
        statistics.variance(values) / _median_of_chi_square(len(values) - 1)
        for values in groups.values()
        if len(values) > 1
    ]
    return statistics.median(variances) ** 0.5 if variances else None


def _median_of_chi_square(freedom: int) -> float:
    """Over its degrees of freedom, after Wilson and Hilferty: what the median sample variance is short of the variance."""
    return (1 - 2 / (9 * freedom)) ** 3


def _noise(common: float | None, base: dict[int, float], mine: dict[int, float], seeds: list[int]) -> float | None:
    """Two standard errors of a difference of means; a value whose own seeds lie further apart than is usual has its own."""
    if common is None:
        return None
    both = [[of[seed] for seed in seeds] for of in (base, mine)]
    variances = [max(common**2, statistics.variance(values) if len(values) > 1 else 0.0) for values in both]
    return float(2 * (sum(variances) / len(seeds)) ** 0.5)


def default_then(record: dict[str, Any], setting: Setting) -> str:
    """The default that the record's base runs had, which may be another today."""
    return str(record.get("defaults", {}).get(setting.name, setting.default))


def differences(record: dict[str, Any], setting: Setting, field: Field) -> list[Difference]:
    """Every other value of a setting that has a seed in common with the default of the record."""
    base = by_seed(record, field, setting.architecture, {}, field.figure)
    base_l0 = by_seed(record, field, setting.architecture, {}, "l0")
    found = []
    for value, changes in setting.values.items():
        if value == default_then(record, setting):
            continue
        mine = by_seed(record, field, setting.architecture, changes, field.figure)
        mine_l0 = by_seed(record, field, setting.architecture, changes, "l0")
        seeds = sorted(set(base) & set(mine))
        if not seeds:
            continue
        noise = _noise(spread(record, field, setting.architecture), base, mine, seeds)
        l0 = statistics.fmean(mine_l0[seed] / base_l0[seed] for seed in seeds)
        mean = statistics.fmean(mine[seed] - base[seed] for seed in seeds)
        idle = all(mine[seed] == base[seed] for seed in seeds)
        found.append(Difference(value, mean, len(seeds), noise, l0, idle))
    return found


def verdict(record: dict[str, Any], setting: Setting) -> str:
    """What follows for a default, over the fields that have it."""
    then = default_then(record, setting)
    said = _verdict([one for field in FIELDS for one in differences(record, setting, field)])
    return said if then == setting.default or said == _NOT_RUN else f"of {then}, the default then: {said}"


def _verdict(found: list[Difference]) -> str:
    if not found:
        return _NOT_RUN
    if all(one.idle for one in found):
        return "not tried: it never acted in these runs, whose figures are the same to the last digit"
    if any(one.noise is None for one in found):
        return "one seed: differences are shown, nothing is decided"
    said: dict[str, set[int]] = {}
    for one in found:
        signs = said.setdefault(one.value, set())
        if one.clear and one.fair:
            signs.add(1 if one.mean > 0 else -1)
    better = [value for value, signs in said.items() if signs == {1}]
    mixed = [value for value, signs in said.items() if signs == {1, -1}]
    if better:
        return f"not supported: {', '.join(better)} is better"
    if mixed:
        return f"mixed: {', '.join(mixed)} is better on one kind of data and worse on another"
    if all(signs == {-1} for signs in said.values()):
        return "supported: every other value is worse"
    worse = [value for value, signs in said.items() if signs == {-1}]
    if worse:
        return f"supported: {', '.join(worse)} is worse, the others make no difference that can be seen"
    return "no difference that can be seen"


def markdown(record: dict[str, Any]) -> str:
    """The tables as a file of their own."""
    return "\n".join([f"# Defaults, {record['date']}", "", *lines(record)]).rstrip() + "\n"


def lines(record: dict[str, Any]) -> list[str]:
    """Introduction, verdicts, and one row for each value."""
    asked = record["asked"]
    shown = [
        f"One setting at a time away from the defaults, {asked['seeds']} seeds. SmolLM2: {asked['visits']:,} visits of {asked['rows']:,} "
        f"rows, {asked['heldout_rows']:,} held-out rows; synthetic: {asked['synthetic_rows']:,} rows, measured on "
        f"{asked['measure_rows']:,} others. Batches are what SAEConfig makes them for runs as short as these, 512 rows.",
        "",
        "Shown is the difference from the default, with the seeds it rests on; ± is two standard errors from the spread over seeds that is "
        "usual in the column, or the value's own where that is larger, and bold is what exceeds it. A star: L0 differs by more than 5 %, "
        "so the difference is none of quality. These are short runs; they decide what short runs should do.",
        "",
        *_of_other_defaults(record),
        "| setting | default | evidence |",
        "| --- | --- | --- |",
        *(f"| {one.name} | {one.default} | {verdict(record, one)} |" for one in SETTINGS),
        "",
        "| setting | value | " + " | ".join(f"{field.name}: {field.title}" for field in FIELDS) + " |",
        "| --- | --- |" + " --- |" * len(FIELDS),
    ]
    for setting in SETTINGS:
        columns = [{one.value: one for one in differences(record, setting, field)} for field in FIELDS]
        for value in setting.values:
            if value == default_then(record, setting):
                cells = [_base(record, setting, field) for field in FIELDS]
            else:
                cells = [_cell(column.get(value)) for column in columns]
            shown.append(f"| {setting.name} | {value} | " + " | ".join(cells) + " |")
    return [*shown, ""]


def _of_other_defaults(record: dict[str, Any]) -> list[str]:
    """What has changed since the record, which is in all of its runs."""
    then = [(one, default_then(record, one)) for one in SETTINGS]
    changed = [f"{one.name} {value}, now {one.default}" for one, value in then if value != one.default]
    return (
        [f"All runs are of {record['date']}, with a default that has changed since: {'; '.join(changed)}.", ""]
        if changed
        else []
    )


def _base(record: dict[str, Any], setting: Setting, field: Field) -> str:
    values = by_seed(record, field, setting.architecture, {}, field.figure)
    return f"default: {statistics.fmean(values.values()):.4f} ({len(values)})" if values else "not run"


def _cell(one: Difference | None) -> str:
    if one is None:
        return "not run"
    if one.idle:
        return f"the same to the last digit ({one.seeds})"
    mean = f"{one.mean:+.4f}"
    mean = f"**{mean}**" if one.clear and one.fair else mean
    noise = "" if one.noise is None else f" ± {one.noise:.4f}"
    return f"{mean}{noise} ({one.seeds})" + ("" if one.fair else " *")


def draw(record: dict[str, Any]) -> Any:
    """A matplotlib figure: one column a field, differences from the default by setting and value, noise as a band."""
    from matplotlib import pyplot

    rows = [
        (setting, value) for setting in SETTINGS for value in setting.values if value != default_then(record, setting)
    ]
    drawn, axes = pyplot.subplots(
        1, len(FIELDS), figsize=(4.2 * len(FIELDS), 0.24 * len(rows) + 1), sharey=True, layout="constrained"
    )
    for axis, field in zip(axes, FIELDS, strict=True):
        for place, (setting, value) in enumerate(rows):
            for one in differences(record, setting, field):
                if one.value == value:
                    if one.noise is not None:
                        axis.plot([-one.noise, one.noise], [place, place], color="tab:gray", alpha=0.35, linewidth=5)
                    colour = "tab:gray" if not one.fair else "tab:blue" if one.mean >= 0 else "tab:red"
                    axis.plot(one.mean, place, "o", color=colour, markersize=4)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(f"{field.name}\n{field.title}", fontsize="small")
        axis.grid(True, axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(rows)), [f"{setting.name}: {value}" for setting, value in rows], fontsize="x-small")
    axes[0].invert_yaxis()
    return drawn
