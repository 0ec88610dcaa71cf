"""Bringing SAEs in: from a source to the library, with a proof that they do what they should."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap import progress as progress_room
from neuronmap.errors import ConfigError, CorpusNotFoundError, DamagedError, HookPointError, InputError, ModelError
from neuronmap.hub.formats.external import FeatureFormat, write_external
from neuronmap.hub.formats.format import Candidate, Given, Imported
from neuronmap.hub.formats.places import said_record
from neuronmap.hub.formats.proving import Proof, hooks_of, prove
from neuronmap.hub.formats.registry import choose, detect, get_format
from neuronmap.hub.formats.sources import Fetched, fetch
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.hub.entry import LibraryEntry
    from neuronmap.hub.library import SAEModelHub
    from neuronmap.models import LanguageModel

__all__ = [
    "ImportedSAE",
    "find_candidates",
    "import_candidates",
    "import_features",
    "import_sae",
    "import_saes",
    "read_candidate",
]

_PROOF_TEXT = "sotu"
_PROOF_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class ImportedSAE:
    """What an import left.

    Attributes:
        entry: the SAE in the library.
        candidate: what it was made from.
        proof: what it does to real activations; None where that was not tried.
        unproved: why not; empty where there is a proof.
        notes: what was folded, what is missing.
    """

    entry: LibraryEntry
    candidate: Candidate
    proof: Proof | None
    unproved: str
    notes: tuple[str, ...]


def import_sae(
    source: str | Path | Fetched,
    format: str | None = None,
    *,
    select: str | None = None,
    layer: int | None = None,
    name: str | None = None,
    model: str | LanguageModel | None = None,
    hook: str | None = None,
    hook_out: str | None = None,
    assume: Mapping[str, str] | None = None,
    prove: bool = True,
    text: Any = None,
    tokens: int = _PROOF_TOKENS,
    tags: tuple[str, ...] = (),
    replace: bool = False,
    hub: SAEModelHub | None = None,
    progress: Progress | None = None,
) -> ImportedSAE:
    """Read one SAE of any known format, try it on its language model, and put it into the library.

    Nothing is registered unless it was read whole: shapes and headers are checked first, then values, then the reconstruction.

    Args:
        source: folder, file, ``hf://owner/repo[/folder][@revision]``, ``owner/repo``, or what was fetched
            already.
        format: its name; None to recognise it by files and tensors.
        select: name of one of several, or a pattern.
        layer: that of one of several.
        name: id in the library; derived when left out.
        model: the language model, over what the files say; also where the proof runs.
        hook: where it reads, over what the files say: a component, ``mlp:in``, or a module path with a side.
        hook_out: the same for what a transcoder reconstructs.
        assume: answers to what the files leave open; each format lists its own.
        prove: reconstruct real activations, if the model is on this machine.
        text: for that; the sample text when left out.
        tokens: for that.
        tags: added to it.
        replace: take the place of another SAE of that name.
        hub: the library.
        progress: where notes, warnings and bars go.

    Raises:
        InputError: nothing was recognised, several fit, or it cannot be an SAE of ours.
        DamagedError: a file is cut off, misshapen or changed.
        ConfigError, AlreadyExistsError: as for ``SAEModelHub.register``.
    """
    fetched, found = find_candidates(source, format, select=select, layer=layer, progress=progress)
    weights = [one for one in found if one.kind == "weights"] or found
    if len(weights) > 1:
        raise several(weights)
    return import_candidates(
        fetched, weights, name=name, model=model, hook=hook, hook_out=hook_out, assume=assume, prove=prove, text=text, tokens=tokens,
        tags=tags, replace=replace, hub=hub, progress=progress,
    )[0]  # fmt: skip


def import_saes(
    source: str | Path | Fetched,
    format: str | None = None,
    *,
    select: str | None = None,
    layer: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[ImportedSAE]:
    """As :func:`import_sae`, for all that fit; the model is loaded once. Each that is done stays when a later one fails."""
    fetched, found = find_candidates(source, format, select=select, layer=layer, progress=progress)
    return import_candidates(fetched, found, progress=progress, **options)


def import_candidates(
    fetched: Fetched,
    candidates: list[Candidate],
    *,
    name: str | None = None,
    model: str | LanguageModel | None = None,
    hook: str | None = None,
    hook_out: str | None = None,
    assume: Mapping[str, str] | None = None,
    prove: bool = True,
    text: Any = None,
    tokens: int = _PROOF_TOKENS,
    tags: tuple[str, ...] = (),
    replace: bool = False,
    hub: SAEModelHub | None = None,
    progress: Progress | None = None,
) -> list[ImportedSAE]:
    """Import what :func:`find_candidates` found; the arguments are those of :func:`import_sae`."""
    from neuronmap.hub.library import SAEModelHub

    shown = progress or progress_room.default()
    library = hub or SAEModelHub()
    chosen = [one for one in candidates if one.kind == "weights"] or candidates
    if len(chosen) > 1 and name is not None:
        raise ConfigError(
            f"{len(chosen)} SAEs cannot share the name '{name}'.", hint="Leave the name out, or choose one of them."
        )
    if name is not None:
        library.require_free(name, replace=replace)
    given = Given(_model_name(model), hook, dict(assume or {}), fetched.origin, fetched.revision)
    models = _Models(model, shown)
    done = []
    for candidate in chosen:
        read = read_candidate(candidate, given, shown)
        for note in read.notes:
            shown.note(note)
        proof, unproved, placed = _proved(read, models, (hook, hook_out), prove, text, tokens, shown)
        # A bundle of ours is copied as it is, with its curves and figures, unless another place was said.
        whole = candidate.details.get("bundle") and hook is None and hook_out is None
        if fetched.artefact is not None:
            placed = _from_artefact(placed, fetched.artefact)
        with library.staging() if whole and fetched.artefact is not None else nullcontext(None) as staging:
            what: Any = candidate.path if whole else (placed.sae, placed.metadata)
            if staging is not None:
                what = _with_origin(candidate.path, staging / "bundle", placed.metadata.origin)
            entry = library.register(what, name=name, tags=tags, replace=replace)
        if proof is not None:
            _keep_proof(entry, proof)
        done.append(ImportedSAE(library.get(entry.id), candidate, proof, unproved, read.notes))
    return done


def find_candidates(
    source: str | Path | Fetched,
    format: str | None = None,
    *,
    select: str | None = None,
    layer: int | None = None,
    progress: Progress | None = None,
) -> tuple[Fetched, list[Candidate]]:
    """Fetch a source and list what fits; nothing is loaded but headers (a lone pickle is opened, to see what it is)."""
    fetched = fetch(source, progress)
    found = detect(fetched.path, format, progress)
    if fetched.title:
        found = [replace(one, name=fetched.title) if one.path == fetched.path else one for one in found]
    if select is not None or layer is not None:
        found = choose(found, select, layer)
    return fetched, found


def read_candidate(candidate: Candidate, given: Given, progress: Progress | None = None) -> Imported:
    """Read one candidate, with unknown answers refused and the pickle warning shown.

    Raises:
        ConfigError: an answer that the format does not ask for.
        InputError, DamagedError: see :meth:`Format.read`.
    """
    from neuronmap.hub.formats.stored import PICKLED, read_stored

    owner = get_format(candidate.format)
    unknown = [key for key in given.assume if key not in owner.answers]
    if unknown:
        asked = ", ".join(f"{key} ({meaning})" for key, meaning in owner.answers.items()) or "nothing"
        raise ConfigError(f"{candidate.format} asks nothing called {', '.join(unknown)}; it asks for {asked}.")
    if candidate.stored is None and candidate.path.suffix.lower() in PICKLED:
        candidate = replace(candidate, stored=read_stored(candidate.path, progress))
    return owner.read(candidate, given)


def import_features(
    source: str | Path | Fetched,
    into: str,
    format: str | None = None,
    *,
    select: str | None = None,
    layer: int | None = None,
    name: str | None = None,
    overwrite: bool = False,
    hub: SAEModelHub | None = None,
    progress: Progress | None = None,
) -> tuple[LibraryEntry, str, dict[str, Any]]:
    """Attach data about features (dashboards, cached latents) to an SAE of the library.

    Args:
        source, format, select, layer: as for :func:`import_sae`.
        into: name of the SAE.
        name: of the attachment; ``<format>-<what it is called>`` when left out.
        overwrite: replace one of that name.
        hub, progress: as for :func:`import_sae`.

    Returns:
        The SAE, the attachment's name, and its manifest.

    Raises:
        InputError: nothing was recognised, several fit, or it holds weights.
        MismatchError: it is about features that the SAE does not have.
    """
    from neuronmap.hub.library import SAEModelHub
    from neuronmap.hub.names import slug

    library = hub or SAEModelHub()
    entry = library.get(into)
    fetched, found = find_candidates(source, format, select=select, layer=layer, progress=progress)
    found = [one for one in found if one.kind == "features"]
    if not found:
        raise InputError(f"{fetched.origin} holds no data about features.", hint="Leave --into out to import an SAE.")
    if len(found) > 1:
        raise several(found)
    candidate = found[0]
    owner = get_format(candidate.format)
    if not isinstance(owner, FeatureFormat):
        raise InputError(f"{candidate.format} gives no data about features.")
    data = owner.read_features(candidate, Given(origin=fetched.origin, revision=fetched.revision))
    attached = name or f"{slug(candidate.format)}-{slug(candidate.name)}"
    with library.staging() as staging:
        manifest = write_external(
            data, staging / "external", format=candidate.format, source=fetched.origin, d_sae=entry.d_sae
        )
        library.attach(entry.id, attached, staging / "external", overwrite=overwrite, move=True)
    return library.get(entry.id), attached, manifest


class _Models:
    """The language models of one import, each loaded once."""

    def __init__(self, given: str | LanguageModel | None, progress: Progress) -> None:
        self._given, self._progress = given, progress
        self._loaded: dict[str, LanguageModel | str] = {}

    def find(self, name: str | None) -> LanguageModel | str:
        """A loaded model, or why there is none. A model that nobody asked for is not downloaded."""
        if self._given is not None and not isinstance(self._given, str):
            return self._given
        wanted = self._given or name
        if wanted is None:
            return "the files do not say which language model it belongs to"
        if wanted not in self._loaded:
            self._loaded[wanted] = self._load(wanted)
        return self._loaded[wanted]

    def _load(self, wanted: str) -> LanguageModel | str:
        from neuronmap.models import load_model

        if self._given is None and not _is_here(wanted):
            return f"the language model {wanted} is not on this machine (name it with --model to have it downloaded)"
        try:
            return load_model(wanted, progress=self._progress)
        except ModelError as error:
            if self._given is not None:
                raise
            return f"the language model {wanted} cannot be loaded ({error.message})"


def _is_here(name: str) -> bool:
    """Whether a model's weights are on this machine: sample, path, or the hub's cache."""
    from huggingface_hub import errors, snapshot_download

    from neuronmap.models.samples import get_sample

    sample = get_sample(name)
    if sample is not None:
        return sample.path() is not None
    if Path(name).expanduser().exists():
        return True
    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=["config.json"]))
    except (OSError, ValueError, errors.HFValidationError):
        return False
    return any(folder.glob("*.safetensors"))


def _from_artefact(read: Imported, artefact: Mapping[str, Any]) -> Imported:
    """With the artefact as its origin; where it was before stays in it."""
    before = read.metadata.origin
    origin = {**artefact, **({"before": before} if before else {})}
    return read._replace(metadata=read.metadata.updated(origin=origin))


def _with_origin(bundle: Path, target: Path, origin: Mapping[str, Any] | None) -> Path:
    """A copy of a bundle of ours with another origin in its configuration; the weights are not touched."""
    from neuronmap.hub.contents import copy_visible, write_metadata
    from neuronmap.saes.metadata import read_bundle_info

    copy_visible(bundle, target)
    metadata = read_bundle_info(target).metadata
    if metadata is None:
        raise DamagedError(f"{bundle} lost its NeuronMap metadata while it was copied.")
    write_metadata(target, metadata.updated(origin=None if origin is None else dict(origin)))
    return target


def _said(read: Imported, hook: str | None, hook_out: str | None) -> Imported:
    """With the hooks that were said, for want of a model on which they could be looked up."""
    changes: dict[str, Any] = {}
    if hook is not None and read.sae.reads != "hooks":
        changes["hook"] = said_record(hook, {"width": read.sae.d_in, **(read.metadata.hook or {})})
    if hook_out is not None and not read.sae.reconstructs_input:
        before = read.metadata.hook_out or changes.get("hook") or read.metadata.hook
        changes["hook_out"] = said_record(hook_out, before)
    return read._replace(metadata=read.metadata.updated(**changes)) if changes else read


def _proved(
    read: Imported,
    models: _Models,
    hooks: tuple[str | None, str | None],
    wanted: bool,
    text: Any,
    tokens: int,
    progress: Progress,
) -> tuple[Proof | None, str, Imported]:
    """The proof or why there is none, and the SAE with its hooks as the model has them."""
    name = (read.metadata.model or {}).get("name")
    if not wanted:
        return None, "it was not asked for", _said(read, *hooks)
    model = models.find(name)
    if isinstance(model, str):
        progress.note(f"Not tried on real activations: {model}.")
        return None, model, _said(read, *hooks)
    try:
        places = hooks_of(read.sae, read.metadata, model, *hooks)
    except (InputError, HookPointError) as error:
        if hooks != (None, None):
            raise
        progress.note(f"Not tried on real activations: {error.message}")
        return None, error.message, read
    changes: dict[str, Any] = {"model": {**(read.metadata.model or {}), "name": name or model.identity.name}}
    if read.sae.reads == "hooks":
        changes["hooks"] = tuple(one.to_dict() for one in places.into)
    else:
        changes["hook"] = places.into[0].to_dict()
        if not read.sae.reconstructs_input:
            changes["hook_out"] = places.out[0].to_dict()
    placed = read._replace(metadata=read.metadata.updated(**changes))
    try:
        proof = prove(
            read.sae,
            placed.metadata,
            model,
            _PROOF_TEXT if text is None else text,
            tokens,
            claims=read.claims,
            progress=progress,
        )
    except CorpusNotFoundError as error:
        if text is not None:
            raise
        progress.note(f"Not tried on real activations: {error.message}")
        return None, error.message, placed
    progress.note(f"Proof: {proof.verdict}")
    for warning in proof.warnings:
        progress.note(f"Warning: {warning}")
    return proof, "", placed


def _keep_proof(entry: LibraryEntry, proof: Proof) -> None:
    """Figures of the proof with the SAE, unless a whole evaluation is there."""
    from neuronmap.saes import attach_file
    from neuronmap.saes.metadata import METRICS_FILE

    if (entry.path / METRICS_FILE).exists():
        return
    summary = {"explained_variance": proof.explained_variance, "l0": proof.l0}
    attach_file(entry.path, METRICS_FILE, {"summary": summary, "proof": proof.to_dict()})


def _model_name(model: str | LanguageModel | None) -> str | None:
    if model is None or isinstance(model, str):
        return model
    return model.identity.name


def several(found: list[Candidate]) -> InputError:
    """The error for a choice that was not made."""
    names = ", ".join(one.name for one in found[:6]) + (", ..." if len(found) > 6 else "")
    return InputError(
        f"There are {len(found)} to choose from: {names}.",
        hint="Choose with --select NAME or --layer N; --list shows all of them.",
    )
