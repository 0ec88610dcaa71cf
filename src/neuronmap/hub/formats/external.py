"""Data about features that another program measured: examples, tokens, labels. Kept beside an SAE, apart from our own analyses.

    <bundle>/analyses/<name>/external.json     what it is: format, source, model, hook, files with digests, counts
    <bundle>/analyses/<name>/features.jsonl    one :class:`ExternalFeature` a line, by number

Such data is not turned into a feature store: a store is complete (every firing of every feature on a known text), and holds what
no dashboard gives. It is therefore kept as what it is: examples and figures by someone else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pydantic import Field

from neuronmap import paths
from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError, DamagedError, InputError, MismatchError
from neuronmap.hashing import digest_file
from neuronmap.hub.formats.format import Candidate, Given

__all__ = [
    "ExternalData",
    "ExternalExample",
    "ExternalFeature",
    "FeatureFormat",
    "TokenValue",
    "read_external",
    "write_external",
]

MANIFEST, FEATURES = "external.json", "features.jsonl"
SCHEMA = "neuronmap/external-features/1"


class TokenValue(FrozenConfig):
    """A token and a number."""

    token: str
    """As the other program shows it."""
    value: float
    """Its logit, or what the list is ordered by."""


class ExternalExample(FrozenConfig):
    """A stretch of text in which a feature fires."""

    tokens: tuple[str, ...] = ()
    """Texts of its tokens; empty where only ids are known."""
    token_ids: tuple[int, ...] = ()
    """Their ids; empty where only texts are known."""
    activations: tuple[float, ...]
    """One for each token, on the other program's scale."""
    peak: int = Field(ge=0)
    """Place of the strongest."""
    low: float | None = None
    """Lower end of the activations of the group it is an example of."""
    high: float | None = None
    """Upper end."""
    share: float | None = None
    """Share of all tokens that are in that group."""


class ExternalFeature(FrozenConfig):
    """What another program says about one feature."""

    feature: int = Field(ge=0)
    """Number of the feature."""
    label: str | None = None
    """An explanation in words."""
    density: float | None = None
    """Share of tokens on which it fires."""
    max: float | None = None
    """Largest activation that was seen."""
    promoted: tuple[TokenValue, ...] = ()
    """Tokens whose logits it raises most."""
    suppressed: tuple[TokenValue, ...] = ()
    """Tokens whose logits it lowers most."""
    examples: tuple[ExternalExample, ...] = ()
    """In the order of the other program."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Scores of the label, by the other program's names."""


class ExternalData(NamedTuple):
    """What a format of feature data gives.

    Attributes:
        features: one after the other, by number.
        facts: model, hook, source set, text, as far as the files say.
        files: that were read.
    """

    features: Iterable[ExternalFeature]
    facts: dict[str, Any]
    files: list[Path]


@runtime_checkable
class FeatureFormat(Protocol):
    """A format of data about features."""

    def read_features(self, candidate: Candidate, given: Given) -> ExternalData:
        """Read it; :class:`~neuronmap.errors.DamagedError` for files that are not what they should be."""


def write_external(
    data: ExternalData, folder: Path, *, format: str, source: str, d_sae: int | None = None
) -> dict[str, Any]:
    """Write both files into a new folder.

    Args:
        data: what was read.
        folder: does not exist yet.
        format: name of the foreign format.
        source: where it came from.
        d_sae: of the SAE it is for; a feature beyond is refused.

    Returns:
        The manifest.

    Raises:
        MismatchError: a feature that the SAE does not have.
        InputError: no features, or one twice.
    """
    paths.new_folder(folder)
    seen: set[int] = set()
    examples = labels = 0
    with paths.new_file(folder / FEATURES) as file:
        for one in data.features:
            if d_sae is not None and one.feature >= d_sae:
                raise MismatchError(f"There is data about feature {one.feature:,}, but the SAE has {d_sae:,} features.")
            if one.feature in seen:
                raise InputError(f"There is data about feature {one.feature:,} twice.")
            seen.add(one.feature)
            examples += len(one.examples)
            labels += one.label is not None
            file.write((json.dumps(one.to_dict(), ensure_ascii=False, allow_nan=False) + "\n").encode())
    if not seen:
        raise InputError(f"{source} holds no features.")
    manifest = {
        "schema": SCHEMA,
        "format": format,
        "source": source,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "neuronmap": version("neuronmap"),
        "facts": data.facts,
        "counts": {"features": len(seen), "examples": examples, "labels": labels},
        "files": {file.name: digest_file(file) for file in data.files},
        "digest": digest_file(folder / FEATURES),
    }
    paths.write_json(folder / MANIFEST, manifest)
    return manifest


def read_external(folder: Path) -> tuple[dict[str, Any], Iterator[ExternalFeature]]:
    """The manifest, and the features one after the other.

    Raises:
        DamagedError: a file is missing, changed, or of another version.
    """
    for name in (MANIFEST, FEATURES):
        if not (folder / name).is_file():
            raise DamagedError(f"{folder} lacks {name}.")
    manifest = paths.read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DamagedError(f"{folder / MANIFEST} is not of the schema {SCHEMA}.")
    if digest_file(folder / FEATURES) != manifest.get("digest"):
        raise DamagedError(f"{folder / FEATURES} was changed since it was written.")

    def features() -> Iterator[ExternalFeature]:
        with open(folder / FEATURES, encoding="utf-8") as file:
            for line in file:
                yield parsed(folder / FEATURES, json.loads(line))

    return manifest, features()


def parsed(file: Path, record: Mapping[str, Any]) -> ExternalFeature:
    """A record, checked.

    Raises:
        DamagedError: it is not a feature; says what is wrong.
    """
    try:
        return ExternalFeature.from_dict(dict(record))
    except (ConfigError, ValueError, TypeError) as error:
        first = " ".join(str(error).split())[:300]
        raise DamagedError(
            f"{file}: the record of feature {record.get('feature')!r} cannot be used: {first}"
        ) from error
