"""What commands share that ask language models: the options of an endpoint, budgets, and how spending is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.exits import exit_code
from neuronmap.cli.output import Output
from neuronmap.errors import BudgetError, ConfigError

if TYPE_CHECKING:
    from neuronmap.interpretation.endpoint import EndpointConfig, Limit, Spending
    from neuronmap.interpretation.explaining.making import Estimate, Failure

__all__ = [
    "BudgetOption",
    "CacheOption",
    "ConcurrencyOption",
    "DryRunOption",
    "EndpointOption",
    "FeaturesOption",
    "KeyEnvOption",
    "ModelOption",
    "PriceInOption",
    "PriceOutOption",
    "SampleOption",
    "SeedOption",
    "TimeoutOption",
    "budget_limit",
    "endpoint_config",
    "listed",
    "show_estimate",
    "show_failures",
    "spending_record",
    "spent_words",
]

EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint", "-e", metavar="URL", help="OpenAI-compatible address, such as http://localhost:8000/v1."
    ),
]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Name of the language model at the endpoint.")]
KeyEnvOption = Annotated[
    str | None, typer.Option("--key-env", metavar="NAME", help="Environment variable that holds the endpoint's key.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(help="Never spend more: tokens (200000, 200k, 2M) or, with prices, money ($1.50)."),
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, max=1024, help="Most questions under way at once.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds for one answer.")]
PriceInOption = Annotated[float | None, typer.Option(help="Money for a million prompt tokens.")]
PriceOutOption = Annotated[float | None, typer.Option(help="Money for a million completion tokens.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and ask nothing.")]
CacheOption = Annotated[bool, typer.Option("--cache/--no-cache", help="Take answers that are on this machine already.")]
FeaturesOption = Annotated[str | None, typer.Option(help="Numbers and ranges, such as 1,2,5-9.")]
SampleOption = Annotated[int | None, typer.Option(help="So many of those alive, drawn at random.")]
SeedOption = Annotated[int, typer.Option(help="Of random choices.")]


def endpoint_config(
    endpoint: str | None,
    model: str | None,
    key_env: str | None,
    concurrency: int,
    timeout: float,
    price_in: float | None,
    price_out: float | None,
) -> EndpointConfig:
    """The endpoint that was asked for."""
    from neuronmap.interpretation.endpoint import EndpointConfig

    missing = [option for option, value in (("--endpoint", endpoint), ("--model", model)) if not value]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing.",
            hint="For example --endpoint http://localhost:8000/v1 --model my-model. A local one: neuronmap models serve",
        )
    return EndpointConfig(
        base_url=str(endpoint),
        model=str(model),
        key_env=key_env,
        concurrency=concurrency,
        timeout_s=timeout,
        price_in=price_in,
        price_out=price_out,
    )


def budget_limit(budget: str | None) -> Limit | None:
    from neuronmap.interpretation.endpoint import parse_budget

    return None if budget is None else parse_budget(budget)


def listed(given: list[str] | None, usual: list[str]) -> list[str]:
    """Names given with commas, by repeating the option, or both; each once."""
    found = [part.strip() for one in given or [] for part in one.split(",") if part.strip()]
    return list(dict.fromkeys(found)) or usual


def show_estimate(output: Output, found: Estimate, what: str, number: int) -> None:
    money = "" if found.money is None else f", {found.money:.4f} in money"
    output.show(
        f"{found.calls:,} questions: about {found.prompt:,} prompt and {found.completion:,} completion tokens{money} "
        f"(at most {found.most:,} tokens).",
        f"{found.known:,} {what} are there already, {found.impossible:,} cannot be made for want of examples. Nothing was asked.",
    )
    if found.calls:
        output.show(f"{(found.prompt + found.completion) / max(number, 1):,.0f} tokens for each of {number:,}.")


def end_of_budget(output: Output, stopped: str) -> None:
    """Say that a run ended early, if it did, and end the command with the exit code of a budget that is used up."""
    if stopped:
        output.show(f"[bold]Stopped:[/] {escape(stopped)} Run it again with a larger --budget to go on.")
        raise typer.Exit(exit_code(BudgetError(stopped)))


def show_failures(output: Output, failures: list[Failure], what: str) -> None:
    if failures:
        reasons = "; ".join(f"{one.feature} ({one.problem})" for one in failures[:5])
        more = f"; and {len(failures) - 5:,} more" if len(failures) > 5 else ""
        output.show(f"{what}: {escape(reasons)}{more}.")


def spent_words(spent: Spending) -> str:
    told = f"{spent.calls:,} answers, {spent.cached:,} from the cache, {spent.tokens:,} tokens"
    if spent.usage.estimated:
        told += " (estimated: the endpoint does not say)"
    if spent.uncertain:
        told += f" ({spent.uncertain:,} of them for attempts without an answer)"
    return told + ("" if spent.money is None else f", {spent.money:.4f} in money")


def spending_record(spent: Spending) -> dict[str, Any]:
    return {
        "calls": spent.calls,
        "cached": spent.cached,
        "prompt_tokens": spent.usage.prompt,
        "completion_tokens": spent.usage.completion,
        "estimated": spent.usage.estimated,
        "uncertain_tokens": spent.uncertain,
        "retries": spent.retries,
        "money": spent.money,
    }
