"""``neuronmap sae explain``: labels by language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

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

if TYPE_CHECKING:
    from neuronmap.interpretation.explaining.making import Estimate, ExplainReport
    from neuronmap.interpretation.labels.acts import Label

__all__ = ["explain"]

_SHOWN = 20


@command_output
def explain(
    name: NameArgument,
    features: FeaturesOption = None,
    top: Annotated[int | None, typer.Option(help="So many, the first by --by.")] = None,
    by: Annotated[str | None, typer.Option(help="max, density or score, the largest first; max if left out.")] = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    everything: Annotated[bool, typer.Option("--all", help="All that are alive.")] = False,
    endpoint: EndpointOption = None,
    model: ModelOption = None,
    key_env: KeyEnvOption = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="quantiles (the default), top, contrast, promoted; commas or repeat for more."),
    ] = None,
    budget: BudgetOption = None,
    concurrency: ConcurrencyOption = 8,
    timeout: TimeoutOption = 120.0,
    price_in: PriceInOption = None,
    price_out: PriceOutOption = None,
    dry_run: DryRunOption = False,
    cache: CacheOption = True,
    analysis: AnalysisOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Have a language model label features of an analysed SAE, and keep the labels in this machine's book.

    What is labelled already (same model, method, prompt and analysis) is not asked again: a run that was stopped goes on where it
    was when the same command is given again. The first Ctrl-C waits for answers under way, which are paid.

    Examples:

        neuronmap sae explain demo --sample 50 --endpoint http://localhost:8000/v1 --model my-model

        neuronmap sae explain demo --all --endpoint https://api.openai.com/v1 --model MODEL --key-env OPENAI_API_KEY --budget 2M

        neuronmap sae explain demo --features 17,42 --method quantiles,promoted -e http://localhost:11434/v1 -m MODEL --dry-run
    """
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.explaining import alive_features, explain_estimate, explain_into_book
    from neuronmap.interpretation.labels.book import LabelBook

    output = Output(as_json, quiet)
    config = endpoint_config(endpoint, model, key_env, concurrency, timeout, price_in, price_out)
    limit, methods = budget_limit(budget), listed(method, ["quantiles"])
    entry, store = opened(SAEModelHub(), name, analysis)
    chosen = alive_features(store, features=features, top=top, by=by, sample=sample, seed=seed, everything=everything)
    with LabelBook.open() as book:
        if dry_run:
            estimate = explain_estimate(store, chosen, config, book, methods)
            show_estimate(output, estimate, "labels", len(chosen))
            output.document(_document(entry.id, store.key, len(chosen), estimate=estimate))
            return
        report = explain_into_book(
            store, chosen, config, book, methods=methods, limit=limit, cache=cache, progress=output.progress()
        )
    _show_labels(output, report.labels)
    show_failures(output, report.impossible, "Too few examples")
    show_failures(output, report.failures, "No label could be read")
    made = f"{len(report.labels):,} labels made, {report.known:,} were there already"
    output.show(f"{made}; {spent_words(report.spent)}, {report.seconds:.1f} s{_each(report)}.")
    if report.labels and not report.stopped:
        output.show(f"Next: neuronmap sae score {entry.id} --scorer embedding --labels {_quoted(config.model)}")
    output.document(_document(entry.id, store.key, len(chosen), report=report))
    end_of_budget(output, report.stopped)


def _document(
    sae: str, analysis: str, features: int, *, estimate: Estimate | None = None, report: ExplainReport | None = None
) -> dict[str, Any]:
    """The JSON document, of an estimate or of a run."""
    return {
        "schema": "neuronmap/sae.explain/1",
        "sae": sae,
        "analysis": analysis,
        "features": features,
        "estimate": None if estimate is None else estimate._asdict(),
        "labels": [] if report is None else [label.to_dict() for label in report.labels],
        "known": report.known if report is not None else estimate.known if estimate is not None else 0,
        "impossible": [] if report is None else [one._asdict() for one in report.impossible],
        "failures": [] if report is None else [one._asdict() for one in report.failures],
        "stopped": "" if report is None else report.stopped,
        "spent": None if report is None else spending_record(report.spent),
    }


def _show_labels(output: Output, labels: list[Label]) -> None:
    rows = [[str(one.feature), one.text, one.explanation, one.method] for one in labels[:_SHOWN]]
    if rows:
        output.show(table("", ["#", "label", "explanation", "method"], rows, right=["#"]))
    if len(labels) > _SHOWN:
        output.show(f"... and {len(labels) - _SHOWN:,} more")


def _each(report: ExplainReport) -> str:
    made, spent = len(report.labels), report.spent
    return f", {spent.tokens / made:,.0f} tokens a label" if made and spent.calls else ""


def _quoted(text: str) -> str:
    return text if text.replace("-", "").replace(".", "").replace("/", "").isalnum() else f"'{text}'"
