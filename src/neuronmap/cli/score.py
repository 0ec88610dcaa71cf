"""``neuronmap sae score``: how well labels predict where features fire."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.endpoint_options import (
    BudgetOption,
    CacheOption,
    ConcurrencyOption,
    DryRunOption,
    EndpointOption,
    FeaturesOption,
    KeyEnvOption,
    ModelOption,
    PriceInOption,
    PriceOutOption,
    SampleOption,
    SeedOption,
    TimeoutOption,
    budget_limit,
    end_of_budget,
    endpoint_config,
    listed,
    show_estimate,
    show_failures,
    spending_record,
    spent_words,
)
from neuronmap.cli.features import AnalysisOption, NameArgument, opened
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.errors import ConfigError

if TYPE_CHECKING:
    from neuronmap.interpretation.explaining.making import Estimate
    from neuronmap.interpretation.judging.agreement import Agreement
    from neuronmap.interpretation.judging.scoring import ScoreReport
    from neuronmap.interpretation.labels.acts import Label, Score

__all__ = ["score"]

_SHOWN = 20


_Labels = Annotated[
    str, typer.Option(help="Whose: models, people, hints (of the analysis), all, or the name of an author.")
]
_Scorer = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        help="detection, fuzzing, simulation, simulation-json, embedding, intruder; commas or repeat for more. "
        "detection, fuzzing and embedding with an endpoint, embedding without one if left out.",
    ),
]
_Baselines = Annotated[
    str,
    typer.Option(help="shuffled (another feature's label), rule (the hint's), prediction (the rule's own), or none."),
]
_Batch = Annotated[int, typer.Option(min=1, max=100, help="Examples in one question.")]
_Read = Annotated[
    bool,
    typer.Option("--read/--no-read", help="Read the SAE's own language model for negatives where neighbours fire."),
]
_Device = Annotated[str | None, typer.Option(help="Of that language model: cpu, cuda, ...")]


@command_output
def score(
    name: NameArgument,
    labels: _Labels = "models",
    features: FeaturesOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    scorer: _Scorer = None,
    endpoint: EndpointOption = None,
    model: ModelOption = None,
    key_env: KeyEnvOption = None,
    budget: BudgetOption = None,
    concurrency: ConcurrencyOption = 8,
    timeout: TimeoutOption = 120.0,
    price_in: PriceInOption = None,
    price_out: PriceOutOption = None,
    baselines: _Baselines = "shuffled,rule,prediction",
    batch: _Batch = 15,
    read: _Read = True,
    device: _Device = None,
    dry_run: DryRunOption = False,
    cache: CacheOption = True,
    analysis: AnalysisOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score labels: how well do they predict, on documents they were not made from, where a feature fires?

    A judge sees the label and examples, never whether the feature fires. Beside each score stand what another feature's label gets
    under the same protocol, what the hint's label gets, and what the hint's rule itself predicts.

    Examples:

        neuronmap sae score demo --labels hints --sample 100

        neuronmap sae score demo --scorer detection,fuzzing,embedding --endpoint http://localhost:8000/v1 --model my-judge

        neuronmap sae score demo --labels people --scorer detection -e http://localhost:8000/v1 -m my-judge --budget 500k --dry-run
    """
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.explaining import (
        LiveActivations,
        alive_features,
        labels_to_score,
        score_estimate,
        score_into_book,
    )
    from neuronmap.interpretation.judging.registry import scorer_of
    from neuronmap.interpretation.labels.book import LabelBook

    output = Output(as_json, quiet)
    chosen = listed(scorer, ["detection", "fuzzing", "embedding"] if endpoint else ["embedding"])
    asking = [one for one in map(scorer_of, chosen) if one.asks]
    config = None
    if asking or endpoint or model:
        config = endpoint_config(endpoint, model, key_env, concurrency, timeout, price_in, price_out)
    limit, beside = budget_limit(budget), [] if baselines == "none" else listed([baselines], [])
    entry, store = opened(SAEModelHub(), name, analysis)
    numbers = None
    if features is not None or sample is not None:
        numbers = alive_features(store, features=features, sample=sample, seed=seed)
    options: dict[str, Any] = {"scorers": chosen, "baselines": beside, "batch": batch, "seed": seed}
    with LabelBook.open() as book:
        found = labels_to_score(store, book, labels, numbers)
        if dry_run:
            if config is None:
                raise ConfigError("These scorers ask no language model and cost nothing.", hint="Leave out --dry-run.")
            estimate = score_estimate(store, found, book, config, **options)
            show_estimate(output, estimate, "scores", len(found))
            output.document(_document(entry.id, store.key, len(found), estimate=estimate))
            return
        reader = LiveActivations(entry, store, device=device, progress=output.progress()) if read else None
        report = score_into_book(
            store, found, book, endpoint=config, reader=reader, limit=limit, cache=cache, device=device or "auto",
            progress=output.progress(), **options,
        )  # fmt: skip
    _show_report(output, report, found)
    output.document(_document(entry.id, store.key, len(found), report=report))
    end_of_budget(output, report.stopped)


def _document(
    sae: str, analysis: str, labels: int, *, estimate: Estimate | None = None, report: ScoreReport | None = None
) -> dict[str, Any]:
    """The JSON document, of an estimate or of a run."""
    scores = [] if report is None else report.scores
    return {
        "schema": "neuronmap/sae.score/1",
        "sae": sae,
        "analysis": analysis,
        "labels": labels,
        "estimate": None if estimate is None else estimate._asdict(),
        "scores": [{**one.to_dict(), "judgements": len(one.judgements)} for one in scores],
        "known": report.known if report is not None else estimate.known if estimate is not None else 0,
        "impossible": [] if report is None else [one._asdict() for one in report.impossible],
        "refused": {} if report is None else report.refused,
        "agreements": [] if report is None else [one.to_dict() for one in report.agreements],
        "stopped": "" if report is None else report.stopped,
        "spent": None if report is None else spending_record(report.spent),
        "baseline_tokens": 0 if report is None else report.baseline_tokens,
    }


def _show_report(output: Output, report: ScoreReport, labels: list[Label]) -> None:
    _show_scores(output, report.scores, labels)
    _show_agreements(output, report.agreements)
    show_failures(output, report.impossible, "Cannot be scored")
    for protocol, reason in report.refused.items():
        output.show(f"[bold]{protocol}[/] was left out: {escape(reason)}")
    output.show(
        f"{len(report.scores):,} scores made, {report.known:,} were there already; {spent_words(report.spent)}, of these "
        f"{report.baseline_tokens:,} for baselines, {report.seconds:.1f} s."
    )


def _show_scores(output: Output, scores: list[Score], labels: list[Label]) -> None:
    texts = {label.id: label.text for label in labels}
    rows = []
    for one in scores[:_SHOWN]:
        beside = one.figures.get("baselines", {})
        rows.append(
            [str(one.feature), texts.get(one.label, ""), one.protocol, _figure(one.value), _range(one.low, one.high),
             *(_figure(beside.get(name, {}).get("value")) for name in ("shuffled", "rule", "prediction"))]
        )  # fmt: skip
    columns = ["#", "label", "scorer", "score", "95 %", "shuffled", "rule label", "rule"]
    if rows:
        output.show(table("", columns, rows, right=["#", "score", "shuffled", "rule label", "rule"]))
    if len(scores) > _SHOWN:
        output.show(f"... and {len(scores) - _SHOWN:,} more")
    if summary := _summary(scores):
        output.show(table("Means", ["scorer", "labels", "score", "shuffled", "rule label", "rule", "chance"], summary,
                          right=["labels", "score", "shuffled", "rule label", "rule", "chance"]))  # fmt: skip


def _summary(scores: list[Score]) -> list[list[str]]:
    """Means over labels, of each scorer; of a baseline over those that have it."""
    rows = []
    for protocol in dict.fromkeys(one.protocol for one in scores):
        here = [one for one in scores if one.protocol == protocol and one.value is not None]
        beside = [
            [one.figures["baselines"][name]["value"] for one in here if name in one.figures.get("baselines", {})]
            for name in ("shuffled", "rule", "prediction")
        ]
        chance = next((one.figures.get("chance") for one in here), None)
        means = [_mean([one.value for one in here]), *(_mean(values) for values in beside)]
        rows.append([protocol, f"{len(here):,}", *map(_figure, means), _figure(chance)])
    return rows


def _show_agreements(output: Output, found: list[Agreement]) -> None:
    rows = [
        [one.first, one.second, _figure(one.value), _range(one.low, one.high), f"{one.labels:,}"]
        for one in found
        if one.value is not None
    ]
    if rows:
        columns = ["scorer", "and", "Spearman", "95 %", "labels"]
        output.show(table("Agreement", columns, rows, right=["Spearman", "labels"]))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
