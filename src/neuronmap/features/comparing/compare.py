"""Comparing two SAEs: which features they share, which are split, merged or unique, and what chance would give.

Shapes: F features, D width of an activation.

What two SAEs can be compared by depends on what they read:

    the same hook of the same model             decoder cosine; with rows also firing
    two layers of one model's residual stream   firing on the same tokens, first; decoder cosine, since blocks add to one space
    other hooks, models with one tokenizer      firing on the same tokens
    models with different tokenizers            firing on the same characters of shared text

Only the first reads nothing but weights. Firing is measured on a stated sample of the text, through sparse codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.errors import InputError, MismatchError
from neuronmap.features.comparing.comparison import SAEComparison, Side
from neuronmap.features.comparing.crossmodel import Documents, SharedText, meet_in_text
from neuronmap.features.comparing.firing import FiringRows, ReaderOfRows, Runs, meet, read_firing, reader_of
from neuronmap.features.comparing.matching import Matching, match, what_chance_gives
from neuronmap.features.comparing.similarity import (
    DecoderCosine,
    DirectionNull,
    FiringMeasure,
    FiringSimilarity,
    Similarity,
)
from neuronmap.progress import Progress, default
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.metadata import BundleMetadata
from neuronmap.saes.uses import require_use

__all__ = ["CompareConfig", "SAEComparison", "SharedText", "compare_saes"]


class CompareConfig(FrozenConfig):
    """How two SAEs are compared."""

    threshold: float | None = Field(default=None, gt=0.0, le=1.0)
    """Similarity from which two features count as related; None for what chance gives at ``false_match_rate``."""
    false_match_rate: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Share of features that may have a best match above the threshold by chance."""
    direction_null: DirectionNull = "resampled"
    """Unrelated directions: the second decoder's coordinates on its principal axes ``resampled``, or the whole ``rotated``."""
    firing_measure: FiringMeasure = "correlation"
    """How firing is compared: correlation or cosine of activations, or jaccard of the places."""
    null_draws: int = Field(default=5, ge=1, le=1000)
    """Draws of the null."""
    null_features: int = Field(default=1024, ge=1)
    """Features of each SAE looked at in a draw; all, if there are fewer."""
    candidates: int = Field(default=32, ge=1, le=1024)
    """Best matches kept for each feature; one-to-one matching chooses among them."""
    least_firings: int = Field(default=10, ge=1)
    """Features that fire at fewer places are not compared by firing."""
    coverage: float = Field(default=0.5, ge=0.0, le=1.0)
    """Where rows are given: share of a split feature's firing that its parts must cover together."""
    max_rows: int = Field(default=131_072, ge=64)
    """Rows read of each source, in runs spread over the whole text."""
    seed: int = Field(default=0, ge=0)
    """Seed of the null."""


@dataclass(frozen=True)
class _Input:
    """One SAE and what is known of where its activations come from."""

    name: str
    sae: SparseAutoencoder
    model: Mapping[str, Any] | None
    hook: Mapping[str, Any] | None
    hook_out: Mapping[str, Any] | None = None

    @property
    def model_digest(self) -> str | None:
        return None if self.model is None else self.model.get("model_digest")

    @property
    def model_name(self) -> str | None:
        return None if self.model is None else self.model.get("name")

    @property
    def hook_name(self) -> str | None:
        return None if self.hook is None else self.hook.get("name")

    @property
    def written(self) -> Mapping[str, Any] | None:
        """The hook that decoder rows are directions at."""
        return self.hook if self.sae.reconstructs_input else self.hook_out

    @property
    def written_name(self) -> str | None:
        return None if self.written is None else self.written.get("name")

    @property
    def verb(self) -> str:
        """What it does there."""
        return "reads" if self.sae.reconstructs_input else "reconstructs"


def compare_saes(
    a: SparseAutoencoder,
    b: SparseAutoencoder,
    *,
    rows: Any = None,
    rows_b: Any = None,
    text: SharedText | None = None,
    metadata_a: BundleMetadata | None = None,
    metadata_b: BundleMetadata | None = None,
    names: tuple[str, str] = ("A", "B"),
    config: CompareConfig | None = None,
    progress: Progress | None = None,
) -> SAEComparison:
    """Match the features of two SAEs, and say what is shared, split, merged and unique, beside what chance gives.

    Args:
        a, b: the SAEs; widths, seeds and architectures may differ.
        rows: activation rows: an :class:`~neuronmap.activations.ActivationStore`, a tensor or array [N, D], or the rows of a
            feature pass (whose hooks the metadata choose). Both SAEs read them, unless ``rows_b`` is given.
        rows_b: what b reads, where that is another layer or another model. Rows meet where they are the same token of the
            same document (two arrays: row by row).
        text: needed where the two sources were tokenised differently: rows then meet where their tokens share characters.
        metadata_a, metadata_b: what the bundles say about model and hook (``read_bundle_info(folder).metadata``).
        names: what to call the two in tables and plots.
        config: thresholds, null and sample.
        progress: where progress and notes go.

    Returns:
        The comparison: tables, summary, plot.

    Raises:
        MismatchError: if there is nothing to compare them by (the message lists every difference), or one reads more than rows of
            one hook or has negative activations.
        InputError: if rows are unusable, or no feature fires often enough.

    Example:
        >>> from neuronmap.saes import load_sae
        >>> print(compare_saes(load_sae("seed-0"), load_sae("seed-1")).summary())  # doctest: +SKIP
    """
    config, progress = config or CompareConfig(), progress or default()
    if rows is None and (rows_b is not None or text is not None):
        raise InputError(
            "rows_b or text was given without rows.", hint="Give the rows that the first SAE reads as rows."
        )
    for name, sae in zip(names, (a, b), strict=True):
        require_use(sae, "features", f"Comparing the features of {name}")
    readers = [reader_of(source) for source in (rows, rows_b) if source is not None]
    inputs = [
        _Input(
            name,
            sae,
            *_origin(metadata, readers[min(side, len(readers) - 1)] if readers else None),
            None if metadata is None else metadata.hook_out,
        )
        for side, (name, sae, metadata) in enumerate(zip(names, (a, b), (metadata_a, metadata_b), strict=True))
    ]
    space = _space_differences(*inputs, two_sources=len(readers) == 2)
    _refuse_mismatch(inputs, readers, text, space)

    notes: list[str] = []
    firing: FiringSimilarity | None = None
    facts: dict[str, Any] = {}
    if readers:
        firing, facts = _firing(inputs, readers, text, config, progress)
    cosine, decoder = None, None
    if space:
        notes.append(f"Decoders were not compared: {'; '.join(space)}.")
    else:
        cosine = DecoderCosine.of(a, b, config.direction_null)
        decoder = _matched(cosine, config, progress)
        notes += _space_notes(*inputs)
    activation = None if firing is None else _matched(firing, config, progress)
    same_hook = inputs[0].written_name == inputs[1].written_name
    for matching in (decoder, activation):
        if matching is not None:
            notes += _matching_notes(matching, config)
    return SAEComparison(
        sides=tuple(_side(one) for one in inputs),  # type: ignore[arg-type]
        settings=config.to_dict(),
        decoder=decoder,
        activation=activation,
        primary="decoder" if decoder is not None and (same_hook or activation is None) else "activation",
        rows=facts,
        notes=tuple(notes),
        direction=cosine,
        firing=firing,
    )


def _matched(similarity: Similarity, config: CompareConfig, progress: Progress) -> Matching:
    if not similarity.usable_A.any() or not similarity.usable_B.any():
        raise InputError(
            f"No feature of one SAE can be compared by {similarity.measure}: {int(similarity.usable_A.sum()):,} of the first and"
            f" {int(similarity.usable_B.sum()):,} of the second fire at {config.least_firings} places or more.",
            hint="Give more rows, or lower least_firings.",
        )
    with progress.task(f"Null of {similarity.measure}", config.null_draws, "draws") as task:
        chance = what_chance_gives(
            similarity,
            draws=config.null_draws,
            rate=config.false_match_rate,
            sample=config.null_features,
            seed=config.seed,
            task=task,
        )
    with progress.task(f"Matching by {similarity.measure}", int(similarity.usable_A.sum()), "features") as task:
        return match(similarity, chance, threshold=config.threshold, keep=config.candidates, task=task)


def _firing(
    inputs: list[_Input],
    readers: list[ReaderOfRows],
    text: SharedText | None,
    config: CompareConfig,
    progress: Progress,
) -> tuple[FiringSimilarity, dict[str, Any]]:
    """Codes of both SAEs at the places where their rows meet, and how many there were."""
    stride = max(-(-reader.num_rows // config.max_rows) for reader in readers)
    both = [Runs(stride), Runs(stride)]
    wanted: list[Any] = both if text is None else [Documents(text.tokens_a, stride), Documents(text.tokens_b, stride)]
    coded: list[FiringRows] = []
    with progress.task("Encoding rows", sum(reader.num_rows for reader in readers) // stride, "rows") as task:
        for number, reader in enumerate(readers):
            mine = inputs if len(readers) == 1 else [inputs[number]]
            jobs = [(_hook_in(reader, one), one.sae) for one in mine]
            coded += read_firing(reader, jobs, wanted[number], task)
    one, other = coded
    facts: dict[str, Any] = {"rows_a": len(one.document), "rows_b": len(other.document), "stride": stride}
    weight = None
    if text is None:
        row_a, row_b = meet(one, other)
        facts |= {"met_by": "token", "places": len(row_a)}
    else:
        places = meet_in_text(one, other, text)
        row_a, row_b, weight = places.row_a, places.row_b, places.weight
        facts |= {
            "met_by": "characters",
            "places": len(row_a),
            "characters": float(weight.sum()),
            "documents": places.documents,
        }
    similarity = FiringSimilarity(
        one.code_NF[row_a],
        other.code_NF[row_b],
        weight,
        measure=config.firing_measure,
        least_firings=config.least_firings,
    )
    return similarity, facts


def _origin(
    metadata: BundleMetadata | None, reader: ReaderOfRows | None
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Model and hook of an SAE: what its bundle says, else what its rows say."""
    model, hook = (None, None) if metadata is None else (metadata.model, metadata.hook)
    if reader is not None:
        model, hook = model or reader.model, hook or reader.hook
    return model, hook


def _hook_in(reader: ReaderOfRows, one: _Input) -> str:
    """The reader's name of the hook that an SAE reads."""
    if len(reader.widths) == 1:
        return next(iter(reader.widths))
    return one.hook_name or ""


def _space_differences(a: _Input, b: _Input, *, two_sources: bool) -> list[str]:
    """Why the decoders' directions are not of one space; empty if they are, as far as is known."""
    differences = []
    if a.sae.reconstructs_input != b.sae.reconstructs_input and None in (a.written_name, b.written_name):
        one = a if b.sae.reconstructs_input else b
        differences.append(
            f"{one.name} reconstructs another hook than it reads, and nothing says that it is the other's"
        )
    width_a, width_b = (one.sae.W_dec.shape[1] for one in (a, b))
    if width_a != width_b:
        second = "" if a.verb == b.verb else f"{b.verb} those "
        differences.append(f"{a.name} {a.verb} activations of width {width_a:,} and {b.name} {second}of {width_b:,}")
    same_model = bool(a.model_digest) and a.model_digest == b.model_digest
    if a.model_digest and b.model_digest and not same_model:
        differences.append(f"{a.name} reads the model {a.model_name} and {b.name} reads {b.model_name}")
    if a.written_name and b.written_name:
        one_stream = same_model and all((one.written or {}).get("component") == "residual" for one in (a, b))
        if a.written_name != b.written_name and not one_stream:
            differences.append(f"{a.name} {a.verb} {a.written_name} and {b.name} {b.verb} {b.written_name}")
    elif two_sources:
        differences.append(
            "rows of two sources were given, and nothing says that they are of one space (metadata_a, metadata_b)"
        )
    return differences


def _refuse_mismatch(
    inputs: list[_Input], readers: list[ReaderOfRows], text: SharedText | None, space: list[str]
) -> None:
    """Raise a MismatchError that lists everything that does not fit."""
    if not readers:
        if space:
            raise MismatchError(
                f"The decoders cannot be compared, and there are no rows to compare firing on: {'; '.join(space)}.",
                hint="Give the activations that each SAE reads, of the same text: rows=..., rows_b=...",
            )
        return
    differences = []
    for one, reader in zip(inputs, readers if len(readers) == 2 else readers * 2, strict=True):
        differences += _rows_against(one, reader)
    if len(readers) == 2:
        digests = [reader.tokens_digest for reader in readers]
        if (digests[0] is None) != (digests[1] is None):
            differences.append("one source of rows is an array without origin, the other knows its tokens")
        elif text is None and digests[0] != digests[1]:
            differences.append("the two sources of rows are of different token sets (for other tokenizers give text=)")
        elif digests[0] is None and readers[0].num_rows != readers[1].num_rows:
            differences.append(f"the two arrays have {readers[0].num_rows:,} and {readers[1].num_rows:,} rows")
    if text is not None:
        both = readers if len(readers) == 2 else readers * 2
        for one, reader, tokens in zip(inputs, both, (text.tokens_a, text.tokens_b), strict=True):
            if reader.tokens_digest != tokens.digest:
                differences.append(f"the rows of {one.name} are not of the token set in text")
    if differences:
        raise MismatchError(f"These cannot be compared: {'; '.join(differences)}.")


def _rows_against(one: _Input, reader: ReaderOfRows) -> list[str]:
    """What speaks against an SAE reading these rows."""
    hook = _hook_in(reader, one)
    if hook not in reader.widths:
        known = f"hook {one.hook_name}" if one.hook_name else "an unknown hook (see metadata_a, metadata_b)"
        return [f"{one.name} reads {known} and the rows are of {', '.join(reader.widths)}"]
    differences = []
    width = reader.widths[hook]
    if width is not None and width != one.sae.d_in:
        differences.append(f"{one.name} reads activations of width {one.sae.d_in:,} and its rows have {width:,}")
    if reader.hook is not None and one.hook_name and reader.hook["name"] != one.hook_name:
        differences.append(f"{one.name} reads {one.hook_name} and its rows are of {reader.hook['name']}")
    digest = None if reader.model is None else reader.model.get("model_digest")
    if digest and one.model_digest and digest != one.model_digest:
        name = (reader.model or {}).get("name")
        differences.append(f"{one.name} reads {one.model_name} and its rows are of {name}, or of another version of it")
    return differences


def _space_notes(a: _Input, b: _Input) -> list[str]:
    if a.written_name is None or b.written_name is None:
        does = "read" if a.sae.reconstructs_input else "reconstruct"
        return [f"Nothing says which hooks the SAEs {does}; their decoders are taken to be of one space."]
    if a.written_name != b.written_name:
        return [
            f"{a.written_name} and {b.written_name} are two layers of one residual stream: directions can be compared, but what they"
            " mean may drift from layer to layer. Firing on the same tokens is the primary measure."
        ]
    return []


def _matching_notes(matching: Matching, config: CompareConfig) -> list[str]:
    notes = []
    if matching.threshold < matching.chance.threshold:
        notes.append(
            f"By {matching.measure}, the threshold {matching.threshold:.3f} is below what chance gives"
            f" ({matching.chance.threshold:.3f} at a false-match rate of {matching.chance.rate:g})."
        )
    if not matching.pairing.exact:
        notes.append(
            f"By {matching.measure}, one-to-one matching is the optimum over the {config.candidates} best matches of each feature;"
            f" {matching.candidates.pairs_above:,} pairs are above {matching.pairing.floor:.3f}, more than were kept."
        )
    return notes


def _side(one: _Input) -> Side:
    return Side(
        name=one.name,
        architecture=one.sae.architecture,
        features=one.sae.d_sae,
        width=one.sae.d_in,
        model=one.model_name,
        hook=one.hook_name,
    )
