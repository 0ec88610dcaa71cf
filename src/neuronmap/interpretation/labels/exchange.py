"""Label sets in files: JSON lines of acts, out of one book and into another. Merging is the union, so nothing is ever lost by it.

A file may hold plain lines as well, ``{"feature": 7, "label": "colours"}`` with ``explanation``, ``side``, ``method`` and ``score`` if
one likes: each is taken as a label by an author whom the reader names. A plain label that its author has given already is not given again.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap.errors import AlreadyExistsError, InputError, NeuronMapError
from neuronmap.interpretation.labels.acts import Act, Author, Label, Score, is_act, read_act, stamp
from neuronmap.interpretation.labels.book import LabelBook
from neuronmap.paths import new_file, new_folder

__all__ = ["LineFault", "MergeReport", "Origin", "export_acts", "merge", "read_acts", "write_acts"]

MOST_LINE = 1 << 20
"""Bytes of a line."""
_MOST_FAULTS = 1000
_PLAIN_AUTHOR_METHOD = "stated"


class LineFault(NamedTuple):
    """A line that cannot be read.

    Attributes:
        line: its number, from 1.
        message: what is wrong.
    """

    line: int
    message: str


class Origin(NamedTuple):
    """What plain lines are taken as.

    Attributes:
        author: who wrote them.
        method: how they came about, where a line does not say.
    """

    author: Author
    method: str = _PLAIN_AUTHOR_METHOD


@dataclass(frozen=True)
class MergeReport:
    """What merging did, or would do.

    Attributes:
        read: acts in the file.
        new: of them, not in the book before.
        by_kind: new ones of each kind.
        features: features that something new was said of.
        authors: whose acts are new, as ``kind name``.
        pending: new ones about labels that the book does not have; they count when those come.
        conflicts: features that somebody disagrees about now and nobody did before.
        settled: the other way round.
        rehearsal: whether nothing was written.
    """

    read: int
    new: int
    by_kind: dict[str, int]
    features: int
    authors: tuple[str, ...]
    pending: int
    conflicts: tuple[int, ...]
    settled: tuple[int, ...]
    rehearsal: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            **asdict(self),
            "authors": list(self.authors),
            "conflicts": list(self.conflicts),
            "settled": list(self.settled),
        }


def export_acts(
    book: LabelBook,
    sae: str,
    *,
    kinds: Sequence[str] | None = None,
    authors: Sequence[str] | None = None,
    without_judgements: bool = False,
) -> Iterator[dict[str, Any]]:
    """The acts of an SAE as plain JSON types, the oldest first.

    Args:
        book: where from.
        sae: digest of its weights.
        kinds: only these.
        authors: only by people, models or rules of these names.
        without_judgements: leave scores and answers of blind tasks out, which are most of the bytes.
    """
    for act in book.acts(sae, kinds):
        if authors is not None and act.author.name not in authors:
            continue
        if without_judgements and act.kind in ("score", "verdict"):
            continue
        yield act.to_dict()


def write_acts(acts: Iterable[dict[str, Any]], file: str | Path, *, overwrite: bool = False) -> int:
    """Write lines of acts. The file is there whole or not at all, and is as old as its newest act, so that equal acts make equal files.

    Returns:
        How many lines.

    Raises:
        AlreadyExistsError: the file is there.
    """
    target = Path(file).expanduser()
    if target.exists() and not overwrite:
        raise AlreadyExistsError(f"{target} is there already.", hint="--overwrite replaces it.")
    new_folder(target.parent)
    count, newest = 0, ""
    with new_file(target) as lines:
        for act in acts:
            lines.write((json.dumps(act, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode())
            count, newest = count + 1, max(newest, str(act["at"]))
    if newest:
        moment = datetime.datetime.fromisoformat(newest).timestamp()
        os.utime(target, (moment, moment))
    return count


def read_acts(
    lines: Iterable[bytes],
    sae: str,
    *,
    plain: Origin | None = None,
    features: int | None = None,
    book: LabelBook | None = None,
) -> list[Act]:
    """Acts from lines.

    Args:
        lines: of the file.
        sae: digest of the weights of the SAE that all must be of.
        plain: what plain lines are taken as; None refuses them.
        features: how many the SAE has; None where that is not known.
        book: where plain labels are looked up, so that equal ones are not given twice.

    Raises:
        InputError: names the first lines that are none, and says how many there are.
    """
    faults: list[LineFault] = []
    found: list[Act] = []
    moment = stamp()
    given = _given(book, sae, plain) if plain is not None and book is not None else set()
    for number, line in enumerate(lines, start=1):
        if len(faults) >= _MOST_FAULTS:
            break
        if not line.strip():
            continue
        try:
            value = _object(line)
            if is_act(value):
                made: Sequence[Act] = [read_act(value)]
            else:
                made = _plain_acts(value, sae, plain, moment)
        except NeuronMapError as error:
            faults.append(LineFault(number, error.message))
            continue
        fault = _misplaced(made[0], sae, features)
        if fault:
            faults.append(LineFault(number, fault))
        elif isinstance(made[0], Label) and not is_act(value) and _same(made[0]) in given:
            continue
        else:
            found += made
    if faults:
        shown = "".join(f"\n  line {one.line}: {one.message}" for one in faults[:20])
        more = f"\n  ... and {len(faults) - 20:,} more" if len(faults) > 20 else ""
        raise InputError(f"{len(faults):,} lines are no acts and no labels, so nothing was taken:{shown}{more}")
    return found


def merge(book: LabelBook, acts: Sequence[Act], *, rehearse: bool = False) -> MergeReport:
    """Put acts into a book and say what that changed.

    Args:
        book: the book.
        acts: in any order; those that are there already change nothing.
        rehearse: change nothing; only say what would.
    """
    distinct = {act.id: act for act in acts}
    known = book.known(distinct)
    new = {identifier: act for identifier, act in distinct.items() if identifier not in known}
    targets = {act.target for act in new.values() if act.target is not None and act.target not in distinct}
    missing = targets - book.known(targets)
    before, after = book.merged(new.values(), rehearse=rehearse)
    by_kind: dict[str, int] = {}
    for act in new.values():
        by_kind[act.kind] = by_kind.get(act.kind, 0) + 1
    return MergeReport(
        read=len(distinct),
        new=len(new),
        by_kind=dict(sorted(by_kind.items())),
        features=len({(act.sae, act.feature) for act in new.values()}),
        authors=tuple(sorted({f"{act.author.kind} {act.author.name}" for act in new.values()})),
        pending=sum(act.target in missing for act in new.values()),
        conflicts=tuple(sorted(after - before)),
        settled=tuple(sorted(before - after)),
        rehearsal=rehearse,
    )


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MOST_LINE:
        raise InputError(f"it has {len(line):,} bytes; {MOST_LINE:,} are allowed")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no JSON object ({error})") from None
    if not isinstance(value, dict):
        raise InputError("it is no JSON object")
    return value


def _plain_acts(value: dict[str, Any], sae: str, plain: Origin | None, moment: str) -> Sequence[Act]:
    if plain is None:
        raise InputError("it is a plain label: say whose it is (--author)")
    feature, text, score = value.get("feature"), value.get("label"), value.get("score")
    if type(feature) is not int or feature < 0 or not isinstance(text, str) or not text.strip():
        raise InputError(
            "it is neither an act nor a plain label: a whole number 'feature' and a text 'label' are needed"
        )
    explanation = value.get("explanation")
    whole = " ".join(text.split())
    label = Label(
        sae=sae,
        feature=feature,
        author=plain.author,
        at=moment,
        side=value.get("side", "input"),
        text=whole if len(whole) <= 200 else f"{whole[:199]}…",
        explanation=explanation if isinstance(explanation, str) else "" if len(whole) <= 200 else whole[:5000],
        method=value["method"] if isinstance(value.get("method"), str) else plain.method,
    )
    if not isinstance(score, int | float) or isinstance(score, bool) or not -1 <= score <= 1:
        return [label]
    stated = Score(
        sae=sae, feature=feature, author=plain.author, at=moment, label=label.id, protocol="stated", value=float(score)
    )
    return [label, stated]


def _misplaced(act: Act, sae: str, features: int | None) -> str:
    """What speaks against an act being of the SAE."""
    if act.sae != sae:
        return f"it is of the SAE with the weights {act.sae[:19]}..., not {sae[:19]}..."
    if features is not None and act.feature >= features:
        return f"feature {act.feature:,} is none of the SAE: it has {features:,}, counted from 0"
    return ""


def _given(book: LabelBook, sae: str, plain: Origin) -> set[tuple[Any, ...]]:
    acts = book.acts(sae, ("label",), author=plain.author)
    return {_same(act) for act in acts if isinstance(act, Label)}


def _same(label: Label) -> tuple[Any, ...]:
    return label.feature, label.side, label.text, label.explanation, label.method
