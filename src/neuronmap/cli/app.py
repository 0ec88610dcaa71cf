"""The command tree."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from neuronmap.allocator import keep_freed_memory
from neuronmap.cli import (
    analyze,
    concepts,
    corpora,
    demo,
    doctor,
    evaluate,
    features,
    formats,
    jobs,
    leaderboard,
    live,
    models,
    sae,
    serve,
    site,
    tracking,
    zoo,
)
from neuronmap.cli.output import command_output
from neuronmap.errors import ConfigError

__all__ = ["app", "main"]

app = typer.Typer(
    name="neuronmap",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Train, evaluate, explore and share sparse autoencoders (SAEs) on any Hugging Face transformer.

Start with `neuronmap demo` (about five minutes), then `neuronmap sae train --help`.
Everything is kept under one folder: NEURONMAP_HOME, or the platform's user data folder.""",
)
app.add_typer(
    sae.app,
    name="sae",
    help="Train, evaluate, analyse, steer, compare and keep SAEs; track concepts through the layers.",
)
sae.app.command("evaluate")(evaluate.evaluate)
sae.app.command("leaderboard")(leaderboard.leaderboard)
sae.app.command("analyze", epilog=analyze.settings_help())(analyze.analyze)
sae.app.command("list-analyses")(features.list_analyses)
sae.app.command("find-examples")(features.find_examples)
sae.app.command("export-features")(features.export)
sae.app.command("site")(site.site)
sae.app.command("import")(formats.import_format)
sae.app.command("export")(formats.export_format)
sae.app.command("convert")(formats.convert_format)
sae.app.command("steer")(live.steer)
sae.app.command("compare")(live.compare)
sae.app.command("track-abstractions", epilog=tracking.settings_help())(tracking.track_abstractions)
sae.app.command("list-concepts")(concepts.list_concepts)
sae.app.command("list-reports")(tracking.list_reports)
sae.app.command("show-report")(tracking.show_report)
sae.app.command("delete-report")(tracking.delete_report)
app.add_typer(models.app, name="models", help="Look into language models.")
app.add_typer(corpora.app, name="corpora", help="Text to train on.")
app.add_typer(jobs.app, name="jobs", help="Work in the background: list, follow, cancel, resume and run jobs.")
app.add_typer(zoo.app, name="zoo")
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


@app.command("schema")
@command_output
def schema(
    command: Annotated[str | None, typer.Argument(help="A command, e.g. 'sae show'; all of them if left out.")] = None,
) -> None:
    """Print the JSON schema of what a command prints with `--json`."""
    from neuronmap.cli.documents import DOCUMENTS

    if command is not None and command not in DOCUMENTS:
        raise ConfigError(f"No document for {command!r}. There are: {', '.join(DOCUMENTS)}.")
    names = [command] if command is not None else list(DOCUMENTS)
    found = {name: DOCUMENTS[name].model_json_schema() for name in names}
    typer.echo(json.dumps(found[command] if command is not None else found, indent=2))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"neuronmap {version('neuronmap')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """NeuronMap."""
    del show_version


def main() -> None:
    """Entry point of the console script: the process is ours, so its memory settings are too.

    A server lives long and runs no model: it gives freed memory back.
    """
    if sys.argv[1:2] != ["serve"] and sys.argv[1:3] != ["zoo", "serve"]:
        keep_freed_memory()
    app()
