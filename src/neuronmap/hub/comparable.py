"""What must be equal before two evaluations may stand in one table, and what to do where it is not. No torch here.

An evaluation is compared by its *comparison key*: every fact of its protocol that changes what a figure means. What only widens or
narrows an interval (resamples, the bootstrap's seed) and what belongs to the SAE itself (width, architecture, L0) is not in it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from pydantic import ValidationError

from neuronmap.errors import ConfigError, DamagedError
from neuronmap.evaluation.metrics import CoreMetrics, Estimate, Protocol
from neuronmap.evaluation.suites.record import (
    AbsorptionSuite,
    AnySuite,
    CoreSuite,
    ProbingSuite,
    StabilitySuite,
    StructureSuite,
    SuiteName,
    SuiteRecord,
)
from neuronmap.evaluation.suites.table import suite_rows
from neuronmap.hashing import digest_json, short
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.leaderboard_record import StoredFigure
from neuronmap.paths import read_json
from neuronmap.saes.metadata import EVALUATIONS_FOLDER, METRICS_FILE, BundleMetadata, read_bundle_info

__all__ = ["TITLES", "Fact", "Measured", "Remedy", "differing", "measurements", "remedy"]

TITLES = {
    "model": "language model",
    "hook": "hook",
    "text": "text",
    "held_out": "text held out from training",
    "source": "source of the activations",
    "context_length": "context length",
    "tokens": "scored tokens",
    "behaviour_tokens": "tokens for loss and KL",
    "mask": "mask",
    "outlier_threshold": "norm above which a row is dropped",
    "ablations": "ablations",
    "model_dtype": "precision of the model",
    "rows_dtype": "precision of the stored rows",
    "sets": "sets of the probes",
    "ks": "latents of the probes",
    "words": "words",
    "fitted": "text that features were counted on",
    "meta": "meta-SAE",
    "against": "second SAE",
    "matching": "matching",
    "seed": "seed of the draws",
    "rule": "version of the definitions",
    "neuronmap": "version of NeuronMap",
}
"""Each fact of a comparison key, in words."""

LEAST_MAIN_F1 = 0.6
"""Of an SAE whose absorption is ranked; what a dense probe must reach for a letter to count at all."""
_OF_TRAINING = ("mask", "context_length")
_COUNTED = Estimate(value=None, count=0, reason="no interval is stored for it")


class Fact(NamedTuple):
    """A fact of a protocol: what is compared, and how it is told to people."""

    value: str
    shown: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation of one SAE.

    Attributes:
        entry: the SAE.
        suite: what was asked.
        file: where it is stored, within the bundle.
        created: ISO 8601; empty where the record does not say.
        facts: the comparison key, field by field.
        figures: every figure by name.
        l0: active features a token on the scored text (core), or on the rows that the suite read.
        options: those of ``sae evaluate`` that repeat it, as far as the record tells.
        model, model_digest, hook: where it was measured.
    """

    entry: LibraryEntry
    suite: SuiteName
    file: str
    created: str
    facts: dict[str, Fact]
    figures: dict[str, StoredFigure]
    l0: StoredFigure
    options: tuple[str, ...]
    model: str
    model_digest: str
    hook: str

    @property
    def key(self) -> str:
        """Digest of all that makes it comparable."""
        return digest_json({"suite": self.suite, **{name: fact.value for name, fact in self.facts.items()}})


class Remedy(NamedTuple):
    """How evaluations become comparable: a sentence, and commands that do it; none where no option of a command can."""

    said: str
    commands: tuple[str, ...]


def measurements(entry: LibraryEntry, suite: SuiteName) -> tuple[list[Measured], list[str]]:
    """Every stored evaluation of an SAE by one suite.

    Args:
        entry: a sound entry of the library.
        suite: which one; ``core`` is read from ``metrics.json`` as well.

    Returns:
        The evaluations, and what could not be read, in sentences. The suite ``core`` leaves a copy of its figures in ``metrics.json``,
        which is not counted again.
    """
    metadata = read_bundle_info(entry.path).metadata or BundleMetadata()
    found: list[Measured] = []
    notes: list[str] = []
    core: CoreMetrics | None = None
    if suite == "core":
        try:
            content = read_json(entry.path / METRICS_FILE) if (entry.path / METRICS_FILE).is_file() else {}
            core = _core(content)
        except (OSError, DamagedError):
            core, content = None, {}
            notes.append(f"{METRICS_FILE} of {entry.id} cannot be read, and is left out.")
        if core is not None:
            in_sample = content.get("heldout_is_training") is True
            found.append(_of_core(entry, metadata, core, METRICS_FILE, "", in_sample))
    copied = False
    for file in sorted((entry.path / EVALUATIONS_FOLDER).glob(f"{suite}-*.json")):
        inside = f"{EVALUATIONS_FOLDER}/{file.name}"
        try:
            record = SuiteRecord.from_dict(read_json(file))
        except (OSError, DamagedError, ConfigError, TypeError):
            notes.append(f"{inside} of {entry.id} is no record that this NeuronMap reads, and is left out.")
            continue
        if isinstance(record.result, CoreSuite):
            copied = copied or record.result.sae == core
            in_sample = _trained_on(metadata, record.protocol.tokens_digest)
            found.append(_of_core(entry, metadata, record.result.sae, inside, record.created, in_sample, record.rule))
        elif record.result.suite == suite:
            found.append(_of_suite(entry, metadata, record, inside))
    return found[copied:], notes


def differing(one: Measured, other: Measured) -> list[str]:
    """Fields in which two comparison keys differ, in the order of :data:`TITLES`."""
    names = [name for name in TITLES if name in one.facts or name in other.facts]
    nothing = Fact("", "not stated")
    return [name for name in names if one.facts.get(name, nothing).value != other.facts.get(name, nothing).value]


def remedy(shown: Sequence[Measured], others: Sequence[Measured], fields: Sequence[str]) -> Remedy:
    """How others could stand beside those that are shown.

    Args:
        shown: evaluations of one comparison key.
        others: evaluations of another one.
        fields: in what the two differ.
    """
    if "model" in fields or "hook" in fields:
        return Remedy(
            "They belong on a leaderboard of their own: figures of two places of a model cannot be ranked.", ()
        )
    options = list(shown[0].options)
    if fixed := [TITLES[name] for name in _OF_TRAINING if name in fields]:
        return Remedy(
            f"{' and '.join(fixed).capitalize()} come from the settings of each training, and no option of sae evaluate "
            "changes them; neuronmap.evaluation.evaluate_sae takes contexts and mask.",
            (),
        )
    if "source" in fields or "rows_dtype" in fields:
        return Remedy("Stored rows and a model run over text are two measurements; measure all on one text.", ())
    if "against" in fields:
        return Remedy("The second SAE is the yardstick of stability: only those held against the same one compare.", ())
    everyone = [*shown, *others]
    if "text" in fields or "held_out" in fields:
        options += ["--text", "TEXT"]
        said = "Measure all of them on one text that none was trained on (TEXT: a corpus, file or folder)."
    elif "neuronmap" in fields or "rule" in fields:
        now = version("neuronmap")
        everyone = [one for one in everyone if one.facts["neuronmap"].value != now] or list(others)
        said = f"Measure again what another version measured; this is {now}."
    else:
        everyone, said = list(others), "Measure them as those that are shown."
    if "model_dtype" in fields:
        options += ["--dtype", shown[0].facts["model_dtype"].value]
    words = shlex.join(options)  # records from elsewhere hold any text
    named = dict.fromkeys(one.entry.id for one in everyone)
    return Remedy(said, tuple(f"neuronmap sae evaluate {shlex.quote(name)} {words}".rstrip() for name in named))


# --- one record ---------------------------------------------------------------------------------------------------------


def _core(content: Any) -> CoreMetrics | None:
    """The record in a ``metrics.json``; None where another program wrote it, or it holds none."""
    if not isinstance(content, dict) or not isinstance(content.get("core"), dict):
        return None
    try:
        return CoreMetrics.model_validate(content["core"])
    except ValidationError:
        return None


def _trained_on(metadata: BundleMetadata, digest: str | None) -> bool:
    """Whether a text is the one that the SAE was trained on."""
    return digest is not None and (metadata.corpus or {}).get("train") == digest


def _last(name: str | None) -> str:
    """Of a path its last part: a bundle that was published names its model so."""
    text = name or ""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name or text
    return text


def _place(metadata: BundleMetadata, model: str | None, hook: str | None) -> tuple[dict[str, Fact], dict[str, str]]:
    """Model and hook: the bundle knows the digest of the model it was trained on, the record the name of the one it was measured in."""
    stored = metadata.model or {}
    same = model is None or _last(model) == _last(stored.get("name"))
    digest = str(stored.get("model_digest") or "") if same else ""
    name, place = _last(model or stored.get("name")), hook or str((metadata.hook or {}).get("name") or "")
    shown = f"{name} ({short(digest)})" if digest else name or "not stated"
    facts = {"model": Fact(digest or name, shown), "hook": Fact(place, place or "not stated")}
    return facts, {"model": name, "model_digest": digest, "hook": place}


def _fact(value: Any) -> Fact:
    """A plain value; a digest is shown by its first digits, nothing as "not stated"."""
    if value is None or value == "":
        return Fact("", "not stated")
    if isinstance(value, int) and not isinstance(value, bool):
        return Fact(str(value), f"{value:,}")
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return Fact(text, short(text) if text.startswith("sha256:") else text)


def _text(metadata: BundleMetadata, digest: str | None) -> Fact:
    """A text; one that the bundle knows by its digest is told by name."""
    corpus = metadata.corpus or {}
    parts = {"train": "training part", "heldout": "held-out part"}
    known = [words for part, words in parts.items() if digest is not None and corpus.get(part) == digest]
    fact = _fact(digest)
    return (
        Fact(fact.value, f"{known[0]} of {_last(corpus.get('name')) or 'its text'} ({fact.shown})") if known else fact
    )


def _of_core(
    entry: LibraryEntry,
    metadata: BundleMetadata,
    core: CoreMetrics,
    file: str,
    created: str,
    in_sample: bool,
    rule: int | None = None,
) -> Measured:
    protocol = core.protocol
    facts, place = _place(metadata, protocol.model, protocol.hook)
    in_sample = in_sample or _trained_on(metadata, protocol.source_digest)
    facts["text"] = _text(metadata, protocol.source_digest)
    facts["held_out"] = _fact("no" if in_sample else "yes")
    facts |= {name: _fact(value) for name, value in _core_facts(core).items()}
    figures = dict(_core_figures(core))
    return Measured(
        entry, "core", file, created, facts, figures, figures["l0"], _core_options(protocol, rule is not None), **place
    )


def _core_facts(core: CoreMetrics) -> dict[str, Any]:
    protocol, behaviour = core.protocol, core.behaviour
    ablations = [name for name in ("zero", "mean") if behaviour and getattr(behaviour, f"ce_{name}") is not None]
    return {
        "source": protocol.source,
        "context_length": protocol.context_length,
        "tokens": f"{protocol.tokens:,} in {protocol.contexts:,} contexts",
        "behaviour_tokens": f"{protocol.behaviour_tokens:,} in {protocol.behaviour_contexts:,} contexts",
        "mask": _mask(protocol.mask),
        "outlier_threshold": _threshold(protocol.outlier_threshold),
        "ablations": ", ".join(ablations),
        "model_dtype": protocol.model_dtype,
        "rows_dtype": protocol.rows_dtype,
        "rule": core.format,
        "neuronmap": protocol.versions.get("neuronmap"),
    }


def _mask(mask: dict[str, Any] | None) -> str | None:
    return None if mask is None else ", ".join(f"{name} {mask[name]}" for name in sorted(mask))


def _threshold(threshold: float | None) -> str | None:
    return None if threshold is None else f"{threshold:.5g}"  # the last digits are of the machine


def _core_options(protocol: Protocol, of_suite: bool) -> tuple[str, ...]:
    """Options that score as many tokens again."""
    length = protocol.context_length or 0
    found = ["--suite", "core"] if of_suite or protocol.outlier_threshold_from == "as given" else []
    if length and protocol.contexts:
        ce_tokens = protocol.behaviour_contexts * length
        found += ["--tokens", str(protocol.contexts * length), "--ce-tokens", str(ce_tokens)]
    return tuple(found)


def _core_figures(core: CoreMetrics) -> Iterator[tuple[str, StoredFigure]]:
    for section in (core.reconstruction, core.sparsity, core.behaviour):
        for name in type(section).model_fields if section is not None else ():
            value = getattr(section, name)
            if isinstance(value, Estimate | int | float):
                yield name, _figure(value)


def _figure(value: Estimate | float | None) -> StoredFigure:
    if not isinstance(value, Estimate):
        value = _COUNTED.updated(value=value)
    return StoredFigure(value=value.value, low=value.low, high=value.high, reason=value.reason or "")


def _of_suite(entry: LibraryEntry, metadata: BundleMetadata, record: SuiteRecord, file: str) -> Measured:
    protocol, result = record.protocol, record.result
    facts, place = _place(metadata, protocol.model, protocol.hook)
    facts |= {name: _fact(value) for name, value in _suite_facts(record).items()}
    if "text" in facts:
        facts["text"] = _text(metadata, protocol.tokens_digest)
    facts["seed"], facts["rule"] = _fact(protocol.seed), _fact(record.rule)
    facts["neuronmap"] = _fact(protocol.versions.get("neuronmap"))
    rows = [row for row in suite_rows(record) if "sae" in row.values]
    l0 = StoredFigure(
        value=protocol.l0, reason="no interval is stored for it" if protocol.l0 is not None else "no language model"
    )
    return Measured(
        entry,
        result.suite,
        file,
        record.created,
        facts,
        _meaningful({row.figure: _figure(row.values["sae"]) for row in rows}, result),
        l0,
        _suite_options(record),
        **place,
    )


def _meaningful(figures: dict[str, StoredFigure], result: AnySuite) -> dict[str, StoredFigure]:
    """Absorption is a figure only where something stands for the letters; from nothing nothing can be absorbed, and 0 would come first."""
    main = figures.get("main_f1")
    if not isinstance(result, AbsorptionSuite) or main is None or main.value is None or main.value >= LEAST_MAIN_F1:
        return figures
    reason = f"nothing stands for the letters: main_f1 is {main.value:.2f}, {LEAST_MAIN_F1} is needed"
    return {**figures, **{name: StoredFigure(value=None, reason=reason) for name in ("fraction", "full")}}


def _suite_facts(record: SuiteRecord) -> dict[str, Any]:
    """What decides the SAE's own figures. The text is that of the baselines alone in probing and absorption, and is no part of it there."""
    protocol, result = record.protocol, record.result
    counted = None if protocol.fitted_on is None else f"{protocol.fitted_rows:,} rows of {protocol.fitted_on}"
    of_text = {
        "text": protocol.tokens_digest,
        "fitted": counted,
        "mask": _mask(protocol.mask),
        "outlier_threshold": _threshold(protocol.outlier_threshold),
        "model_dtype": protocol.model_dtype,
    }
    precision = {"model_dtype": protocol.model_dtype}  # of the items, which no mask touches
    if isinstance(result, ProbingSuite):
        sets = [(one.name, one.items_digest, one.train, one.test, one.test_clusters) for one in result.sets]
        ks = ", ".join(str(k) for k in result.ks)
        return {"sets": f"{len(sets)}: {short(digest_json(sets))}", "ks": ks, **precision}
    if isinstance(result, AbsorptionSuite):
        words = f"{result.words:,} words, {result.letters_reached} letters, after {result.template!r}"
        return {"words": words, **precision}
    if isinstance(result, StructureSuite):
        meta = f"{result.meta_k} active, {result.meta_steps} steps"
        return {"meta": meta, **(of_text if result.dead is not None else {})}
    if isinstance(result, StabilitySuite):
        return {"against": result.against_digest, "matching": result.matching, **of_text}
    return {}


def _suite_options(record: SuiteRecord) -> tuple[str, ...]:
    result = record.result
    found = ["--suite", result.suite]
    if isinstance(result, ProbingSuite):
        found += ["--items", str(result.sets[0].train + result.sets[0].test)] if result.sets else []
        found += [word for one in result.sets if one.source == "sae-probes" for word in ("--probe-set", one.name)]
    if isinstance(result, StabilitySuite):
        found += ["--against", result.against]
    return tuple(found)
