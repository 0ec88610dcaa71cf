"""The command tree: every command."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from neuronmap.cli import (
    analyze,
    buckets,
    cache,
    concepts,
    corpora,
    demo,
    doctor,
    evaluate,
    explain,
    features,
    formats,
    harvest,
    jobs,
    labels,
    leaderboard,
    live,
    models,
    plan,
    sae,
    score,
    serve,
    site,
    sweep,
    tracking,
    zoo,
)
from neuronmap.cli.output import command_output
from neuronmap.cli.root import command_tree
from neuronmap.errors import ConfigError

__all__ = ["app"]

app = command_tree()
app.add_typer(
    sae.app,
    name="sae",
    help="Train, evaluate, analyse, steer, compare and keep SAEs; track concepts through the layers.",
)
sae.app.command("sweep", epilog=sweep.sweep_help())(sweep.sweep)
sae.app.command("harvest")(harvest.harvest)
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
sae.app.command("push")(buckets.push)
sae.app.command("pull")(buckets.pull)
sae.app.command("steer")(live.steer)
sae.app.command("compare")(live.compare)
sae.app.command("track-abstractions", epilog=tracking.settings_help())(tracking.track_abstractions)
sae.app.command("list-concepts")(concepts.list_concepts)
sae.app.command("list-reports")(tracking.list_reports)
sae.app.command("show-report")(tracking.show_report)
sae.app.command("delete-report")(tracking.delete_report)
sae.app.command("explain")(explain.explain)
sae.app.command("score")(score.score)
sae.app.add_typer(labels.app, name="labels", help="What people, models and rules say of features: list, add, merge.")
app.add_typer(models.app, name="models", help="Look into language models.")
app.add_typer(corpora.app, name="corpora", help="Text to train on.")
app.add_typer(cache.app, name="cache", help="Room on the disk: what the caches hold, and cleaning them.")
app.add_typer(jobs.app, name="jobs", help="Work in the background: list, follow, cancel, resume and run jobs.")
app.add_typer(zoo.app, name="zoo")
app.command("plan")(plan.plan)
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
