"""``neuronmap zoo publish``: SAEs, analyses, reports, labels and folders into a zoo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.markup import escape

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ZooOption, open_zoo, warn_quietly
from neuronmap.errors import ConfigError, InputError, InvalidManifestError, NotInLibraryError
from neuronmap.paths import human_bytes

if TYPE_CHECKING:
    from neuronmap.hub import LibraryEntry
    from neuronmap.zoo.client.zoo import Zoo
    from neuronmap.zoo.packing import Package
    from neuronmap.zoo.views import VersionView

__all__ = ["TrainedPublication", "publish", "publish_trained", "require_publishable"]


_Source = Annotated[
    str,
    typer.Argument(
        help="Name in the library, name of a report, a folder, a file, or hf://owner/repo.", show_default=False
    ),
]
_Reference = Annotated[str, typer.Option("--as", metavar="REF", help="namespace/name@version.", show_default=False)]
_Licence = Annotated[
    str,
    typer.Option("--licence", "--license", help="SPDX expression: MIT, Apache-2.0, CC-BY-4.0, ...", show_default=False),
]
_Analysis = Annotated[str | None, typer.Option(help="Not the SAE itself: this analysis of it (name, or 'newest').")]
_WithAnalysis = Annotated[
    list[str] | None,
    typer.Option("--with-analysis", help="Also this analysis of the SAE, as <name>-features; 'all' for every one."),
]
_Evaluation = Annotated[bool, typer.Option("--evaluation", help="Not the SAE itself: its evaluation.")]
_Labels = Annotated[
    bool,
    typer.Option(
        "--labels",
        help="The source is an SAE of the library whose labels are published, or a JSONL file of labels (needs --method and --of).",
    ),
]
_Method = Annotated[str | None, typer.Option(help="Of labels: how they came about, such as rules, llm, people.")]
_Explainer = Annotated[str | None, typer.Option(help="Of labels: the language model or group that wrote them.")]
_Of = Annotated[str | None, typer.Option(metavar="SAE", help="Of labels: SAE in the library, or REF in the zoo.")]
_Kind = Annotated[str | None, typer.Option(help="Of any other folder: CIRCUIT, DATASET, ...")]
_Record = Annotated[
    Path | None,
    typer.Option(help="Of any other folder: JSON file with the kind's record; see neuronmap zoo schema."),
]
_Tag = Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; repeat for more.")]
_Author = Annotated[
    list[str] | None,
    typer.Option("--author", help="'Name', 'Name <orcid>' or 'Name <orcid> (affiliation)'; repeat for more."),
]
_Title = Annotated[str, typer.Option(help="One line; made from the content if left out.")]
_Summary = Annotated[str, typer.Option(help="A paragraph.")]
_Citation = Annotated[str, typer.Option(help="How to cite it: BibTeX or a sentence.")]
_DependsOn = Annotated[
    list[str] | None,
    typer.Option(metavar="ROLE=REF", help="What it was made from, such as sae=ada/demo@1.0; repeat for more."),
]
_Subject = Annotated[str | None, typer.Option(metavar="REF", help="The version that it is evidence about.")]
_Revision = Annotated[str | None, typer.Option(help="Of hf://: branch, tag or commit.")]
_Draft = Annotated[bool, typer.Option("--draft", help="Keep it from others, and replaceable, until zoo release.")]
_Private = Annotated[bool, typer.Option("--private", help="A new artefact that only members of the namespace see.")]


@command_output
def publish(
    source: _Source,
    reference: _Reference,
    licence: _Licence,
    analysis: _Analysis = None,
    with_analysis: _WithAnalysis = None,
    evaluation: _Evaluation = False,
    labels: _Labels = False,
    method: _Method = None,
    explainer: _Explainer = None,
    of: _Of = None,
    kind: _Kind = None,
    record: _Record = None,
    tag: _Tag = None,
    author: _Author = None,
    title: _Title = "",
    summary: _Summary = "",
    citation: _Citation = "",
    depends_on: _DependsOn = None,
    subject: _Subject = None,
    revision: _Revision = None,
    draft: _Draft = False,
    private: _Private = False,
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Publish: files are hashed, checked and sent, and become one version that never changes. Same again: same version.

    Interrupted by Ctrl-C or a broken connection, the same command goes on where it was. An analysis finds the SAE that it is of in the
    zoo by the weights, and depends on it.

    Examples:

        neuronmap zoo publish demo --as ada/demo@1.0 --licence MIT --tag demo --with-analysis all

        neuronmap zoo publish demo --analysis newest --as ada/demo-features@1.0 --licence MIT

        neuronmap zoo publish my-report --as ada/colours@1.0 --licence CC-BY-4.0 --author "Ada Lovelace <0000-0002-1825-0097>"

        neuronmap zoo publish demo --labels --as ada/demo-labels@1.0 --licence CC0-1.0

        neuronmap zoo publish labels.jsonl --labels --method people --of demo --as ada/demo-labels@1.0 --licence CC0-1.0

        neuronmap zoo publish ./circuit --kind CIRCUIT --record circuit.json --as ada/ioi@1.0 --licence MIT
    """
    from neuronmap.zoo.client.preparing import read_said, with_faults

    output = Output(as_json, quiet)
    asked = _Asked(source, analysis, evaluation, labels, method, explainer, of, kind, record, revision)
    values: dict[str, Any] = {
        "licence": licence,
        "tags": tag or (),
        "authors": author or (),
        "title": title,
        "summary": summary,
        "citation": citation,
        "depends_on": [_pair(one) for one in depends_on or ()],
        "subject": subject,
        "draft": draft,
        "private": private,
    }
    if draft and with_analysis:
        raise ConfigError(
            "An analysis cannot depend on a draft.", hint="Publish the SAE, or release it, then its analyses."
        )
    with open_zoo(output, zoo, make=True) as opened, TemporaryDirectory(prefix="neuronmap-") as scratch:
        with with_faults(read_said(reference, licence, tag or (), author or ())):
            package, entry = _packed(opened, asked, Path(scratch))
        warn_quietly(output, package.notes)
        views = [opened.publish(package, reference, **values)]
        if with_analysis:
            if entry is None or package.kind != "SAE_MODEL":
                raise ConfigError("--with-analysis goes with an SAE of the library.")
            shared = {name: values[name] for name in ("licence", "authors", "tags", "private")}
            views += _publish_analyses(output, opened, entry, views[0], with_analysis, shared)
        _show(output, opened, views)


class TrainedPublication(NamedTuple):
    """How ``neuronmap sae train --publish`` publishes; the fields are options of ``neuronmap zoo publish``.

    Attributes:
        reference: ``namespace/name@version``.
        licence: SPDX expression; None is refused.
        tags, authors, title: as there.
        draft, private: as there.
        zoo: folder or address; None for the usual one.
    """

    reference: str
    licence: str | None
    tags: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    title: str = ""
    draft: bool = False
    private: bool = False
    zoo: str | None = None


def require_publishable(asked: TrainedPublication) -> None:
    """Find out, before hours of training, whether something could be published under this name, licence, tags and authors.

    Raises:
        ConfigError: there is no licence.
        InvalidManifestError: lists every fault of what was said.
    """
    from neuronmap.zoo.client.preparing import read_said

    if asked.licence is None:
        raise ConfigError("Publishing needs a licence.", hint="--licence MIT, Apache-2.0, CC-BY-4.0, ...")
    said = read_said(asked.reference, asked.licence, asked.tags, asked.authors)
    if said.faults or said.more:
        raise InvalidManifestError([*said.faults, *said.more], "What is said of the publication")


def publish_trained(output: Output, entry: LibraryEntry, asked: TrainedPublication) -> str:
    """For ``neuronmap sae train --publish``: the SAE that was just trained.

    Returns:
        What it is called in the zoo.
    """
    from neuronmap.zoo.packing import pack_sae

    package = pack_sae(entry.path)
    warn_quietly(output, package.notes)
    with open_zoo(output, asked.zoo, make=True) as opened:
        view = opened.publish(
            package,
            asked.reference,
            licence=asked.licence,
            tags=asked.tags,
            authors=asked.authors,
            title=asked.title,
            draft=asked.draft,
            private=asked.private,
        )
        output.show(f"Published as {view.reference} in {escape(opened.location)}.")
    return view.reference


class _Asked(NamedTuple):
    """What is to be published."""

    source: str
    analysis: str | None
    evaluation: bool
    labels: bool
    method: str | None
    explainer: str | None
    of: str | None
    kind: str | None
    record: Path | None
    revision: str | None


def _packed(opened: Zoo, asked: _Asked, scratch: Path) -> tuple[Package, LibraryEntry | None]:
    """The package, and the SAE of the library that it came from. Files that have to be written for it go to ``scratch``."""
    from neuronmap.zoo.client.huggingface import fetch_from_hub, pack_from_hub
    from neuronmap.zoo.packing import pack, pack_report

    record = _record(asked.record)
    if asked.labels and not Path(asked.source).expanduser().is_file():
        return _packed_book(asked, scratch), None
    if asked.labels:
        return _packed_labels(opened, asked), None
    if asked.source.startswith("hf://"):
        owner, _, rest = asked.source.removeprefix("hf://").partition("/")
        repo, _, inside = rest.partition("/")
        found = fetch_from_hub(f"{owner}/{repo}", asked.revision, inside=inside, offline=opened.offline)
        return pack_from_hub(found, asked.kind, record), None
    path = Path(asked.source).expanduser()
    if record is not None or (path.exists() and not asked.analysis and not asked.evaluation):
        return pack(path, asked.kind, record), None
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.reports import list_reports

    try:
        entry = SAEModelHub().get(asked.source)
    except NotInLibraryError:
        report = next((one for one in list_reports() if one.name == asked.source), None)
        if report is None or asked.analysis or asked.evaluation:
            raise
        return pack_report(report.path), None
    return _packed_entry(entry, asked), entry


def _packed_entry(entry: LibraryEntry, asked: _Asked) -> Package:
    from neuronmap.hub import analyses
    from neuronmap.zoo.packing import pack_analysis, pack_evaluation, pack_sae

    if asked.analysis is not None:
        name = None if asked.analysis == "newest" else asked.analysis
        return pack_analysis(analyses.pick_analysis(entry, name).path)
    return pack_evaluation(entry.path) if asked.evaluation else pack_sae(entry.path)


def _packed_book(asked: _Asked, scratch: Path) -> Package:
    """All that this machine's book says of an SAE."""
    from neuronmap.hub import SAEModelHub
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.interpretation.labels.exchange import export_acts, write_acts
    from neuronmap.zoo.packing import pack_labels

    entry = SAEModelHub().get(asked.source)
    if entry.weights_digest is None:
        raise InputError(f"{entry.id} has no digest, so nothing can be said of its features: {entry.problem}")
    file = scratch / "labels.jsonl"
    with LabelBook.open() as book:
        authors = book.summary(entry.weights_digest).authors
        written = write_acts(export_acts(book, entry.weights_digest), file)
    if not written:
        raise InputError(
            f"Nobody has said anything of {entry.id} yet.", hint=f"neuronmap sae labels add {entry.id} 7 'colours'"
        )
    words = {"person": "people", "model": "llm", "rule": "rules"}
    kinds = list(dict.fromkeys(words[kind] for kind, _, _ in authors))
    names = ", ".join(name for _, name, _ in authors[:10]) + (", ..." if len(authors) > 10 else "")
    return pack_labels(
        file,
        method=asked.method or " and ".join(kinds) or "people",
        explainer=asked.explainer or names[:500] or None,
        model={"name": entry.model or "unknown"},
        sae_weights=entry.weights_digest,
    )


def _packed_labels(opened: Zoo, asked: _Asked) -> Package:
    from neuronmap.hub import SAEModelHub
    from neuronmap.zoo.digests import Digest
    from neuronmap.zoo.packing import pack_labels
    from neuronmap.zoo.records import SAEModelRecord

    if asked.method is None or asked.of is None:
        raise ConfigError("Labels need --method (rules, llm, people, ...) and --of (the SAE).")
    weights: str | None
    try:
        entry = SAEModelHub().get(asked.of)
        weights, model = entry.weights_digest, {"name": entry.model or "unknown"}
    except NotInLibraryError:
        view = opened.show(asked.of)
        record = SAEModelRecord.read(view.manifest["record"])
        model = record.model.to_dict()
        weights = next((str(Digest(one.digest)) for one in view.files if one.path == "sae_weights.safetensors"), None)
    return pack_labels(asked.source, method=asked.method, explainer=asked.explainer, model=model, sae_weights=weights)


def _publish_analyses(
    output: Output,
    opened: Zoo,
    entry: LibraryEntry,
    sae: VersionView,
    wanted: list[str],
    values: Mapping[str, Any],
) -> list[VersionView]:
    """The SAE's analyses, each depending on it: ``<name>-features``, and with their own name behind it where there are several."""
    from neuronmap.hub import analyses
    from neuronmap.zoo.packing import name_beside, pack_analysis

    if "all" in wanted:
        chosen = [one for one in analyses.list_analyses(entry) if not one.problem]
        if not chosen:
            raise NotInLibraryError(f"{entry.id} has no analysis.", hint=f"neuronmap sae analyze {entry.id}")
    else:
        chosen = [analyses.pick_analysis(entry, None if name == "newest" else name) for name in wanted]
    views = []
    for one in chosen:
        name = name_beside(sae.name, one.name, alone=len(chosen) == 1)
        target = f"{sae.namespace}/{name}@{sae.label}"
        package = pack_analysis(one.path)
        warn_quietly(output, package.notes)
        views.append(
            opened.publish(package, target, depends_on={"sae": f"{sae.namespace}/{sae.name}@{sae.digest}"}, **values)
        )
    return views


def _record(file: Path | None) -> dict[str, Any] | None:
    from neuronmap.paths import read_json

    if file is None:
        return None
    try:
        found = read_json(file)
    except FileNotFoundError:
        raise InputError(f"There is no file {file}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{file} must hold a JSON object: the record.")
    return found


def _pair(text: str) -> tuple[str, str]:
    role, equals, reference = text.partition("=")
    if not equals or not role or not reference:
        raise ConfigError(f"{text!r} is no dependency: role=namespace/name@version, such as sae=ada/demo@1.0.")
    return role, reference


def _show(output: Output, opened: Zoo, views: list[VersionView]) -> None:
    rows = [
        [
            one.reference,
            one.kind,
            one.state,
            f"{len(one.files)} files, {human_bytes(one.size)}",
            f"{one.digest[:19]}...",
        ]
        for one in views
    ]
    output.show(
        table(escape(f"In {opened.location}"), ["reference", "kind", "state", "", "digest"], rows, whole=["reference"]),
        escape(f"  neuronmap zoo pull {views[0].reference}"),
    )
    output.document(
        {"schema": "neuronmap/zoo.publish/1", "zoo": opened.location, "versions": [one.to_dict() for one in views]}
    )
