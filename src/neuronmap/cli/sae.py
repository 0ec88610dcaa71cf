"""``neuronmap sae``: train, list, show and delete SAEs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronmap.cli.engine_options import EngineOption, RayAddressOption, WorkersOption, engine_settings
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.report import config_help, entry_rows, metric_table, show_entry, stored_document
from neuronmap.cli.zoo_publish import TrainedPublication, publish_trained, require_publishable

if TYPE_CHECKING:
    from neuronmap.engines import EngineSettings
    from neuronmap.hub.entry import LibraryEntry
    from neuronmap.hub.pipeline import StoredSAE

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_OPTIONS = {
    "corpus": "--text",
    "model_name": "--model",
    "hidden_dim": "--features",
    "k": "-k",
    "max_tokens": "--tokens",
    "num_epochs": "--epochs",
    "feature_ranks": "--feature-ranks",
}
"""Options of ``train`` that are not called like their setting."""

NameArgument = Annotated[str, typer.Argument(help="Name in the library; a unique beginning is enough.")]

_LicenceOption = Annotated[str | None, typer.Option("--licence", "--license", help="With --publish: SPDX expression.")]
_AuthorOption = Annotated[
    list[str] | None, typer.Option("--author", help="With --publish: 'Name <orcid>'; repeat for more.")
]

_ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML recipe with any of the settings below.")
]
_ResumeOption = Annotated[
    str | None, typer.Option(help="Continue an interrupted run: its folder, or its name in runs/ in the home folder.")
]
_InitFromOption = Annotated[
    str | None, typer.Option(help="Start from an SAE: name in the library, or folder (fine-tuning).")
]
_FeatureRanksOption = Annotated[
    int | None, typer.Option(help="Under torchrun: processes that share the features; also with --resume.")
]
_PrivateOption = Annotated[
    bool, typer.Option("--private", help="With --publish: only members of the namespace see it.")
]
_ZooOption = Annotated[
    str | None, typer.Option("--zoo", "-z", metavar="ZOO", help="With --publish: folder or address of the zoo.")
]

ArchitectureOption = Annotated[
    str | None,
    typer.Option("--architecture", "-a", help="relu, gated, topk, batchtopk, jumprelu, matryoshka, lista."),
]


@app.command("train", epilog=config_help())
@command_output
def train(
    config: _ConfigOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", help="One setting as name=value, architecture_options.name=value; repeat for more."
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", "-t", help="Corpus name, file, folder, hf:owner/name, mix:weight*source,... (corpus)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Hub id, folder, GGUF file or smollm2-135m (model_name).")
    ] = None,
    layer: Annotated[int | None, typer.Option("--layer", "-l", help="Block, counted from 0.")] = None,
    component: Annotated[str | None, typer.Option(help="residual, mlp, attention, ... or path:out.")] = None,
    architecture: ArchitectureOption = None,
    features: Annotated[int | None, typer.Option("--features", "-f", help="Number of features (hidden_dim).")] = None,
    k: Annotated[int | None, typer.Option("-k", help="Active features per activation.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens of text to train on (max_tokens).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the activations (num_epochs).")] = None,
    name: Annotated[str | None, typer.Option(help="Name in the library.")] = None,
    resume: _ResumeOption = None,
    init_from: _InitFromOption = None,
    feature_ranks: _FeatureRanksOption = None,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of an SAE with the same name.")] = False,
    evaluate: Annotated[bool, typer.Option(help="Evaluate in the model afterwards.")] = True,
    publish: Annotated[
        str | None, typer.Option(metavar="REF", help="Then publish it in the zoo, as namespace/name@version.")
    ] = None,
    licence: _LicenceOption = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="With --publish: a tag; repeat for more.")] = None,
    author: _AuthorOption = None,
    title: Annotated[str, typer.Option(help="With --publish: one line; made from the content if left out.")] = "",
    draft: Annotated[bool, typer.Option("--draft", help="With --publish: replaceable until zoo release.")] = False,
    private: _PrivateOption = False,
    zoo: _ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train an SAE, evaluate it on held-out text, and put it into the library.

    Activations are harvested once and reused by later runs. Ctrl-C saves a checkpoint.

    **--resume** continues an interrupted run bit for bit: same weights, optimiser, schedules, random numbers and place
    in the data, as if it had never stopped; a finished run whose SAE is not in the library is put there, under another
    **--name** if you like. **--init-from** begins a new run from another SAE's weights, with a fresh optimiser and
    schedule: that is fine-tuning.

    Examples:

        neuronmap sae train --model smollm2-135m --layer 15 --text sotu --features 4096 -k 32

        neuronmap sae train --config run.toml --set k=64 --set num_epochs=2

        neuronmap sae train --resume 20260101-120000-batchtopk-1a2b3c

        neuronmap sae train --config run.toml --publish ada/demo@1.0 --licence MIT

        neuronmap sae train --config run.toml --engine ray --ray-address auto     (on all hosts of a Ray cluster)
    """
    fields = {
        "corpus": text,
        "model_name": model,
        "layer": layer,
        "component": component,
        "architecture": architecture,
        "hidden_dim": features,
        "k": k,
        "max_tokens": tokens,
        "num_epochs": epochs,
        "feature_ranks": feature_ranks,
    }
    output = Output(as_json, quiet)
    publication = _publication(publish, licence, tag, author, title, draft, private, zoo)
    if publication is not None:
        require_publishable(publication)
    where = engine_settings(engine, ray_address, workers)
    stored = _run_training(output, config, settings or [], fields, name, resume, init_from, evaluate, replace, where)
    if stored.metrics is not None:
        output.show(*metric_table(stored.metrics))
    output.show(*show_entry(stored.entry))
    ours = publication if output.rank == 0 else None
    published = publish_trained(output, stored.entry, ours) if ours is not None else None
    document = stored_document("neuronmap/sae.train/1", stored.entry, run=str(stored.run.folder), published=published)
    output.document(document)


def _publication(
    reference: str | None,
    licence: str | None,
    tags: list[str] | None,
    authors: list[str] | None,
    title: str,
    draft: bool,
    private: bool,
    zoo: str | None,
) -> TrainedPublication | None:
    """What ``--publish`` and the options that go with it say; these alone would be dropped in silence, and are refused."""
    from neuronmap.errors import ConfigError

    if reference is not None:
        return TrainedPublication(
            reference, licence, tuple(tags or ()), tuple(authors or ()), title, draft, private, zoo
        )
    options = {
        "--licence": licence,
        "--tag": tags,
        "--author": authors,
        "--title": title,
        "--draft": draft,
        "--private": private,
        "--zoo": zoo,
    }
    if given := [option for option, value in options.items() if value]:
        raise ConfigError(
            f"{', '.join(given)} goes with --publish, which is not there.", hint="--publish namespace/name@1.0"
        )
    return None


def _run_training(
    output: Output,
    config: Path | None,
    settings: list[str],
    fields: dict[str, Any],
    name: str | None,
    resume: str | None,
    init_from: str | None,
    evaluate: bool,
    replace: bool,
    engine: EngineSettings,
) -> StoredSAE:
    """What ``train`` does once its options are parsed."""
    from neuronmap.errors import ConfigError
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.pipeline import train_into_library
    from neuronmap.training import load_recipe

    hub, recipe, start = SAEModelHub(), None, None
    ranks = fields["feature_ranks"]
    typed = {
        _OPTIONS.get(field, f"--{field}"): value
        for field, value in fields.items()
        if value is not None and field != "feature_ranks"  # which may change from one start to the next
    }
    if resume is None:
        _refuse_twice(settings, {**fields, "name": name})
        recipe = load_recipe(config, settings, **fields, name=name)
    else:
        others = {"--config": config, "--set": settings or None, "--init-from": init_from, **typed}
        if given := [option for option, value in others.items() if value is not None]:
            raise ConfigError(
                f"--resume goes on with the run's own settings; {', '.join(given)} cannot be given with it.",
                hint="To start a new run from that SAE with other settings, use --init-from.",
            )
    if init_from is not None:
        start = init_from if Path(init_from).is_dir() else hub.get(init_from).path
    ranks = ranks if resume is not None else None
    asked: dict[str, Any] = {
        "name": name,
        "resume": resume,
        "feature_ranks": ranks,
        "init_from": start,
        "evaluate": evaluate,
        "replace": replace,
        "progress": output.progress(),
    }
    if engine.engine == "ray":
        from neuronmap.hub.ray_training import train_on_ray

        return train_on_ray(recipe, engine, **asked)
    return train_into_library(recipe, hub=hub, **asked)


def _refuse_twice(settings: list[str], fields: dict[str, Any]) -> None:
    """One setting must not be typed in two ways: whichever lost would be dropped in silence."""
    from neuronmap.errors import ConfigError
    from neuronmap.training.recipe import parse_setting

    for text in settings:
        field = parse_setting(text)[0]
        if fields.get(field) is not None:
            option = _OPTIONS.get(field, f"--{field}")
            raise ConfigError(
                f"{field} is given twice: by --set {text} and by {option} {fields[field]}.",
                hint="Leave one of them out.",
            )


@app.command("list-models")
@command_output
def list_models(
    model: Annotated[str | None, typer.Option(help="Only SAEs of this language model.")] = None,
    layer: Annotated[int | None, typer.Option(help="Only this layer.")] = None,
    component: Annotated[str | None, typer.Option(help="Only this component.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only SAEs with this tag.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="Only where a metric fits, e.g. 'explained_variance>=0.7'."),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Metric or field to sort by; - in front turns it round.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the SAEs in this machine's library.

    Examples:

        neuronmap sae list-models --model smollm2-135m --layer 15

        neuronmap sae list-models --where 'l0<=40' --sort=-explained_variance
    """
    from neuronmap.hub import SAEModelHub

    output = Output(as_json, quiet)
    hub = SAEModelHub()
    found = hub.search(
        model=model,
        layer=layer,
        component=component,
        architecture=architecture,
        tag=tag or (),
        where=where or (),
        sort=sort or "id",
    )
    columns = ["name", "architecture", "features", "L0", "expl. var.", "CE score", "size", "created"]
    output.show(
        table("", columns, entry_rows(found), right=["features", "L0", "expl. var.", "CE score", "size"])
        if found
        else f"No SAE in {hub.root} fits."
        if hub.list()
        else f"The library {hub.root} is empty. Try: neuronmap demo"
    )
    if (where or sort) and len(_measured_on(found)) > 1:
        output.show(
            "",
            "These figures are of different places or texts and do not rank these SAEs; "
            "neuronmap sae leaderboard shows which may be compared.",
        )
    output.document(
        {
            "schema": "neuronmap/sae.list-models/1",
            "library": str(hub.root),
            "saes": [entry.to_dict() for entry in found],
        }
    )


def _measured_on(entries: Iterable[LibraryEntry]) -> set[tuple[str | None, str | None, str | None]]:
    """Model, hook and training text of the SAEs that have figures."""
    return {(one.model, one.hook, (one.training or {}).get("corpus")) for one in entries if one.metrics}


@app.command("show")
@command_output
def show(
    name: NameArgument,
    verify: Annotated[bool, typer.Option("--verify", help="Also compare the weights with their digest.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show one SAE: where it comes from, its metrics, and how to load it."""
    from neuronmap.evaluation import CoreMetrics
    from neuronmap.hub import SAEModelHub
    from neuronmap.paths import read_json

    output = Output(as_json, quiet)
    hub = SAEModelHub()
    entry = hub.get(name)
    if verify:
        hub.verify(entry.id)
    file = entry.path / "metrics.json"
    record = read_json(file).get("core") if file.exists() else None
    if record is not None:
        output.show(*metric_table(CoreMetrics.from_dict(record)))
    output.show(*show_entry(entry, verified=verify))
    output.document(stored_document("neuronmap/sae.show/1", entry, core=record))


@app.command("delete")
@command_output
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needs the whole name.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete an SAE from the library (asks first). Its training run, if it is still there, stays."""
    from neuronmap.errors import ConfigError
    from neuronmap.hub import SAEModelHub

    output = Output(as_json, quiet)
    hub = SAEModelHub()
    entry = hub.get(name)
    if not yes:
        if as_json or quiet:
            raise ConfigError(
                "delete asks before it deletes, which --json and --quiet do not allow.", hint="Add --yes."
            )
        if not typer.confirm(f"Delete {entry.id} ({entry.path})?"):
            raise typer.Exit(0)
    elif entry.id != name:
        raise ConfigError(
            f"'{name}' is not the whole name of an SAE, which --yes needs; it begins {entry.id}.",
            hint=f"neuronmap sae delete {entry.id} --yes",
        )
    hub.delete(entry.id)
    output.show(f"Deleted {entry.id}.")
    output.document({"schema": "neuronmap/sae.delete/1", "deleted": entry.id})
