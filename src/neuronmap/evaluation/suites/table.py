"""The main figures of suite records in one shape: for the table of the command line, and by name for the library."""

from __future__ import annotations

from collections.abc import Callable

from neuronmap.evaluation.metrics import CoreMetrics, Estimate
from neuronmap.evaluation.suites.record import (
    AbsorptionSuite,
    CoreSuite,
    ProbingSuite,
    StabilitySuite,
    StructureSuite,
    SuiteRecord,
    SuiteRow,
)

__all__ = ["suite_rows", "suite_summary"]

Figure = Estimate | float | None

_CORE: dict[str, Callable[[CoreMetrics], Figure]] = {
    "explained_variance": lambda core: core.reconstruction.explained_variance,
    "cosine": lambda core: core.reconstruction.cosine,
    "l0": lambda core: core.sparsity.l0,
    "ce_score_zero": lambda core: core.behaviour.ce_score_zero if core.behaviour else None,
    "ce_score_mean": lambda core: core.behaviour.ce_score_mean if core.behaviour else None,
    "delta_ce": lambda core: core.behaviour.delta_ce if core.behaviour else None,
    "kl_sae": lambda core: core.behaviour.kl_sae if core.behaviour else None,
    "kl_score_mean": lambda core: core.behaviour.kl_score_mean if core.behaviour else None,
}


def suite_rows(record: SuiteRecord) -> list[SuiteRow]:
    """The lines of one record, most important first."""
    result = record.result
    if isinstance(result, CoreSuite):
        measured = {"sae": result.sae, **result.baselines}
        return [
            SuiteRow("core", name, {who: figure(core) for who, core in measured.items()})
            for name, figure in _CORE.items()
        ]
    if isinstance(result, ProbingSuite):
        return _probing_rows(result)
    if isinstance(result, AbsorptionSuite):
        return _absorption_rows(result)
    if isinstance(result, StructureSuite):
        return _structure_rows(result)
    return _stability_rows(result)


def suite_summary(record: SuiteRecord) -> dict[str, float | None]:
    """The SAE's own figures by name; the core ones have their names already and are left out."""
    found: dict[str, float | None] = {}
    for row in suite_rows(record):
        if row.suite != "core" and "sae" in row.values:
            value = row.values["sae"]
            found[f"{row.suite}_{row.figure}"] = value.value if isinstance(value, Estimate) else value
    return found


def _probing_rows(result: ProbingSuite) -> list[SuiteRow]:
    rows = []
    for measure in ("auc", "accuracy", "f1"):
        for at, k in enumerate(result.ks):
            values: dict[str, Figure] = {
                who: getattr(means[at], measure) for who, means in result.means.items() if who != "dense"
            }
            values["dense"] = getattr(result.means["dense"][0], measure)
            rows.append(SuiteRow("probing", f"{measure}_k{k}", values))
    return [*rows[: len(result.ks)], *_lead_rows(result), *rows[len(result.ks) :]]


def _lead_rows(result: ProbingSuite) -> list[SuiteRow]:
    """AUC of the SAE minus that of each column; of the dense probe, which reads everything, at the largest k alone."""
    rows = []
    for at, k in enumerate(result.ks):
        values: dict[str, Figure] = {
            who: means[at].lead for who, means in result.means.items() if who not in ("sae", "dense")
        }
        if k == max(result.ks):
            values["dense"] = result.means["dense"][0].lead
        rows.append(SuiteRow("probing", f"lead_k{k}", values, difference=True))
    return rows


def _absorption_rows(result: AbsorptionSuite) -> list[SuiteRow]:
    if not result.possible:
        missing = Estimate(value=None, count=result.words, reason=result.reason)
        return [SuiteRow("absorption", name, {"sae": missing}) for name in ("fraction", "full")]
    found = result.dictionaries
    return [
        SuiteRow("absorption", "fraction", {who: one.mean_absorption_fraction for who, one in found.items()}),
        SuiteRow("absorption", "full", {who: one.mean_full_absorption for who, one in found.items()}),
        SuiteRow("absorption", "main_f1", {who: one.mean_main_f1 for who, one in found.items()}),
        SuiteRow("absorption", "main_latents", {who: one.mean_main_latents for who, one in found.items()}),
    ]


def _structure_rows(result: StructureSuite) -> list[SuiteRow]:
    cosine = result.encoder_decoder_cosine
    near = result.redundancy
    rows = [
        SuiteRow("structure", "meta_explained", dict(result.meta_explained)),
        SuiteRow("structure", "max_cosine_median", {who: one.max_cosine.median for who, one in near.items()}),
        SuiteRow("structure", "share_above_09", {who: one.above_09 for who, one in near.items()}),
        SuiteRow("structure", "encoder_decoder_cosine", {"sae": cosine.median if cosine else None}),
    ]
    if result.dead is not None:
        rows.append(SuiteRow("structure", f"dead_on_{result.dead_tokens}_tokens", {"sae": float(result.dead)}))
    return rows


def _stability_rows(result: StabilitySuite) -> list[SuiteRow]:
    def pair(name: str) -> dict[str, Figure]:
        return {"sae": getattr(result, name), "chance": getattr(result, f"chance_{name}")}

    rows = [SuiteRow("stability", name, pair(name)) for name in ("share_above_07", "share_above_09", "mean_cosine")]
    if result.alive_share_above_07 is not None:
        rows.append(SuiteRow("stability", "alive_share_above_07", pair("alive_share_above_07")))
    return rows
