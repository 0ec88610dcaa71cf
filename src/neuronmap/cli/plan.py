"""``neuronmap plan``: what a run takes, before anything is spent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.errors import ConfigError
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.planning import CostPlan

__all__ = ["parse_count", "plan"]

_COUNT = re.compile(r"(\d+(?:[_,]\d{3})*(?:\.\d+)?)\s*([kmbt]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_count(name: str, text: str, *, binary: bool = False) -> int:
    """A number as people write it: ``500000``, ``100M``, ``1.5B``; with ``binary``, k and M are 1,024 and 1,048,576 (widths).

    Raises:
        ConfigError: if it is no positive number.
    """
    found = _COUNT.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{name} = {text!r} is no number.", hint="Write 16384, 16k, 100M or 1.5B.")
    unit = found[2].lower()
    factor = {"k": 1 << 10, "m": 1 << 20}.get(unit, _FACTORS[unit]) if binary else _FACTORS[unit]
    value = round(float(re.sub(r"[_,]", "", found[1])) * factor)
    if value < 1:
        raise ConfigError(f"{name} = {text!r}: at least 1 is needed.")
    return value


@command_output
def plan(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="gpt2, gemma-2-2b, llama-3-70b, smollm2-135m, a folder with a config.json, or a hub id.",
        ),
    ],
    width: Annotated[
        str, typer.Option("--width", "-w", help="Features of the SAE: 16384, 16k (16,384), 1M (1,048,576).")
    ],
    tokens: Annotated[str, typer.Option("--tokens", "-n", help="Tokens of text: 500000, 100M, 10B.")],
    layer: Annotated[
        int | None, typer.Option("--layer", "-l", help="Block, counted from 0; the middle one if left out.")
    ] = None,
    component: Annotated[
        str,
        typer.Option(
            "--component", "--hook", help="residual, residual_pre, mlp, mlp_hidden, attention, attention_heads."
        ),
    ] = "residual",
    architecture: Annotated[str, typer.Option("--architecture", "-a", help="As of neuronmap sae train.")] = "batchtopk",
    k: Annotated[int | None, typer.Option("-k", help="Active features per activation; 64 if left out.")] = None,
    device: Annotated[
        str, typer.Option(help="cpu (this machine, measured now), a100, h100, h200, b200, l40s, rtx4090.")
    ] = "cpu",
    gpus: Annotated[int, typer.Option(help="Number of devices.")] = 1,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Contexts per step, over all devices; 4,096 activations if left out, in a short run fewer."),
    ] = None,
    context_length: Annotated[int, typer.Option(help="Tokens per context.")] = 128,
    store_dtype: Annotated[str, typer.Option(help="auto, float16, bfloat16, float32, int8.")] = "auto",
    stream: Annotated[
        bool, typer.Option("--stream", help="Store no activations: model and SAE share the devices.")
    ] = False,
    analysis_tokens: Annotated[str, typer.Option(help="Tokens that the features are analysed on.")] = "524288",
    price: Annotated[
        float | None, typer.Option(help="Price of one device for an hour, in your currency; there is no default.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="List every number that the plan rests on, with its source.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what a run will take before you spend it: arithmetic, time, memory, storage, and money if you give a price.

    Nothing is downloaded but a model's configuration, and nothing is trained. Every number rests on something measured, derived,
    documented or assumed: `--explain` says which, and the docs (scale) how far it was checked.

    Examples:

        neuronmap plan --model gpt2 --width 16k --tokens 500000

        neuronmap plan --model gemma-2-2b --width 128k --tokens 1B --device h100 --gpus 8 --batch-size 256

        neuronmap plan --model llama-3-70b --width 16M --tokens 10B --device h200 --gpus 64 --stream --price 3.50
    """
    from neuronmap.planning import PlanRequest, plan_costs

    output = Output(as_json, quiet)
    request = PlanRequest(
        model=model,
        layer=layer,
        component=component,
        width=parse_count("--width", width, binary=True),
        tokens=parse_count("--tokens", tokens),
        architecture=architecture,
        k=k,
        device=device,
        gpus=gpus,
        batch_size=batch_size,
        context_length=context_length,
        store_dtype=store_dtype,
        stream=stream,
        analysis_tokens=parse_count("--analysis-tokens", analysis_tokens),
        price=price,
    )
    found = plan_costs(request)
    output.show(*_parts(found, explain))
    output.document({"schema": "neuronmap/plan/1", **found.to_dict()})


def _parts(found: CostPlan, explain: bool) -> list[Any]:
    """What a person reads."""
    request, training = found.request, found.training
    head = (
        f"{request.architecture}, {request.width:,} features, on {request.component} {request.layer} of {found.model.name} "
        f"({found.model.parameters:,} weights; {found.model.source}), {request.tokens:,} tokens, on {request.gpus} x {found.device.title}"
    )
    split = f"features over {training.tensor_parallel}, rows over {training.data_parallel}"
    fits = f"yes: {split}" if found.fits else "NO"
    money = "no price was given" if found.money is None else f"{found.money:,.2f}"
    return [
        head,
        "",
        table("", ["part", "time", "arithmetic", "memory", "storage"], _rows(found), right=["time"]),
        "",
        f"Fits: {fits}. Each device: {human_bytes(training.device_bytes)} of {human_bytes(found.device.usable_bytes)}, the SAE and what "
        "lies beside it.",
        f"Together: {duration(found.hours * 3600)}, {found.gpu_hours:,.2f} device hours, {human_bytes(found.storage.total)} on disk; "
        f"money: {money}.",
        *(f"  {note}" for note in found.notes),
        "",
        *_foundations(found, explain),
    ]


def _foundations(found: CostPlan, explain: bool) -> list[Any]:
    """The numbers behind the plan: a line, or all of them."""
    rest = found.rests_on()
    if explain:
        rows = [
            [name, f"{made['value']:,g} {made['unit']}", made["kind"], made["source"]] for name, made in rest.items()
        ]
        return [table("What this rests on", ["name", "value", "kind", "source"], rows)]
    assumed = [name for name, made in rest.items() if made["kind"] == "assumed"]
    return [
        f"Rests on {len(rest)} numbers besides arithmetic and data sheets; assumed, not measured: {', '.join(assumed)} (--explain)."
    ]


def _rows(found: CostPlan) -> list[list[str]]:
    harvest, training, storage, analysis = found.harvest, found.training, found.storage, found.analysis
    kept = (
        "streamed, not stored"
        if found.request.stream
        else f"{human_bytes(storage.store)} ({storage.row:,} bytes a row)"
    )
    return [
        [
            "harvest",
            duration(harvest.seconds),
            f"{_flops(harvest.flops)}, {harvest.tokens_per_second:,.0f} tokens/s",
            f"model {human_bytes(harvest.model_bytes)}",
            f"{kept}; tokens {human_bytes(storage.tokens)}",
        ],
        [
            "training",
            duration(training.seconds),
            f"{_flops(training.flops)}, {training.steps:,} steps of {training.batch_rows:,}, {training.step_seconds * 1e3:,.1f} ms each",
            f"weights {human_bytes(training.parameter_bytes)}, gradient and Adam {human_bytes(training.optimiser_bytes)}, step "
            f"{human_bytes(training.step_bytes)} a device; shuffling {human_bytes(training.shuffle_bytes)} (host)",
            f"checkpoints {human_bytes(storage.checkpoints)}, bundle {human_bytes(storage.bundle)}",
        ],
        [
            "analysis",
            duration(analysis.seconds),
            f"{analysis.tokens:,} tokens",
            f"{human_bytes(analysis.state_bytes)} (host)",
            human_bytes(storage.features),
        ],
    ]


def duration(seconds: float) -> str:
    """``3.2 s``, ``12 min``, ``5.1 h``, ``12 days``."""
    for limit, size, unit in ((90.0, 1.0, "s"), (5400.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86_400:,.1f} days"


def _flops(count: float) -> str:
    for power, name in ((18, "EFLOP"), (15, "PFLOP"), (12, "TFLOP")):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {name}"
    return f"{count / 1e9:,.1f} GFLOP"
