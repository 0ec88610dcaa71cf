"""``neuronmap sae analyze``: every feature of an SAE in one pass, into a feature store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.engine_options import EngineOption, RayAddressOption, StoreOption, WorkersOption, engine_settings
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.report import number
from neuronmap.errors import ConfigError
from neuronmap.features.config import AnalysisConfig
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from neuronmap.features.storage.store import FeatureStore

__all__ = ["analyze", "settings_help"]
_ShardOption = Annotated[str | None, typer.Option(help="Only part I of N of the pass, as I/N; any machine, any order.")]
_MergeOption = Annotated[
    list[Path] | None, typer.Option(help="Work folder of a finished shard; give all of them, in any order.")
]
_ResumeOption = Annotated[
    bool, typer.Option("--resume/--restart", help="Go on with an interrupted pass, or begin it anew.")
]
_MapOption = Annotated[
    bool, typer.Option("--map/--no-map", help="Two-dimensional map with clusters; needs neuronmap\\[map].")
]


def settings_help() -> str:
    """Every field of AnalysisConfig with its default and meaning, for ``--help``."""
    lines = ["**Settings** for `--set`:", ""]
    for name, field in AnalysisConfig.model_fields.items():
        lines.append(f"- `{name}`: {' '.join((field.description or '').split())} [default: {field.default}]")
    return "\n".join(lines)


@command_output
def analyze(
    names: Annotated[
        list[str], typer.Argument(metavar="SAE...", help="Names in the library; several of one model share one pass.")
    ],
    text: Annotated[
        str | None,
        typer.Option(
            "--text", "--corpus", "-t", help="Corpus name, file or folder; what it was trained on if left out."
        ),
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens of it; all that training read if left out.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Language model, if not the one it was trained on.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="One setting as name=value; repeat for more.")
    ] = None,
    lens: Annotated[bool, typer.Option(help="Direct logits: what each feature promotes.")] = True,
    feature_map: _MapOption = True,
    hints: Annotated[bool, typer.Option(help="Labels by rules, each with measured precision and recall.")] = True,
    shard: _ShardOption = None,
    folder: Annotated[Path | None, typer.Option(help="Where the work of a shard lies.")] = None,
    merge: _MergeOption = None,
    resume: _ResumeOption = True,
    replace: Annotated[bool, typer.Option("--replace", help="Make it anew although this analysis is there.")] = False,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    workers: WorkersOption = None,
    bucket: StoreOption = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; as in training if left out.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the language model; as in training if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on although model, revision or tokenizer differ.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Analyse every feature of an SAE in one pass: statistics, examples, neighbours, co-activation, logits, hints.

    Reads the activations that training stored, if they are there; else the language model runs over the text once, for all
    SAEs that are named. The result is a **feature store**, kept with the SAE. Ctrl-C saves; the same command continues.

    Examples:

        neuronmap sae analyze demo

        neuronmap sae analyze demo --text my-notes.txt --tokens 500000

        neuronmap sae analyze demo --shard 1/4 --folder shard-1     (and 2/4, 3/4, 4/4, anywhere)

        neuronmap sae analyze demo --merge shard-1 --merge shard-2 --merge shard-3 --merge shard-4

        neuronmap sae analyze demo --engine ray --ray-address auto     (on all hosts of a Ray cluster, to the same bytes)
    """
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.hub.analyzing import AnalysisRequest, analyze_into_library

    output = Output(as_json, quiet)
    request = AnalysisRequest(
        text=text,
        tokens=tokens,
        model=model,
        device=device,
        dtype=dtype,
        force=force,
        config=_config(settings or []),
        lens=lens,
        feature_map=feature_map,
        hints=hints,
        replace=replace,
        restart=not resume,
        shard=None if shard is None else _shard(shard),
        folder=folder,
        engine=engine_settings(engine, ray_address, workers),
        bucket=bucket,
    )
    made = analyze_into_library(names, request, merge=merge or [], progress=output.progress())
    if request.shard is not None:
        output.show(f"Shard {shard} is done: {escape(str(made[0]))}")
        output.document({"schema": "neuronmap/sae.analyze/1", "analyses": [], "shard": str(made[0])})
        return
    stores = [FeatureStore.open(path) for path in made]
    for name, store in zip(names, stores, strict=True):
        output.show(*analysis_report(name, store))
    output.document(
        {
            "schema": "neuronmap/sae.analyze/1",
            "analyses": [analysis_record(name, store) for name, store in zip(names, stores, strict=True)],
            "shard": None,
        }
    )


def analysis_record(name: str, store: FeatureStore) -> dict[str, Any]:
    """One analysis for machines."""
    files = sum(int(facts["bytes"]) for facts in store.manifest["files"].values())
    return {
        "sae": name,
        "path": str(store.path),
        "key": store.key,
        "features": store.num_features,
        "rows": store.manifest["rows"],
        "bytes": files,
        "overview": store.overview,
    }


def analysis_report(name: str, store: FeatureStore) -> list[RenderableType]:
    """What a finished analysis says, for people."""
    counts = store.queries
    rows = [
        [status, f"{counts.count(f'status={status}'):,}", about]
        for status, about in (
            ("alive", "fired at least 10 times, on less than 10 % of the tokens"),
            ("dense", "fired on more than 10 % of the tokens"),
            ("rare", "fired fewer than 10 times"),
            ("never", "never fired on this text"),
        )
    ]
    files = sum(int(facts["bytes"]) for facts in store.manifest["files"].values())
    corpus = store.facts.get("corpus", {})
    where = f"{store.manifest['rows']:,} tokens of {corpus.get('name', 'text')}"
    return [
        table(f"{name}: {store.num_features:,} features on {where}", ["features", "count", ""], rows, right=["count"]),
        "",
        f"Feature store: {escape(str(store.path))} ({human_bytes(files)}, {number(files / store.num_features, 0)} bytes a feature)",
        f"[bold]Next[/]: neuronmap sae find-examples {name} --text 'some words',  neuronmap sae export-features {name} --format html",
    ]


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--shard {text!r}: give it as I/N with I from 1 to N, such as 1/4.")
    return int(found[1]) - 1, int(found[2])


def _config(settings: list[str]) -> AnalysisConfig:
    from neuronmap.training.recipe import parse_setting

    return AnalysisConfig(**dict(parse_setting(text) for text in settings))
