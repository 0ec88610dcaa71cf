"""``neuronmap sae export-features, find-examples, list-analyses``: what an analysis knows, on the terminal and in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.errors import ConfigError, InputError
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.features.live.found import FoundFeature
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.hub import LibraryEntry, SAEModelHub

__all__ = ["AnalysisOption", "NameArgument", "export", "find_examples", "list_analyses", "opened"]

NameArgument = Annotated[str, typer.Argument(metavar="SAE", help="Name in the library; a unique beginning is enough.")]
AnalysisOption = Annotated[
    str | None, typer.Option("--analysis", help="Which analysis, by its name or its beginning; the newest if left out.")
]


def opened(hub: SAEModelHub, name: str, analysis: str | None) -> tuple[LibraryEntry, FeatureStore]:
    """An SAE of the library and one of its analyses."""
    from neuronmap.hub.analyses import open_analysis

    entry = hub.get(name)
    return entry, open_analysis(entry, analysis)


@command_output
def list_analyses(
    name: NameArgument,
    delete: Annotated[str | None, typer.Option(help="Delete this analysis; takes its whole name.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the analyses of an SAE, the newest first."""
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.analyses import delete_analysis
    from neuronmap.hub.analyses import list_analyses as listed

    output = Output(as_json, quiet)
    entry = SAEModelHub().get(name)
    if delete is not None:
        delete_analysis(entry, delete)
        output.show(f"Deleted analysis {delete} of {entry.id}.")
    found = listed(entry)
    rows = [
        [one.name, one.corpus, f"{one.tokens:,}", human_bytes(one.size_bytes), one.created[:16], one.problem]
        for one in found
    ]
    columns = ["analysis", "text", "tokens", "size", "created", "problem"]
    output.show(
        table("", columns, rows, right=["tokens", "size"])
        if found
        else f"{entry.id} has no analysis yet. Make one: neuronmap sae analyze {entry.id}"
    )
    output.document(
        {
            "schema": "neuronmap/sae.list-analyses/1",
            "sae": entry.id,
            "deleted": delete,
            "analyses": [one.to_dict() for one in found],
        }
    )


@command_output
def export(
    name: NameArgument,
    form: Annotated[
        str, typer.Option("--format", "-f", help="json, jsonl, csv, parquet, html or neuronpedia.")
    ] = "json",
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (neuronpedia: folder); named after the SAE if left out.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Numbers and ranges, such as 1,2,5-9.")] = None,
    top: Annotated[int | None, typer.Option(help="So many, the first by --by.")] = None,
    by: Annotated[
        str | None,
        typer.Option(help="max, density or score (low end of F1 of the hint), the largest first; max if left out."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", "--corpus", "-t", help="Analyse on this first, if that has not been done."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens of that text.")] = None,
    analysis: AnalysisOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file or folder.")] = False,
    neuronpedia_model: Annotated[
        str | None, typer.Option(help="Id of the model on Neuronpedia; made from its name if left out.")
    ] = None,
    neuronpedia_set: Annotated[str, typer.Option(help="Name of the source set on Neuronpedia.")] = "neuronmap",
    author: Annotated[str, typer.Option(help="Who made the SAE, for Neuronpedia.")] = "unknown",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write features of an analysed SAE to a file: all that ever fired, some by number, or the first by a figure.

    **json**, **jsonl**: everything, with lists and examples. **csv**, **parquet**: one row a feature. **html**: one page that
    needs nothing else. **neuronpedia**: a folder in the bulk format that its importer reads.

    Examples:

        neuronmap sae export-features demo --format html --top 100 --by score

        neuronmap sae export-features demo --features 1,2,5-9 --format json -o features.json

        neuronmap sae export-features demo --corpus sotu --tokens 100000 --format csv
    """
    from neuronmap.features.export import FORMATS, NeuronpediaNames, chosen_features, export_features
    from neuronmap.features.export.neuronpedia import model_id
    from neuronmap.hub import SAEModelHub

    output = Output(as_json, quiet)
    if form not in FORMATS:
        raise ConfigError(f"--format {form!r}: allowed are {', '.join(FORMATS)}.")
    hub = SAEModelHub()
    entry, store = _analysed(hub, name, analysis, text, tokens, output)
    chosen = chosen_features(store, features, top, by)
    names = None
    if form == "neuronpedia":
        if entry.layer is None:
            raise InputError(f"{entry.id} does not say which block it is of; Neuronpedia's sources are named by it.")
        model = neuronpedia_model or model_id(entry.model or "model")
        release = entry.id.replace("/", "-")
        names = NeuronpediaNames(model, neuronpedia_set, entry.layer, release=release, author=author)
    ending = "neuronpedia" if form == "neuronpedia" else form
    place = target if target is not None else Path(f"{entry.id.replace('/', '-')}-features.{ending}")
    written = export_features(
        store, chosen, form, place, title=entry.id, names=names, overwrite=overwrite, progress=output.progress()
    )
    files = [written] if written.is_file() else sorted(file for file in written.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    output.show(f"{len(chosen):,} features: {escape(str(written))} ({human_bytes(size)})")
    output.document(
        {
            "schema": "neuronmap/sae.export-features/1",
            "sae": entry.id,
            "analysis": store.key,
            "format": form,
            "path": str(written),
            "features": len(chosen),
            "bytes": size,
        }
    )


@command_output
def find_examples(
    name: NameArgument,
    features: Annotated[str | None, typer.Option(help="Numbers and ranges, such as 1,2,5-9.")] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Features that fire on this text.")] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", help="Features whose label or tokens hold this.")
    ] = None,
    random: Annotated[int | None, typer.Option(help="So many features drawn at random of those alive.")] = None,
    seed: Annotated[int, typer.Option(help="Of --random.")] = 0,
    min_activation: Annotated[float, typer.Option(help="Leave out what is weaker.")] = 0.0,
    quantile: Annotated[
        int | None, typer.Option(help="Only this group of the firing distribution, 0 the weakest.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens before and after the peak.")] = None,
    max_examples: Annotated[
        int | None, typer.Option(help="Of each feature; 10, 5 for --random, 3 for --text and --search.")
    ] = None,
    max_features: Annotated[int, typer.Option(help="Features shown for --text and --search.")] = 10,
    contrast: Annotated[bool, typer.Option("--contrast", help="Also examples where the feature is silent.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Language model for --text, if not the SAE's own.")
    ] = None,
    analysis: AnalysisOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show where features fire, in colour: by number, by a text they fire on, or by label.

    Examples:

        neuronmap sae find-examples demo --features 17,42 --contrast

        neuronmap sae find-examples demo --text "The winter of 1862 was long."

        neuronmap sae find-examples demo --search war

        neuronmap sae find-examples demo --random 10 --seed 1
    """
    from neuronmap.features.export import parse_features
    from neuronmap.features.live.finder import MaxActivatingExamplesFinder
    from neuronmap.hub import SAEModelHub

    output = Output(as_json, quiet)
    given = [
        option
        for option, value in (("--features", features), ("--text", text), ("--search", search), ("--random", random))
        if value is not None
    ]
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given) or 'Nothing'} {'were' if len(given) > 1 else 'was'} given; exactly one of --features, --text,"
            " --search and --random is needed.",
        )
    if quantile is not None and features is None:
        raise ConfigError("--quantile goes with --features.")
    hub = SAEModelHub()
    entry, store = opened(hub, name, analysis)
    finder = MaxActivatingExamplesFinder(store, sae=entry.path, model=model, progress=output.progress())
    most = max_examples if max_examples is not None else {"--features": 10, "--random": 5}.get(given[0], 3)
    options: dict[str, Any] = {
        "min_activation": min_activation, "context": context, "max_examples": most, "contrast": contrast,
    }  # fmt: skip
    if features is not None:
        numbers = parse_features(features, store)
        found = finder.find(numbers, quantile=quantile, **options)
    elif random is not None:
        numbers = store.queries.sample_alive(random, seed)
        found = finder.find(numbers, **options)
    elif text is not None:
        found = finder.find_by_text(text, top=max_features, **options)
    else:
        found = finder.find_by_label(str(search), top=max_features, **options)
    output.show(found)
    output.document(
        {
            "schema": "neuronmap/sae.find-examples/1",
            "sae": entry.id,
            "analysis": store.key,
            "features": [_found_record(store, one) for one in found.features],
            "notes": list(found.notes),
        }
    )


def _found_record(store: FeatureStore, one: FoundFeature) -> dict[str, Any]:
    """One feature with its examples for machines."""
    from neuronmap.features.export.records import example_record, scalar_record

    return {
        **scalar_record(store, one.feature),
        "on_text": None if one.on_text is None else float(one.on_text.max),
        "examples": [example_record(example) for example in one.examples],
        "negatives": [example_record(example) for example in one.negatives],
    }


def _analysed(
    hub: SAEModelHub, name: str, analysis: str | None, text: str | None, tokens: int | None, output: Output
) -> tuple[LibraryEntry, FeatureStore]:
    """The analysis that was asked for; one on a text is made if it is not there."""
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.hub.analyzing import AnalysisRequest, analyze_into_library

    if text is None and tokens is not None:
        raise ConfigError("--tokens goes with --text.")
    if text is None:
        return opened(hub, name, analysis)
    if analysis is not None:
        raise ConfigError("--analysis and --text exclude each other.", hint="Leave one of them out.")
    request = AnalysisRequest(text=text, tokens=tokens, complete=False)
    made = analyze_into_library([name], request, hub=hub, progress=output.progress())
    return hub.get(name), FeatureStore.open(made[0])
