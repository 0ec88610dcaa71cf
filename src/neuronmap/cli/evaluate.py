"""``neuronmap sae evaluate``: the core metrics of an SAE, or suites with baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from neuronmap.cli.engine_options import EngineOption, RayAddressOption, WorkersOption, engine_settings
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.report import metric_table, number, stored_document
from neuronmap.evaluation.metrics import Estimate
from neuronmap.evaluation.suites.table import suite_rows

if TYPE_CHECKING:
    from neuronmap.evaluation.suites import SuiteResult
    from neuronmap.evaluation.suites.settings import SuiteSettings
    from neuronmap.hub import LibraryEntry, SAEModelHub

__all__ = ["evaluate", "suite_table"]

_COLUMNS = ("sae", "identity", "pca", "random", "matched", "neurons", "dense", "chance")
_CeTokensOption = Annotated[
    int | None,
    typer.Option(help="Tokens run through the whole model for loss and KL. [8,192; 4,096 with --suite]"),
]
_ProbeSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--probe-set", help="With probing: a data set of sae-probes, by name or number, or all; repeat for more."
    ),
]
_ProbeDataOption = Annotated[
    Path | None, typer.Option(help="Folder with the data of sae-probes; its installed package if left out.")
]
_SAEBenchOption = Annotated[
    Path | None,
    typer.Option("--saebench", help="With --suite: write results in SAEBench's form, to a .json file or a folder."),
]


@command_output
def evaluate(
    name: Annotated[str, typer.Argument(help="Name in the library; a unique beginning is enough.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            help="core, probing, absorption, structure, stability; commas between, or repeat. Core without baselines if left out.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="With stability: an SAE of another seed, its name in the library.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", "-t", help="Text to evaluate on; the held-out part of the training text if left out."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Language model, if not the one it was trained on.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens for reconstruction and sparsity.")] = 16_384,
    ce_tokens: _CeTokensOption = None,
    items: Annotated[int | None, typer.Option(help="With probing: items of each concept. [320]")] = None,
    probe_set: _ProbeSetOption = None,
    probe_data: _ProbeDataOption = None,
    words: Annotated[int | None, typer.Option(help="With absorption: most words a letter. [160]")] = None,
    saebench: _SAEBenchOption = None,
    again: Annotated[bool, typer.Option("--again", help="With --suite: measure again what is stored.")] = False,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; as in training if left out.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the language model: auto, float32, bfloat16, float16; as in training if left out."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on although model, revision or tokenizer differ.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure an SAE: reconstruction, sparsity, and what the language model does with the reconstruction in place.

    Every figure comes with its standard error (whole contexts resampled). See the page "Metrics" in the docs for exact
    definitions. The result is kept with the SAE.

    With **--suite** further questions are asked (which concepts lie in a few features, whether features absorb others, what the
    decoder looks like, what a second seed finds again), always with baselines in the table: the activation itself, PCA, random
    directions, neurons. Each suite is kept when it is finished, and not measured again on the same inputs; Ctrl-C loses only the one
    under way.

    Examples:

        neuronmap sae evaluate demo

        neuronmap sae evaluate demo --text my-notes.txt --tokens 50000

        neuronmap sae evaluate demo --suite core,probing,absorption,structure --saebench results/

        neuronmap sae evaluate demo --suite stability --against demo-seed1

        neuronmap sae evaluate demo --suite core,probing,structure --engine ray     (by workers)
    """
    from neuronmap.hub import SAEModelHub

    output, hub = Output(as_json, quiet), SAEModelHub()
    entry = hub.get(name)
    where = engine_settings(engine, ray_address, workers)
    common: dict[str, Any] = {"text": text, "model": model, "device": device, "dtype": dtype, "force": force}
    thorough = {"--items": items, "--probe-set": probe_set, "--probe-data": probe_data, "--words": words}
    if suite is None:
        _refuse_alone({"--against": against, "--saebench": saebench, "--again": again or None, **thorough})
        _refuse_alone({"--engine ray": where.engine == "ray" or None})
        _evaluate_core(output, hub, entry, common, tokens, 8_192 if ce_tokens is None else ce_tokens)
        return
    common |= {
        "suites": [part.strip() for one in suite for part in one.split(",") if part.strip()],
        "against": against,
        "again": again,
        "engine": where,
        "settings": _settings(tokens, ce_tokens, items, probe_set, probe_data, words),
    }
    _evaluate_suites(output, hub, entry, common, saebench)


def _refuse_alone(options: dict[str, Any]) -> None:
    """What goes with ``--suite`` alone would be dropped in silence, and is refused."""
    from neuronmap.errors import ConfigError

    if given := [option for option, value in options.items() if value is not None]:
        raise ConfigError(f"{', '.join(given)} goes with --suite, which is not there.", hint="--suite core,probing")


def _evaluate_core(
    output: Output, hub: SAEModelHub, entry: LibraryEntry, common: dict[str, Any], tokens: int, ce_tokens: int
) -> None:
    from neuronmap.hub.pipeline import evaluate_entry

    metrics = evaluate_entry(hub, entry, tokens=tokens, ce_tokens=ce_tokens, progress=output.progress(), **common)
    output.show(*metric_table(metrics))
    output.document(stored_document("neuronmap/sae.evaluate/1", hub.get(entry.id), core=metrics.to_dict()))


def _evaluate_suites(
    output: Output, hub: SAEModelHub, entry: LibraryEntry, asked: dict[str, Any], saebench: Path | None
) -> None:
    from neuronmap.hub.evaluating import check_saebench, evaluate_suites_entry, write_saebench

    if saebench is not None:
        check_saebench(asked["suites"], saebench)
    result = evaluate_suites_entry(hub, entry, progress=output.progress(), **asked)
    output.show(*suite_table(result))
    files = write_saebench(result, entry, saebench) if saebench is not None else []
    for file in files:
        output.show(f"Written in SAEBench's form: {file}")
    _document(output, hub, entry, result, files)


def _settings(
    tokens: int,
    ce_tokens: int | None,
    items: int | None,
    probe_set: list[str] | None,
    probe_data: Path | None,
    words: int | None,
) -> SuiteSettings:
    from neuronmap.evaluation.suites.settings import SuiteSettings

    given = {"max_ce_tokens": ce_tokens, "items": items, "probe_data": probe_data, "words_per_letter": words}
    chosen: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    return SuiteSettings(max_tokens=tokens, probe_sets=tuple(probe_set or ()), **chosen)


def _document(output: Output, hub: SAEModelHub, entry: LibraryEntry, result: SuiteResult, files: list[Path]) -> None:
    core = result.suites.get("core")
    output.document(
        stored_document(
            "neuronmap/sae.evaluate/1",
            hub.get(entry.id),
            core=core.to_dict()["result"]["sae"] if core is not None else None,
            suites=result.to_dict()["suites"],
            saebench=[str(file) for file in files],
        )
    )


def suite_table(result: SuiteResult) -> list[RenderableType]:
    """A table a suite, baselines beside the SAE; then what the baselines are, and what could not be established, and why."""
    shown: list[RenderableType] = []
    notes: dict[str, None] = {}
    for name, record in result.suites.items():
        rows = suite_rows(record)
        columns = [column for column in _COLUMNS if any(column in row.values for row in rows)]
        lines = [
            [row.figure, *(_cell(row.values.get(column), column == "sae" or row.difference) for column in columns)]
            for row in rows
        ]
        shown += [table(name, ["figure", *columns], lines, right=columns, whole=["figure"]), ""]
        for row in rows:
            own = row.values.get("sae")
            if isinstance(own, Estimate) and own.value is None and own.reason:
                notes[f"{name}: {own.reason}."] = None
        if any(row.difference for row in rows):
            notes[
                "lead: AUC of the SAE minus that of the column, at the same k (dense: the SAE's at its largest k); paired."
            ] = None
        if (l0 := record.protocol.l0_measured) is not None:
            notes[
                f"{name}: the SAE's L0 is {number(l0, 1)} on the rows measured here, which is the baselines' k, rounded "
                f"({number(record.protocol.l0, 1)} on the rows that they were fitted on)."
            ] = None
        notes |= dict.fromkeys(f"{baseline}: {facts.description}." for baseline, facts in record.baselines.items())
    return [
        *shown,
        "Of the SAE, and of leads, the 95 % interval; of others the standard error.",
        *(escape(note) for note in notes),
        "",
    ]


def _cell(value: Estimate | float | None, own: bool) -> str:
    if not isinstance(value, Estimate):
        return number(value)
    if value.error is None or value.low is None or value.high is None:
        return number(value.value)
    return f"{number(value.value)} " + (
        f"[{number(value.low)}, {number(value.high)}]" if own else f"± {number(value.error)}"
    )
