"""``neuronmap sae import``, ``export`` and ``convert``: SAEs of other libraries in, ours out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ZooOption
from neuronmap.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuronmap.hub.formats.exporting import Written
    from neuronmap.hub.formats.format import Candidate
    from neuronmap.hub.formats.huggingface import Card
    from neuronmap.hub.formats.importing import ImportedSAE
    from neuronmap.hub.formats.sources import Fetched

__all__ = ["convert_format", "export_format", "import_format"]

SelectOption = Annotated[
    str | None, typer.Option("--select", "-s", help="Name of one of several, or a pattern such as '*width_16k*'.")
]
LayerOption = Annotated[int | None, typer.Option("--layer", "-l", help="That of one of several, counted from 0.")]
AssumeOption = Annotated[
    list[str] | None,
    typer.Option("--assume", "-a", help="An answer to what the files leave open, as key=value; repeat for more."),
]
LicenceOption = Annotated[
    str | None,
    typer.Option("--licence", "--license", help="huggingface: licence as the hub spells it, such as apache-2.0."),
]
TitleOption = Annotated[str, typer.Option(help="huggingface: heading of the card.")]
DescriptionOption = Annotated[str, typer.Option(help="huggingface: a paragraph under it.")]
PushOption = Annotated[str | None, typer.Option(help="huggingface: then upload it to owner/repository.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a folder that an export made.")]


@command_output
def import_format(
    source: Annotated[
        str | None,
        typer.Argument(help="Folder, file, hf://owner/repo[/folder][@revision], or zoo:name.", show_default=False),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", "-f", help="Its format; recognised by files and tensors if left out.")
    ] = None,
    select: SelectOption = None,
    layer: LayerOption = None,
    every: Annotated[bool, typer.Option("--all", help="All that fit, when there are several.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Only list what is there.")] = False,
    show_formats: Annotated[
        bool, typer.Option("--formats", help="List the formats that can be read and written.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name in the library (with --into: of the attachment).")] = None,
    into: Annotated[
        str | None, typer.Option(help="Data about features: the SAE in the library that they belong to.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Language model, over what the files say; used for the proof.")
    ] = None,
    hook: Annotated[
        str | None, typer.Option(help="Where it reads, over what the files say: residual, mlp, mlp:in, or path:out.")
    ] = None,
    hook_out: Annotated[
        str | None,
        typer.Option("--hook-out", help="The same for what a transcoder reconstructs: mlp, mlp:out, or path:out."),
    ] = None,
    assume: AssumeOption = None,
    prove: Annotated[
        bool, typer.Option("--prove/--no-prove", help="Reconstruct real activations, if the model is here.")
    ] = True,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Text for that; the sample text if left out.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens for that.")] = 4096,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for it; repeat for more.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of an SAE (or attachment) of that name.")
    ] = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring an SAE of another library into this machine's: SAELens, dictionary_learning, sparsify, Gemma Scope, ...

    Files are recognised by their names and tensors. Where a source holds several SAEs, they are listed; choose with
    **--select** or **--layer**, or take them with **--all**. Each is checked before it is loaded, and then tried: it reconstructs
    real activations of its language model, if that is on this machine, and the result is shown beside what its files say.

    Pickled files (.pt, .bin) are opened in a process of their own that builds tensors only. Whole pickled modules are refused.

    Examples:

        neuronmap sae import hf://EleutherAI/sae-llama-3-8b-32x/layers.10

        neuronmap sae import ./trainer_0 --model smollm2-135m

        neuronmap sae import ./gemma-scope-2b-pt-res --list

        neuronmap sae import ./dashboards --into demo
    """
    output = Output(as_json, quiet)
    if show_formats:
        return _show_formats(output)
    if source is None:
        raise ConfigError("A source is needed.", hint="neuronmap sae import --formats lists what can be read.")
    from neuronmap.jobs.placing import import_source

    there = import_source(source, output.progress(), zoo)
    if into is not None:
        return _attach(output, there, into, form, select, layer, name, replace)
    options = {"name": name, "model": model, "hook": hook, "hook_out": hook_out, "assume": _answers(assume), "prove": prove, "text": text,
               "tokens": tokens, "tags": tuple(tag or ()), "replace": replace}  # fmt: skip
    return _import(output, there, form, select, layer, every, show_list, options)


def _attach(
    output: Output,
    there: str | Fetched,
    into: str,
    form: str | None,
    select: str | None,
    layer: int | None,
    name: str | None,
    replace: bool,
) -> None:
    """``import --into``: data about features."""
    from neuronmap.hub.formats.importing import import_features

    entry, attached, manifest = import_features(
        there, into, form, select=select, layer=layer, name=name, overwrite=replace, progress=output.progress()
    )
    counts = ", ".join(f"{value:,} {key}" for key, value in manifest["counts"].items())
    output.show(f"{counts}: attached to {entry.id} as {attached}.")
    output.document(_import_document(attached={"sae": entry.id, "name": attached, "manifest": manifest}))


def _import(
    output: Output,
    there: str | Fetched,
    form: str | None,
    select: str | None,
    layer: int | None,
    every: bool,
    show_list: bool,
    options: dict[str, Any],
) -> None:
    """What ``import`` does with SAEs; a choice that was not made ends in a list and status 2."""
    from neuronmap.hub.formats.importing import find_candidates, import_candidates

    fetched, found = find_candidates(there, form, select=select, layer=layer, progress=output.progress())
    weights = [one for one in found if one.kind == "weights"]
    if show_list or (len(weights) > 1 and not every):
        _show_candidates(output, found, asked=show_list)
        output.document(_import_document(candidates=found))
        if not show_list:
            raise typer.Exit(2)
        return
    done = import_candidates(fetched, found, progress=output.progress(), **options)
    for one in done:
        _show_imported(output, one)
    output.document(_import_document(imported=done))


@command_output
def export_format(
    names: Annotated[
        list[str], typer.Argument(metavar="SAE...", help="Names in the library; several go into one folder.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="saelens, dictionary_learning, sparsify, circuit_tracer, huggingface or neuronpedia."
        ),
    ],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to be made.")],
    assume: AssumeOption = None,
    licence: LicenceOption = None,
    title: TitleOption = "",
    description: DescriptionOption = "",
    push: PushOption = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: a new repository is private.")] = False,
    analysis: Annotated[str | None, typer.Option(help="neuronpedia: which analysis; the newest if left out.")] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write SAEs of the library in another library's format.

    **saelens**: as they are, SAELens opens bundles. **dictionary_learning**, **sparsify**, **circuit_tracer**: what those packages
    read; an SAE that they have no place for is refused with the reason. **huggingface**: a folder ready to upload, with a card.
    **neuronpedia**: the bulk format, from an analysis.

    Examples:

        neuronmap sae export demo --format sparsify -o out

        neuronmap sae export demo --format huggingface --licence apache-2.0 -o repository --push me/my-saes
    """
    from neuronmap.hub.formats.exporting import export_sae

    output = Output(as_json, quiet)
    _check_push(form, push, licence)
    written = export_sae(
        names,
        form,
        folder,
        assume=_answers(assume),
        card=_card(licence, title, description),
        analysis=analysis,
        overwrite=overwrite,
        progress=output.progress(),
    )
    _show_written(output, "neuronmap/sae.export/1", written, push, private)


@command_output
def convert_format(
    source: Annotated[str, typer.Argument(help="Folder, file, hf://owner/repo[/folder][@revision], or zoo:name.")],
    folder: Annotated[Path, typer.Argument(help="Folder to be made.")],
    to: Annotated[
        str, typer.Option("--to", help="saelens, dictionary_learning, sparsify, circuit_tracer or huggingface.")
    ] = "saelens",
    form: Annotated[str | None, typer.Option("--from", help="Format of the source; recognised if left out.")] = None,
    select: SelectOption = None,
    layer: LayerOption = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Language model, over what the files say.")] = None,
    assume: AssumeOption = None,
    licence: LicenceOption = None,
    title: TitleOption = "",
    description: DescriptionOption = "",
    push: PushOption = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: a new repository is private.")] = False,
    overwrite: OverwriteOption = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rewrite SAEs from one library's format into another's; nothing goes into the library. All that fit are converted.

    Examples:

        neuronmap sae convert ./trainer_0 ./as-saelens --to saelens

        neuronmap sae convert ./gemma-scope-2b-pt-res ./sae --select '*width_16k/average_l0_71' --to dictionary_learning
    """
    from neuronmap.hub.formats.exporting import convert_sae
    from neuronmap.jobs.placing import import_source

    output = Output(as_json, quiet)
    _check_push(to, push, licence)
    written = convert_sae(
        import_source(source, output.progress(), zoo),
        folder,
        to,
        format=form,
        select=select,
        layer=layer,
        model=model,
        assume=_answers(assume),
        card=_card(licence, title, description),
        overwrite=overwrite,
        progress=output.progress(),
    )
    _show_written(output, "neuronmap/sae.convert/1", written, push, private)


def _answers(assume: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in assume or []:
        key, sign, value = text.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise ConfigError(f"--assume {text!r}: an answer is key=value, such as rule=topk.")
        found[key.strip()] = value.strip()
    return found


def _card(licence: str | None, title: str, description: str) -> Card | None:
    from neuronmap.hub.formats.huggingface import Card

    return None if licence is None else Card(licence, title, description)


def _check_push(form: str, push: str | None, licence: str | None) -> None:
    if push is not None and form != "huggingface":
        raise ConfigError(f"--push goes with the format huggingface, not {form}.")
    if licence is not None and form != "huggingface":
        raise ConfigError(f"--licence goes with the format huggingface, not {form}.")


def _show_formats(output: Output) -> None:
    from neuronmap.hub.formats.exporting import EXTRA_TARGETS
    from neuronmap.hub.formats.registry import list_formats

    rows = [[one.name, "yes", "yes" if one.writes else "", one.title] for one in list_formats()]
    rows += [[name, "", "yes", title] for name, title in EXTRA_TARGETS.items()]
    output.show(table("", ["format", "read", "written", ""], rows, whole=["format"]))
    records = [
        {"name": name, "reads": bool(reads), "writes": bool(writes), "title": title}
        for name, reads, writes, title in rows
    ]
    output.document(_import_document(formats=records))


def _show_candidates(output: Output, found: Sequence[Candidate], *, asked: bool) -> None:
    rows = [[one.name, one.format, "" if one.layer is None else str(one.layer), one.about] for one in found]
    output.show(table("", ["name", "format", "layer", ""], rows, right=["layer"], whole=["name"]))
    if not asked:
        text = f"{len(found)} SAEs are here, none was imported. Choose with --select NAME or --layer N, or take them with --all."
        output.show(text)
        if output.quiet or output.as_json:
            _warned(text)


def _warned(text: str) -> None:
    """What must be read also with ``--quiet`` and beside ``--json``: on stderr."""
    Console(stderr=True).print(f"[bold yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)


def _show_imported(output: Output, one: ImportedSAE) -> None:
    entry = one.entry
    output.show(
        f"[bold]{escape(entry.id)}[/]: {entry.architecture}, {entry.d_in} -> {entry.d_sae:,} features, from "
        f"{one.candidate.format} ({escape(one.candidate.name)})"
    )
    if one.proof is None:
        output.show(f"  not tried on real activations: {escape(one.unproved)}")
        return
    output.show(f"  {escape(one.proof.verdict)}")
    for warning in one.proof.warnings:
        output.show(f"  [bold yellow]warning:[/] {escape(warning)}")
        if output.quiet:  # else it was a note on stderr
            _warned(f"{entry.id}: {warning}")


def _import_document(
    *,
    imported: Sequence[ImportedSAE] = (),
    candidates: Sequence[Candidate] = (),
    formats: Sequence[dict[str, Any]] = (),
    attached: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "schema": "neuronmap/sae.import/1",
        "saes": [
            {
                "sae": one.entry.to_dict(),
                "candidate": one.candidate.to_dict(),
                "proof": None if one.proof is None else one.proof.to_dict(),
                "unproved": one.unproved,
                "notes": list(one.notes),
            }
            for one in imported
        ],
        "candidates": [one.to_dict() for one in candidates],
        "formats": list(formats),
        "attached": attached,
    }


def _show_written(output: Output, schema: str, written: Written, push: str | None, private: bool) -> None:
    from neuronmap.hub.formats.huggingface import push_repository

    for note in written.notes:
        output.progress().note(note)
    output.show(
        f"{len(written.saes)} SAE{'s' if len(written.saes) != 1 else ''} as {written.format}: {escape(str(written.folder))}"
    )
    pushed = push_repository(written.folder, push, private=private) if push is not None else None
    if pushed is not None:
        output.show(f"Uploaded: {escape(pushed)}")
    output.document(
        {
            "schema": schema,
            "format": written.format,
            "folder": str(written.folder),
            "saes": list(written.saes),
            "files": [str(file) for file in written.files],
            "notes": list(written.notes),
            "pushed": pushed,
        }
    )
