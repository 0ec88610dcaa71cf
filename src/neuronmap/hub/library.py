"""``SAEModelHub``: the SAEs of this machine.

    <root>/<id>/cfg.json, sae_weights.safetensors, ...      a bundle; ids have one or more parts
    <root>/<id>/analyses/<name>                             what was attached
    <root>/.lock                                            held for the instants in which a name is taken or freed
    <root>/.staging-*                                       writers at work, or what a killed one left

A bundle is written under ``.staging-*`` and renamed into place, so that readers see all of it or none of it.
"""

from __future__ import annotations

import difflib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from neuronmap import paths
from neuronmap import progress as progress_room
from neuronmap.errors import (
    AlreadyExistsError,
    ConfigError,
    DamagedError,
    InputError,
    MismatchError,
    NotInLibraryError,
    UnwritablePathError,
)
from neuronmap.hub.contents import clean_tags, convert_saelens, copy_visible, require_digest, write_metadata
from neuronmap.hub.entry import LibraryEntry, parse_metric_filter, read_entry, require_metric, sort_entries
from neuronmap.hub.folder import Fingerprint, LibraryFolder, fingerprint
from neuronmap.hub.names import check_id, derived_id
from neuronmap.progress import Progress
from neuronmap.saes.fit import Difference, differences, require_fit
from neuronmap.saes.metadata import (
    ANALYSES_FOLDER,
    BundleMetadata,
    is_bundle,
    read_bundle_info,
)

if TYPE_CHECKING:
    from neuronmap.models import HookPoint, LanguageModel, ModelIdentity
    from neuronmap.saes import SparseAutoencoder

__all__ = ["SAEModelHub"]

_LOADED_AT_MOST = 4

Entries = list[LibraryEntry]
Differences = list[Difference]


@runtime_checkable
class Savable(Protocol):
    """Something that writes itself as a bundle: a ``TrainingResult``."""

    def save(self, folder: Path) -> object:
        """Write the bundle into a folder that does not exist yet."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """An entry read before, and what its files looked like then."""

    files: Fingerprint
    entry: LibraryEntry


class SAEModelHub:
    """The library of SAEs on this machine. Any number of processes may use it at once.

    Args:
        root: its folder; None for ``$NEURONMAP_HOME/library`` or the platform's data folder. Made when first written.

    Example:
        >>> hub = SAEModelHub()
        >>> best = hub.search(model="smollm2-135m", where="explained_variance>=0.7", sort="-explained_variance")
        >>> sae = hub.load(best[0].id)
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root).expanduser() if root is not None else paths.library_folder()
        self._folder = LibraryFolder(self.root)
        self._listed: dict[str, _Listed] = {}
        self._loaded: OrderedDict[tuple[str, str], SparseAutoencoder] = OrderedDict()

    # --- looking -----------------------------------------------------------------------------------------------------

    def list(self) -> Entries:
        """All entries by id. Damaged bundles are in it, with ``problem`` set; half-written ones are not."""
        seen = dict(self._folder.bundles())
        entries = [self._entry(identifier, folder) for identifier, folder in sorted(seen.items())]
        self._listed = {identifier: listed for identifier, listed in self._listed.items() if identifier in seen}
        return [entry for entry in entries if entry is not None]

    def search(
        self,
        *,
        model: str | None = None,
        layer: int | None = None,
        component: str | None = None,
        architecture: str | None = None,
        tag: str | Iterable[str] = (),
        where: str | Iterable[str] = (),
        sort: str = "id",
        limit: int | None = None,
    ) -> Entries:
        """Entries that meet every condition; damaged ones meet none, and are listed only when there is none.

        Args:
            model: model name, or its last part, any case; ``*`` and ``?`` as in file names.
            layer: block, counted from 0.
            component: component, or exact hook (``model.layers.8.mlp:out``); wildcards as above.
            architecture: relu, gated, topk, batchtopk, jumprelu, matryoshka, lista, ...; wildcards as above.
            tag: a tag, or several that must all be there.
            where: conditions such as ``explained_variance>=0.7``, by dotted name or its last part.
            sort: a field or metric; ``-created`` puts the newest first.
            limit: how many at most.

        Raises:
            ConfigError: for a condition that cannot be read, a metric that no SAE has, or an unknown sort field.
        """
        tags = [tag] if isinstance(tag, str) else [*tag]
        conditions = [parse_metric_filter(text) for text in ([where] if isinstance(where, str) else where)]
        entries = self.list()
        for condition in conditions:
            require_metric(entries, condition.name)
        found = [
            entry
            for entry in entries
            if entry.matches(model, layer, component, architecture, tags)
            and all(condition(entry) for condition in conditions)
        ]
        return sort_entries(found, sort)[:limit]

    def get(self, name: str) -> LibraryEntry:
        """The entry with this id, or the only one whose id, last part or digest begins with ``name``.

        Raises:
            NotInLibraryError: for none (with near ids) or several (with their ids).
        """
        entries = self.list()
        for entry in entries:
            if entry.id == name:
                return entry
        found = [entry for entry in entries if name and _begins(entry, name)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(entry.id for entry in found[:8]) + (", ..." if len(found) > 8 else "")
            raise NotInLibraryError(f"'{name}' fits {len(found)} SAEs: {ids}.", hint="Give more of the id.")
        ids_ = [entry.id for entry in entries]
        by_last = {identifier.rsplit("/", 1)[-1]: identifier for identifier in ids_}
        near = difflib.get_close_matches(name, ids_, n=3, cutoff=0.5)
        near += [by_last[last] for last in difflib.get_close_matches(name, by_last, n=3) if by_last[last] not in near]
        where = f"The library {self.root} has no SAE '{name}'"
        if near:
            raise NotInLibraryError(f"{where}.", hint=f"Did you mean {' or '.join(near[:3])}?")
        raise NotInLibraryError(
            f"{where}; it holds {len(entries)}.",
            hint="neuronmap sae list-models shows them." if entries else "neuronmap demo trains a first one.",
        )

    def info(self, name: str) -> BundleMetadata:
        """The whole metadata block of an entry.

        Raises:
            NotInLibraryError, DamagedError.
        """
        return self._metadata(self._sound(name))

    # --- adding ------------------------------------------------------------------------------------------------------

    def register(
        self,
        source: str | Path | tuple[SparseAutoencoder, BundleMetadata] | Savable,
        *,
        name: str | None = None,
        tags: Iterable[str] = (),
        replace: bool = False,
    ) -> LibraryEntry:
        """Put an SAE into the library. It is copied; a plain SAELens folder is rewritten as a NeuronMap bundle.

        Args:
            source: a bundle's folder, ``(sae, metadata)``, or a training result.
            name: its id; None derives ``<model>/<place>/<architecture>-<features>-<digest>``.
            tags: added to those it has.
            replace: take the place of the SAE with that id, analyses and all. It stays until the new one is whole.

        Returns:
            The entry; without ``replace``, the one that is there already if the same weights have that id.

        Raises:
            AlreadyExistsError: if the id belongs to other weights, or lies inside another bundle.
            InputError, DamagedError: if the source is not a sound bundle.
            ConfigError: if the id cannot be one.
        """
        if name is not None:
            check_id(name)
        with self.staging() as staging:
            bundle = staging / "bundle"
            self._fill(source, bundle)
            info = read_bundle_info(bundle)
            metadata = cast(BundleMetadata, info.metadata)
            extra = tuple(tag for tag in dict.fromkeys(tags) if tag not in metadata.tags)
            if extra:
                write_metadata(bundle, metadata.updated(tags=metadata.tags + clean_tags(extra)))
            identifier = check_id(name if name is not None else derived_id(info))
            return self._place(bundle, identifier, metadata.weights_digest, replace)

    def require_free(self, name: str, *, replace: bool = False) -> None:
        """Find out, before hours of training, whether an SAE could be registered under this name.

        Args:
            name: the id it would get.
            replace: whether it may take the place of another SAE.

        Raises:
            ConfigError: if the name cannot be an id.
            AlreadyExistsError: if it is taken, lies inside another SAE, or is a folder of other SAEs.
        """
        target = self._target(check_id(name))
        if target.exists() and not replace:
            raise AlreadyExistsError(
                f"The library already has an SAE called '{name}'.",
                hint="Choose another name, or replace it (replace=True, --replace).",
            )

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder on the library's own disk to make something in; what is left in it at the end goes."""
        paths.require_writable(self.root)
        self._folder.remove_leftovers()
        with self._folder.staging() as folder:
            yield folder

    def attach(
        self,
        name: str,
        analysis: str,
        source: str | Path,
        *,
        overwrite: bool = False,
        move: bool = False,
        weights_digest: str | None = None,
    ) -> Path:
        """Copy a file or folder to ``<bundle>/analyses/<analysis>``, whole or not at all.

        Args:
            name: id of the SAE.
            analysis: name of the analysis (a file name; no folders in it).
            source: a file or a folder.
            overwrite: replace an analysis of that name.
            move: rename the source into place instead of copying it; it must be on the library's disk (:meth:`staging`).
            weights_digest: of the weights that were analysed; None leaves that unchecked.

        Raises:
            NotInLibraryError, AlreadyExistsError, ConfigError (name), InputError (source).
            MismatchError: another SAE has taken the name since.
        """
        entry, source = self._sound(name), Path(source)
        if "/" in analysis:
            raise ConfigError(f"{analysis!r} cannot name an analysis: it must be one part.")
        check_id(analysis)
        if not source.exists():
            raise InputError(f"{source} does not exist.")
        target = entry.path / ANALYSES_FOLDER / analysis
        with self._folder.staging() as staging:
            copied = source if move else staging / "analysis"
            if not move:
                copy_visible(source, copied)
            with self._folder.lock():
                now = self._sound(entry.id).weights_digest
                if weights_digest is not None and now != weights_digest:
                    raise MismatchError(
                        f"'{entry.id}' has other weights now ({now}) than those that were analysed ({weights_digest}).",
                        hint="Analyse it again.",
                    )
                if target.exists():
                    if not overwrite:
                        raise AlreadyExistsError(f"'{entry.id}' has an analysis '{analysis}' already: {target}.")
                    os.rename(target, staging / "replaced")
                paths.new_folder(target.parent)
                os.rename(copied, target)
        return target

    def analyses(self, name: str) -> dict[str, Path]:
        """What is attached to an SAE, by name."""
        folder = self.get(name).path / ANALYSES_FOLDER
        if not folder.is_dir():
            return {}
        return {path.name: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}

    def add_tags(self, name: str, *tags: str) -> LibraryEntry:
        """Add tags (words without commas or line breaks); weights and digest stay as they are."""
        return self._edit_tags(name, lambda old: old + tuple(tag for tag in clean_tags(tags) if tag not in old))

    def remove_tags(self, name: str, *tags: str) -> LibraryEntry:
        """Take tags away; those that are not there are passed over."""
        return self._edit_tags(name, lambda old: tuple(tag for tag in old if tag not in tags))

    # --- using -------------------------------------------------------------------------------------------------------

    def load(
        self,
        name: str,
        model: LanguageModel | ModelIdentity | None = None,
        *,
        device: str = "cpu",
        force: bool = False,
        verify: bool = True,
        progress: Progress | None = None,
    ) -> SparseAutoencoder:
        """Read an SAE. The same weights are read once a process and device, and shared: copy them before changing them.

        Args:
            name: id, or a unique beginning of one.
            model: the model it will be used on; None leaves the fit unchecked.
            device: where the weights go.
            force: use it on a model that differs, as long as the widths agree; each difference is shown.
            verify: check the weights' digest when they are read.
            progress: where notes on differences go.

        Raises:
            NotInLibraryError: no such SAE.
            MismatchError: it does not fit the model; lists every difference.
            DamagedError: its files are damaged.
        """
        entry = self._sound(name)
        if model is not None:
            notes = require_fit(self.check_fit(entry, model), entry.id, force=force)
            shown = progress if progress is not None else progress_room.default()
            for note in notes:
                shown.note(note)
        key = (entry.weights_digest or entry.id, str(device))
        if key not in self._loaded:
            from neuronmap.saes.bundle import load_sae

            self._loaded[key] = load_sae(entry.path, device=device, verify=verify)
        self._loaded.move_to_end(key)
        while len(self._loaded) > _LOADED_AT_MOST:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def check_fit(
        self,
        entry: LibraryEntry | str,
        model: LanguageModel | ModelIdentity | dict[str, Any],
        hook: HookPoint | dict[str, Any] | None = None,
    ) -> Differences:
        """Every difference between an SAE's model and a given one, the worst first; empty if it fits.

        Args:
            entry: the SAE.
            model: a loaded model (its hook is then looked up too), an identity, or an identity's dictionary.
            hook: the hook it will be used at; None for the one it was trained at.
        """
        entry = self._sound(entry.id if isinstance(entry, LibraryEntry) else entry)
        metadata = self._metadata(entry)
        if isinstance(model, dict):
            identity = model
        else:
            identity = cast("ModelIdentity", getattr(model, "identity", model)).to_dict()
        if hook is None and not isinstance(model, dict) and hasattr(model, "module"):
            found = _look_up_hook(cast("LanguageModel", model), metadata)
        else:
            found = _hook_record(hook)
        return differences(metadata, entry.d_in, identity, found)

    def verify(self, name: str) -> str:
        """Read every byte of the weights and check digest, shapes and values.

        Returns:
            The digest.

        Raises:
            NotInLibraryError, DamagedError.
        """
        from neuronmap.saes.bundle import verify_bundle

        return verify_bundle(self._sound(name).path)

    def delete(self, identifier: str, *, missing_ok: bool = False) -> bool:
        """Remove an SAE and its analyses. Takes the whole id only; asking the user is the caller's part.

        Returns:
            Whether there was one.

        Raises:
            NotInLibraryError: if there is none and ``missing_ok`` is off.
        """
        check_id(identifier)
        folder = self.root.joinpath(*identifier.split("/"))
        if not is_bundle(folder):
            if missing_ok:
                return False
            near = difflib.get_close_matches(identifier, [found for found, _ in self._folder.bundles()], n=3)
            raise NotInLibraryError(
                f"The library {self.root} has no SAE '{identifier}'.",
                hint=f"Did you mean {' or '.join(near)}?" if near else "Deleting needs the whole id.",
            )
        with self._folder.staging() as staging, self._folder.lock():
            try:
                os.rename(folder, staging / "deleted")
            except FileNotFoundError:
                return False  # another process was first
            except OSError as error:
                raise UnwritablePathError(f"Cannot delete {folder}: {error.strerror or error}.") from error
            for parent in folder.parents:
                if parent == self.root or any(parent.iterdir()):
                    break
                parent.rmdir()
        return True

    # --- inside ------------------------------------------------------------------------------------------------------

    def _entry(self, identifier: str, folder: Path) -> LibraryEntry | None:
        """The entry of a bundle, read again only when its files look different; None if it is gone."""
        try:
            files, size_bytes = fingerprint(folder)
        except FileNotFoundError:
            return None
        known = self._listed.get(identifier)
        if known is None or known.files != files or known.entry.size_bytes != size_bytes:
            entry = read_entry(identifier, folder, size_bytes)
            if entry.problem and not folder.exists():
                return None
            known = self._listed[identifier] = _Listed(files, entry)
        return known.entry

    def _sound(self, name: str) -> LibraryEntry:
        entry = self.get(name)
        if entry.problem:
            raise DamagedError(f"SAE '{entry.id}' cannot be used: {entry.problem}", hint=f"It lies in {entry.path}.")
        return entry

    def _metadata(self, entry: LibraryEntry) -> BundleMetadata:
        metadata = read_bundle_info(entry.path).metadata
        if metadata is None:
            raise DamagedError(f"{entry.path} lost its NeuronMap metadata.")
        return metadata

    def _fill(self, source: str | Path | tuple[SparseAutoencoder, BundleMetadata] | Savable, bundle: Path) -> None:
        """Write the source as a NeuronMap bundle into a folder that does not exist yet."""
        if isinstance(source, str | Path):
            folder = Path(source).expanduser()
            info = read_bundle_info(folder)
            if info.metadata is None:
                convert_saelens(folder, bundle)
            else:
                copy_visible(folder, bundle)
                require_digest(bundle, info.metadata)
        elif isinstance(source, tuple):
            from neuronmap.saes.bundle import save_bundle

            sae, metadata = source
            save_bundle(sae, bundle, metadata)
        elif isinstance(source, Savable) and not hasattr(source, "encode"):  # an SAE alone has no metadata
            source.save(bundle)
            if read_bundle_info(bundle).metadata is None:
                raise InputError(f"{type(source).__name__}.save did not write a NeuronMap bundle.")
        else:
            raise InputError(f"Cannot register a {type(source).__name__}: give a folder, (sae, metadata), or a result.")

    def _target(self, identifier: str) -> Path:
        """The folder that belongs to an id; refuses ids that would nest bundles."""
        target = self.root.joinpath(*identifier.split("/"))
        around = [parent for parent in target.parents if parent.is_relative_to(self.root) and parent != self.root]
        outer = next((parent for parent in around if is_bundle(parent)), None)
        if outer is not None:
            raise AlreadyExistsError(f"'{identifier}' would lie inside the SAE '{outer.relative_to(self.root)}'.")
        if target.exists() and not is_bundle(target):
            raise AlreadyExistsError(f"'{identifier}' is a folder of other SAEs: {target}.")
        return target

    def _place(self, bundle: Path, identifier: str, digest: str | None, replace: bool) -> LibraryEntry:
        """Rename a whole bundle into its place; one that it replaces is left beside it, in the staging folder."""
        with self._folder.lock():
            target = self._target(identifier)
            existing = self._entry(identifier, target) if target.exists() else None
            if existing is not None and not replace:
                if existing.problem or existing.weights_digest != digest:
                    raise AlreadyExistsError(
                        f"The library has another SAE '{identifier}' already: {existing.problem or existing.weights_digest}.",
                        hint="Give another name, delete that one first, or replace it.",
                    )
                return existing
            paths.new_folder(target.parent)
            aside = bundle.with_name("replaced")
            try:
                if existing is not None:
                    os.rename(target, aside)
                os.rename(bundle, target)
            except BaseException as error:
                if aside.exists() and not target.exists():
                    os.rename(aside, target)
                if isinstance(error, OSError):
                    raise UnwritablePathError(f"Cannot write {target}: {error.strerror or error}.") from error
                raise
            self._listed.pop(identifier, None)
        entry = self._entry(identifier, target)
        if entry is None:
            raise NotInLibraryError(f"'{identifier}' was deleted by another program just after it was registered.")
        return entry

    def _edit_tags(self, name: str, edit: Callable[[tuple[str, ...]], tuple[str, ...]]) -> LibraryEntry:
        entry = self._sound(name)
        with self._folder.lock():
            metadata = self._metadata(entry)
            tags = edit(metadata.tags)
            if tags != metadata.tags:
                write_metadata(entry.path, metadata.updated(tags=tags))
        self._listed.pop(entry.id, None)
        return self.get(entry.id)


def _begins(entry: LibraryEntry, name: str) -> bool:
    digest = (entry.weights_digest or "").removeprefix("sha256:")
    hexadecimal = name.removeprefix("sha256:")
    return (
        entry.id.startswith(name)
        or entry.id.rsplit("/", 1)[-1].startswith(name)
        or (len(hexadecimal) >= 6 and digest.startswith(hexadecimal))
    )


def _hook_record(hook: HookPoint | dict[str, Any] | None) -> dict[str, Any] | None:
    if hook is None or isinstance(hook, dict):
        return hook
    return {"module_path": hook.module_path, "side": hook.side, "width": hook.width}


def _look_up_hook(model: LanguageModel, metadata: BundleMetadata) -> dict[str, Any] | None:
    """Find the SAE's hook on a loaded model; an empty record where the model has no such module."""
    from neuronmap.errors import HookPointError
    from neuronmap.models import resolve_hook

    stored = metadata.hook or {}
    try:
        if stored.get("module_path"):
            return _hook_record(resolve_hook(model, component=f"{stored['module_path']}:{stored.get('side', 'out')}"))
        if stored.get("layer") is not None and stored.get("component"):  # an SAE from elsewhere
            return _hook_record(resolve_hook(model, layer=stored["layer"], component=stored["component"]))
    except HookPointError:
        return {}
    return None
