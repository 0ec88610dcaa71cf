"""Labels of features as ``EXPLANATIONS``: JSON lines of plain labels, or of the acts of a book of labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuronmap.errors import InputError, InvalidManifestError
from neuronmap.interpretation.labels.acts import Author, is_act
from neuronmap.zoo.faults import Fault
from neuronmap.zoo.labels import LABELS_FILE, LABELS_FORMAT, label_lines, lines_of
from neuronmap.zoo.packing.package import Package, utc
from neuronmap.zoo.records import ExplanationsRecord

if TYPE_CHECKING:
    from neuronmap.interpretation.labels.acts import Act
    from neuronmap.interpretation.labels.book import LabelBook
    from neuronmap.zoo.manifest import Manifest

__all__ = ["label_faults", "pack_labels", "unpack_labels"]


def pack_labels(
    file: str | Path,
    *,
    method: str,
    explainer: str | None = None,
    scorer: str | None = None,
    model: dict[str, Any] | None = None,
    sae_weights: str | None = None,
) -> Package:
    """Labels: each line is an act, or an object with ``feature`` (its number) and ``label`` (a text), and ``score`` and more if you like.

    Args:
        file: the lines.
        method: how the explanations came about: rules, llm, people, ...
        explainer: the language model or the group that wrote them.
        scorer: how they were scored.
        model: the language model whose features they explain (a record's ``model``).
        sae_weights: digest of the SAE's weights, by which the dependency is found.

    Raises:
        InvalidManifestError: lists every line that is not of that form.
        InputError: there is no file, or nothing in it.
    """
    path = Path(file)
    counted = _Counted()
    faults: list[Fault] = []
    for line in label_lines(_lines(path), faults, sae=sae_weights):
        counted.add(line)
    if faults:
        raise InvalidManifestError(faults, f"The file of labels {path}")
    if not counted.lines:
        raise InputError(f"{path} holds no labels.")
    count = len(counted.features)
    record = {
        "format": LABELS_FORMAT,
        "method": method,
        "explainer": explainer,
        "scorer": scorer,
        "model": model,
        "count": count,
        "metrics": counted.metrics(),
    }
    return Package(
        kind="EXPLANATIONS",
        record={name: value for name, value in record.items() if value is not None},
        files={LABELS_FILE: path},
        created=utc(None, [path]),
        title=f"Labels of {count:,} features, by {method}{f' ({explainer})' if explainer else ''}"[:200],
        sae_weights=sae_weights or counted.sae,
    )


class _Counted:
    """What is in a file of labels."""

    def __init__(self) -> None:
        self.lines = 0
        self.sae: str | None = None
        self.features: set[int] = set()
        self._kinds: Counter[str] = Counter()
        self._authors: set[tuple[str, str]] = set()
        self._scores: dict[str, list[float]] = defaultdict(list)

    def add(self, line: dict[str, Any]) -> None:
        """Count one line."""
        self.lines += 1
        score = line.get("score")
        if not is_act(line):
            self.features.add(line["feature"])
            if isinstance(score, int | float) and not isinstance(score, bool):
                self._scores["score"].append(float(score))
            return
        kind, author = line["kind"], line["author"]
        self.sae = line["sae"]
        self._kinds[kind] += 1
        self._authors.add((author["kind"], author["name"]))
        if kind == "label":
            self.features.add(line["feature"])
        elif kind == "score" and line["value"] is not None:
            protocol = str(line["protocol"]).partition("@")[0].lower()
            self._scores[f"score_{re.sub('[^a-z0-9]', '_', protocol)[:40]}"].append(float(line["value"]))

    def metrics(self) -> dict[str, float]:
        """Mean scores; for acts also how many there are of each kind, and by how many authors."""
        found = {name: sum(values) / len(values) for name, values in sorted(self._scores.items())}
        if self._kinds:
            found |= {f"{kind}s": float(count) for kind, count in sorted(self._kinds.items())}
            found["authors"] = float(len(self._authors))
        return found


def label_faults(file: Path, features: int, sae: str | None = None) -> list[Fault]:
    """Lines that are no labels of features of the SAE.

    Args:
        file: the lines.
        features: of the SAE, from 0 to one less.
        sae: digest of its weights.
    """
    faults: list[Fault] = []
    for _ in label_lines(_lines(file), faults, features, sae):
        pass
    return faults


def unpack_labels(
    manifest: Manifest,
    folder: Path,
    *,
    sae: str | None = None,
    features: int | None = None,
    book: LabelBook | None = None,
) -> list[Act]:
    """The acts in an artefact of labels; plain labels are taken as those of its explainer, by its method.

    Args:
        manifest: of the version.
        folder: its files.
        sae: digest of the weights of the SAE that they must be of; None: as the acts say.
        features: how many the SAE has.
        book: where plain labels are looked up, so that equal ones are not given twice.

    Raises:
        InputError: it holds no labels, lines that are none, or plain labels alone while ``sae`` is not known.
    """
    from neuronmap.interpretation.labels.exchange import Origin, read_acts

    name, file = f"{manifest.namespace}/{manifest.name}@{manifest.version}", folder / LABELS_FILE
    record = manifest.read_record()
    if not isinstance(record, ExplanationsRecord) or record.format != LABELS_FORMAT:
        raise InputError(
            f"{name} holds no labels that can be read.", hint=f"An EXPLANATIONS whose format is {LABELS_FORMAT} does."
        )
    found = sae or next((str(line["sae"]) for line in label_lines(_lines(file), []) if is_act(line)), None)
    if found is None:
        raise InputError(
            f"{name} does not say by itself of which SAE its labels are.",
            hint=f"neuronmap sae labels import SAE {name}",
        )
    kind: Literal["rule", "model", "person"] = {"rules": "rule", "people": "person"}.get(record.method, "model")  # type: ignore[assignment]
    author = Author(kind=kind, name=(record.explainer or f"{manifest.namespace}/{manifest.name}")[:200])
    return read_acts(_lines(file), found, plain=Origin(author, record.method), features=features, book=book)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from lines_of(iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
