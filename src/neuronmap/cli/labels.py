"""``neuronmap sae labels``: what people, language models and rules say of features, in this machine's book."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.features import NameArgument
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.zoo_options import ZooOption, open_zoo
from neuronmap.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuronmap.hub import LibraryEntry
    from neuronmap.interpretation.labels import Act
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.interpretation.labels.exchange import MergeReport
    from neuronmap.interpretation.labels.held import HeldLabel

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_Feature = Annotated[int, typer.Argument(min=0, help="Number of the feature.")]
_Name = Annotated[
    str | None,
    typer.Option("--author", help="Whose; NEURONMAP_AUTHOR, else the name of your account, if left out."),
]
_Side = Annotated[str, typer.Option(help="input: what it fires on. output: what it makes the model say.")]
_Source = Annotated[
    str, typer.Argument(metavar="FILE_OR_REF", help="A JSONL file, or namespace/name[@version] in the zoo.")
]
_PlainAuthor = Annotated[
    str | None, typer.Option("--author", help="Whose the plain labels of a file are; acts say it themselves.")
]
_PlainKind = Annotated[str, typer.Option("--author-kind", help="With --author: person, model or rule.")]
_PlainMethod = Annotated[str, typer.Option("--method", help="With --author: how the plain labels came about.")]


@contextmanager
def _opened(name: str) -> Iterator[tuple[LibraryEntry, str, LabelBook]]:
    """An SAE of the library, the digest of its weights, and the book."""
    from neuronmap.hub import SAEModelHub
    from neuronmap.interpretation.labels.book import LabelBook

    entry = SAEModelHub().get(name)
    if entry.weights_digest is None:
        raise InputError(f"{entry.id} has no digest, so nothing can be said of its features: {entry.problem}")
    with LabelBook.open() as book:
        yield entry, entry.weights_digest, book


@app.command("list")
@command_output
def list_labels(
    name: NameArgument,
    feature: Annotated[int | None, typer.Option(help="Only of this feature.")] = None,
    side: Annotated[str | None, typer.Option(help="Only input or only output labels.")] = None,
    author: Annotated[str | None, typer.Option(help="Only by this person, model or rule.")] = None,
    kind: Annotated[str | None, typer.Option("--author-kind", help="Only by persons, models or rules.")] = None,
    method: Annotated[str | None, typer.Option(help="Only those that came about so.")] = None,
    search: Annotated[str, typer.Option("--search", "-s", help="Only with all these words.")] = "",
    min_low: Annotated[float | None, typer.Option(help="Only scored ones whose interval begins at least here.")] = None,
    sort: Annotated[
        str, typer.Option(help="feature, text, author, method, score, votes or at; - in front turns it round.")
    ] = "feature",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the labels that hold: neither reworded nor taken back since.

    Examples:

        neuronmap sae labels list demo --author-kind person

        neuronmap sae labels list demo --search war --sort=-score
    """
    output = Output(as_json, quiet)
    if side not in (None, "input", "output"):
        raise ConfigError(f"--side {side!r}: input or output.")
    asked: dict[str, Any] = {
        "feature": feature, "side": side, "author": author, "author_kind": kind, "method": method, "text": search,
        "min_low": min_low,
    }  # fmt: skip
    with _opened(name) as (entry, sae, book):
        found = book.labels(sae, **asked, sort=sort, limit=limit)
        total = book.count(sae, **asked)
    columns = ["#", "label", "by", "method", "score", "votes", ""]
    output.show(
        table("", columns, [_label_row(one) for one in found], right=["#", "votes"])
        if found
        else f"No label of {entry.id} fits. Give one: neuronmap sae labels add {entry.id} 7 'colours'"
    )
    if total > len(found):
        output.show(f"{len(found):,} of {total:,}; --limit shows more.")
    output.document(
        {
            "schema": "neuronmap/sae.labels.list/1",
            "sae": entry.id,
            "weights": sae,
            "total": total,
            "labels": [label_document(one) for one in found],
        }
    )


def label_document(held: HeldLabel) -> dict[str, Any]:
    """A label that holds, for machines."""
    return {**held.to_dict(), "up": held.up, "down": held.down, "conflict": held.conflict}


def _label_row(held: HeldLabel) -> list[str]:
    label, score = held.label, held.score
    marks = [word for word, is_so in (("disputed", held.conflict), ("flagged", bool(held.flags))) if is_so]
    return [
        str(label.feature),
        label.text if label.side == "input" else f"{label.text} (output)",
        f"{label.author.name}{'' if label.author.kind == 'person' else f' ({label.author.kind})'}",
        label.method,
        "" if score is None else f"{_value(score.value, score.low, score.high)} {score.protocol}",
        f"+{held.up} -{held.down}" if held.up or held.down else "",
        " ".join(marks),
    ]


def _value(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


@app.command("add")
@command_output
def add(
    name: NameArgument,
    feature: _Feature,
    text: Annotated[str, typer.Argument(help="The label: one to six words are best.")],
    explanation: Annotated[str, typer.Option(help="Long: whole sentences.")] = "",
    side: _Side = "input",
    replaces: Annotated[
        str | None, typer.Option(metavar="ID", help="A label of yours that this is the new wording of.")
    ] = None,
    author: _Name = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give a feature a label of your own. Others' labels stay beside it; what was said of your older wording stays with that.

    The same label twice, word for word, is one: the first is shown again.

    Examples:

        neuronmap sae labels add demo 17 "names of colours"

        neuronmap sae labels add demo 17 "adjectives of colour" --explanation "Also shades, such as crimson." --replaces 3f2a...
    """
    from neuronmap.interpretation.labels import Label, stamp
    from neuronmap.interpretation.labels.people import person

    output = Output(as_json, quiet)
    with _opened(name) as (entry, sae, book):
        _require_feature(entry, feature)
        label = Label(
            sae=sae,
            feature=feature,
            author=person(author),
            at=stamp(),
            side=side,
            text=text.strip(),
            explanation=explanation.strip(),
            method="by hand",
            replaces=replaces,
        )
        said = book.say(label)
    output.show(f"Feature {feature} of {entry.id} is {escape(label.text)!r} by {escape(label.author.name)}: {said.id}")
    if said.id != label.id:
        output.show(f"It was said before, at {said.at[:16]}; nothing was added.")
    output.document({"schema": "neuronmap/sae.labels.add/1", "sae": entry.id, "label": said.to_dict()})


@app.command("history")
@command_output
def history(name: NameArgument, feature: _Feature, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show everything that was ever said of a feature, the oldest first, and what of it holds no more."""
    output = Output(as_json, quiet)
    with _opened(name) as (entry, sae, book):
        _require_feature(entry, feature)
        acts, said = book.history(sae, feature), book.said(sae, feature)
    rows = [
        [act.at[:16], act.author.name, act.kind, _told(act), "" if said.standing.holds(act.id) else "no more", act.id]
        for act in acts
    ]
    output.show(
        table("", ["at", "by", "", "", "", "id"], rows, whole=["id"])
        if rows
        else f"Nobody has said anything of feature {feature} of {entry.id}."
    )
    output.document(
        {
            "schema": "neuronmap/sae.labels.history/1",
            "sae": entry.id,
            "feature": feature,
            "acts": [act.to_dict() for act in acts],
            "holding": [act.id for act in acts if said.standing.holds(act.id)],
        }
    )


def _told(act: Act) -> str:
    values = act.to_dict()
    for field in ("text", "reason", "name", "protocol"):
        if field in values:
            return str(values[field])
    return f"{values['value']:+d} to {act.target}" if act.kind == "vote" else str(act.target or "")


@app.command("conflicts")
@command_output
def conflicts(
    name: NameArgument,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List features that somebody disagrees about: different labels by different authors, or votes against one. Nothing is decided."""
    output = Output(as_json, quiet)
    with _opened(name) as (entry, sae, book):
        found = book.conflicts(sae, limit=limit)
    rows = [_label_row(held) for one in found for held in one.labels]
    columns = ["#", "label", "by", "method", "score", "votes", ""]
    output.show(
        table("", columns, rows, right=["#", "votes"]) if rows else f"Nobody disagrees about a feature of {entry.id}."
    )
    output.document(
        {
            "schema": "neuronmap/sae.labels.conflicts/1",
            "sae": entry.id,
            "conflicts": [
                {"feature": one.feature, "side": one.side, "labels": [label_document(held) for held in one.labels]}
                for one in found
            ],
        }
    )


@app.command("export")
@command_output
def export(
    name: NameArgument,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; named after the SAE if left out.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Only these acts: label, score, comment, vote, flag, listing, verdict, retract.")
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option("--author", help="Only by this person, model or rule; repeat for more.")
    ] = None,
    light: Annotated[
        bool,
        typer.Option("--without-judgements", help="Leave out scores and answers of blind tasks, most of the bytes."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write all that was said of an SAE's features as JSON lines of acts: everything, with its authors, times and history.

    Examples:

        neuronmap sae labels export demo -o demo-labels.jsonl

        neuronmap zoo publish demo --labels --as ada/demo-labels@1.0 --licence CC0-1.0
    """
    from neuronmap.interpretation.labels.exchange import export_acts, write_acts

    output = Output(as_json, quiet)
    wanted = None if kinds is None else [one.strip() for one in kinds.split(",") if one.strip()]
    with _opened(name) as (entry, sae, book):
        acts = export_acts(book, sae, kinds=wanted, authors=author, without_judgements=light)
        place = target if target is not None else Path(f"{entry.id.replace('/', '-')}-labels.jsonl")
        written = write_acts(acts, place, overwrite=overwrite)
    output.show(f"{written:,} acts: {escape(str(place))}")
    output.document({"schema": "neuronmap/sae.labels.export/1", "sae": entry.id, "path": str(place), "acts": written})


@app.command("import")
@command_output
def import_labels(
    name: NameArgument,
    source: _Source,
    author: _PlainAuthor = None,
    author_kind: _PlainKind = "person",
    method: _PlainMethod = "stated",
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge a set of labels into this machine's book: from a file, or from the zoo. Nothing that is here is changed or lost.

    Acts say themselves whose they are; nobody has checked that. Plain lines, {"feature": 7, "label": "colours"}, are taken as labels
    by --author. All lines are taken, or none if one of them cannot be read.

    Examples:

        neuronmap sae labels import demo ada/demo-labels@1.0

        neuronmap sae labels import demo labels.jsonl --author "Ada Lovelace"
    """
    _merge(name, source, author, author_kind, method, zoo, Output(as_json, quiet), rehearse=False)


@app.command("merge-report")
@command_output
def merge_report(
    name: NameArgument,
    source: _Source,
    author: _PlainAuthor = None,
    author_kind: _PlainKind = "person",
    method: _PlainMethod = "stated",
    zoo: ZooOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tell what importing a set of labels would change, and which features would be disputed then; change nothing."""
    _merge(name, source, author, author_kind, method, zoo, Output(as_json, quiet), rehearse=True)


def _merge(
    name: str,
    source: str,
    author: str | None,
    author_kind: str,
    method: str,
    zoo: str | None,
    output: Output,
    *,
    rehearse: bool,
) -> None:
    from neuronmap.interpretation.labels import Author
    from neuronmap.interpretation.labels.exchange import Origin, merge, read_acts

    if author_kind not in ("person", "model", "rule"):
        raise ConfigError(f"--author-kind {author_kind!r}: person, model or rule.")
    plain = Origin(Author(kind=author_kind, name=author), method) if author is not None else None
    with _opened(name) as (entry, sae, book):
        file = Path(source).expanduser()
        if file.is_file():
            with open(file, "rb") as lines:
                acts = read_acts(lines, sae, plain=plain, features=entry.d_sae, book=book)
        elif "/" in source and file.suffix != ".jsonl":
            acts = _from_zoo(output, zoo, source, entry, book)
        else:
            raise InputError(
                f"There is no file {source}.", hint="A set of labels in the zoo is namespace/name[@version]."
            )
        report = merge(book, acts, rehearse=rehearse)
    _show_report(output, entry, source, report)


def _from_zoo(output: Output, zoo: str | None, reference: str, entry: LibraryEntry, book: LabelBook) -> list[Act]:
    from neuronmap.zoo.packing import unpack_labels

    with open_zoo(output, zoo) as opened:
        pulled = opened.pull(reference.removeprefix("zoo:"))
    return unpack_labels(pulled.manifest, pulled.folder, sae=entry.weights_digest, features=entry.d_sae, book=book)


def _show_report(output: Output, entry: LibraryEntry, source: str, report: MergeReport) -> None:
    kinds = ", ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in report.by_kind.items())
    would = "would be" if report.rehearsal else "are"
    output.show(
        f"{report.read:,} acts in {escape(source)}; {report.new:,} {would} new{f': {kinds}' if kinds else ''}; "
        f"{report.features:,} features."
    )
    if report.authors:
        output.show(f"By {escape(', '.join(report.authors[:20]))}.")
    if report.pending:
        output.show(f"{report.pending:,} are about labels that are not here; they count when those come.")
    if report.conflicts:
        numbers = ", ".join(map(str, report.conflicts[:20])) + (", ..." if len(report.conflicts) > 20 else "")
        output.show(f"Newly disputed: {numbers}. See: neuronmap sae labels conflicts {entry.id}")
    command = "merge-report" if report.rehearsal else "import"
    output.document(
        {"schema": f"neuronmap/sae.labels.{command}/1", "sae": entry.id, "source": source, **report.to_dict()}
    )


def _require_feature(entry: LibraryEntry, feature: int) -> None:
    if entry.d_sae is not None and feature >= entry.d_sae:
        raise InputError(f"There is no feature {feature}: features of {entry.id} are 0 to {entry.d_sae - 1}.")
