"""``Zoo``: everything that can be done with a zoo, in a folder of this machine or behind a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

from neuronmap import progress as progress_room
from neuronmap.errors import DamagedError, InputError, MismatchError, NotInZooError
from neuronmap.progress import Progress, SilentProgress
from neuronmap.zoo.client.backend import Backend
from neuronmap.zoo.client.cache import Cache
from neuronmap.zoo.client.checking import require_deletable, require_sound
from neuronmap.zoo.client.http import Patience
from neuronmap.zoo.client.huggingface import fetch_from_hub, pack_from_hub, write_repository
from neuronmap.zoo.client.local import LocalBackend
from neuronmap.zoo.client.location import (
    chosen_location,
    is_offline,
    read_upstream,
    require_zoo,
    stored_token,
    zoo_home,
)
from neuronmap.zoo.client.locking import LockedArtefact, Lockfile, locked_artefact, read_lock, write_lock
from neuronmap.zoo.client.mirroring import MOST_MIRRORED, Mirrored, mirror, require_no_mirror
from neuronmap.zoo.client.preparing import Prepared, find_sae, prepare, read_said, sae_label_faults, with_faults
from neuronmap.zoo.client.publishing import send
from neuronmap.zoo.client.pulling import Pulled, Puller, Resolved, default_pause, folder_differences, read_marker
from neuronmap.zoo.client.remote import RemoteBackend
from neuronmap.zoo.digests import SafePath
from neuronmap.zoo.names import LATEST, Reference
from neuronmap.zoo.packing import Package, pack
from neuronmap.zoo.registry.housekeeping import Verified
from neuronmap.zoo.search.compatible import CompatibilityPage
from neuronmap.zoo.search.query import CompatibilityQuery, Query
from neuronmap.zoo.views import AliasMove, ArtefactView, LineageView, SearchHit, SearchPage, VersionSummary, VersionView

__all__ = ["Zoo"]

Ref = str | Reference


class Zoo:
    """A zoo of artefacts.

    References are ``namespace/name``, ``namespace/name@1.0``, ``@alias``, ``@latest`` or ``@sha256:<digest>``.

    Args:
        location: a folder, or the address of a server; None for NEURONMAP_ZOO, else ``<home>/zoo``.
        token: of an account on the server; None for NEURONMAP_ZOO_TOKEN, else what ``neuronmap zoo login`` stored; empty for nobody.
        offline: ask no server: use what was pulled before. None for NEURONMAP_OFFLINE.
        progress: where notes and bars go; None for the usual place.
        patience: how long servers are waited for.
        must_exist: refuse a folder in which there is no zoo; else one is made there.

    Raises:
        InputError: the location cannot be one.
        NotInZooError: there is no zoo in the folder, and there must be.

    Example:
        >>> zoo = Zoo("team-zoo")
        >>> zoo.publish("library/demo", "ada/demo@1.0", licence="MIT", tags=["demo"])
        >>> zoo.pull("ada/demo", "pulled/demo").warnings
        ()
    """

    def __init__(
        self,
        location: str | Path | None = None,
        token: str | None = None,
        *,
        offline: bool | None = None,
        progress: Progress | None = None,
        patience: Patience | None = None,
        must_exist: bool = False,
    ) -> None:
        where = chosen_location(location)
        self.offline = is_offline(offline)
        self._progress = progress
        self._patience = patience or Patience()
        self.backend: Backend
        if isinstance(where, Path):
            if must_exist and read_upstream(where) is None:
                require_zoo(where)
            self.backend = LocalBackend(where)
        else:
            known = stored_token(where) if token is None else token
            self.backend = RemoteBackend(where, known, self._patience, offline=self.offline)
        self._puller = self._pulling(self.backend)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Zoo({self.location!r})"

    @property
    def location(self) -> str:
        """Where it is: an address or a folder."""
        return self.backend.location

    def close(self) -> None:
        """Let go of connections."""
        self.backend.close()

    # --- looking -----------------------------------------------------------------------------------------------------------

    def search(self, query: Query | None = None, **conditions: Any) -> Iterator[SearchHit]:
        """Everything that is found, page by page as it is read.

        Args:
            query: a search; or give its fields by name: ``q``, ``kind``, ``tag``, ``model``, ``layer``, ``metric``, ``sort``, ...

        Raises:
            InputError: a condition cannot be used.
        """
        asked = query or Query.read(conditions)
        while True:
            page = self.search_page(asked)
            yield from page.hits
            if page.next is None or page.next == asked.cursor or not page.hits:
                return
            asked = asked.model_copy(update={"cursor": page.next})

    def search_page(self, query: Query | None = None, **conditions: Any) -> SearchPage:
        """One page of a search; arguments as for :meth:`search`."""
        return self.backend.search(query or Query.read(conditions))

    def compatible(self, query: CompatibilityQuery | None = None, **conditions: Any) -> CompatibilityPage:
        """Which SAEs fit a model and a place, the best first, with the reasons.

        Args:
            query: the place; or give ``model``, ``layer``, ``component``, ``d_in``, ``tokenizer_digest``, ``model_digest`` by name.
        """
        return self.backend.compatible(query or CompatibilityQuery.read(conditions))

    def show(self, reference: Ref) -> VersionView:
        """A version, whole.

        Raises:
            NotInZooError: no such version, or not for you.
        """
        return self._noticed(self.backend.show(_reference(reference)))

    def artefact(self, reference: Ref) -> ArtefactView:
        """An artefact with all its versions."""
        named = _reference(reference)
        found = self.backend.artefact(named.namespace, named.name)
        for version in found.versions:
            self._puller.noticed(named.namespace, named.name, version)
        return found

    def versions(self, reference: Ref) -> tuple[VersionSummary, ...]:
        """Versions of an artefact, the greatest label first."""
        return self.artefact(reference).versions

    def lineage(self, reference: Ref, *, depth: int = 3, up: bool = True, down: bool = True) -> LineageView:
        """What a version was made from, and what was made from it or is about it."""
        return self.backend.lineage(_reference(reference), depth=depth, up=up, down=down)

    def alias_log(self, reference: Ref) -> list[AliasMove]:
        """Every move of every alias of an artefact, the newest first."""
        named = _reference(reference)
        return self.backend.alias_log(named.namespace, named.name)

    def open_file(self, reference: Ref, path: str) -> bytes:
        """The bytes of one file, checked.

        Raises:
            NotInZooError: no such version or file.
            DamagedError: they do not have the digest that the manifest says.
        """
        resolved = self._puller.resolve(_reference(reference))
        wanted = SafePath(path)
        entry = next((one for one in resolved.manifest.files if one.path == wanted), None)
        if entry is None:
            there = ", ".join(one.path for one in resolved.manifest.files[:10])
            raise NotInZooError(f"{resolved.name} has no file {path!r}; it has {there}.")
        if self.backend.is_remote:
            part = resolved.manifest.model_copy(update={"files": (entry,)})
            self._puller.fetch(resolved._replace(manifest=part), self._shown(None))
            found = self._puller.cache.read(entry.digest)
            if found is not None:
                return found
            raise DamagedError(
                f"The cached {path} of {resolved.name} was damaged.", hint="Ask again: it is fetched anew."
            )
        with self.backend.open(resolved.reference, entry) as opened:
            data = b"".join(opened.pieces)
        if entry.digest != type(entry.digest).of(data):
            raise DamagedError(
                f"{path} of {resolved.name} has other bytes than were published.", hint="neuronmap zoo verify"
            )
        return data

    # --- publishing --------------------------------------------------------------------------------------------------------

    def prepare(
        self,
        source: Package | str | Path,
        reference: Ref,
        *,
        licence: str,
        kind: str | None = None,
        record: Mapping[str, Any] | None = None,
        depends_on: Mapping[str, Ref] | Iterable[tuple[str, Ref]] = (),
        subject: Ref | None = None,
        authors: str | Iterable[str | Mapping[str, Any]] = (),
        tags: str | Iterable[str] = (),
        title: str = "",
        summary: str = "",
        citation: str = "",
        progress: Progress | None = None,
    ) -> Prepared:
        """Hash the files and write the manifest, without sending anything.

        Args:
            source: what was packed, or a folder: a bundle, an analysis, a report; any other with ``kind`` and ``record``.
            reference: ``namespace/name@version``.
            licence: SPDX expression.
            kind, record: of a folder that says not itself what it is.
            depends_on: role -> version that it was made from. What belongs to an SAE finds it by its weights.
            subject: the version that it is evidence about.
            authors: ``Name <orcid>`` or manifest fields; a single text is one author.
            tags: added to those that it has; a single text is one tag.
            title, summary, citation: over what the package says.
            progress: where bars go.

        Raises:
            InvalidManifestError: lists every fault.
            NotInZooError: the SAE that it belongs to, or another dependency, is not there.
        """
        said = read_said(reference, licence, tags, authors)
        with with_faults(said):
            package = source if isinstance(source, Package) else pack(source, kind, record)
        pairs = list(depends_on.items() if isinstance(depends_on, Mapping) else depends_on)
        parents = [self._dependency(role, wanted) for role, wanted in pairs]
        if package.sae_weights and package.kind != "SAE_MODEL" and not any(one["role"] == "sae" for one in parents):
            sae = find_sae(self.backend, package)
            parents.append({"digest": sae.digest, "role": "sae", "reference": f"{sae.artefact}@{sae.label}"})
        known = list(package.tags)
        values = {
            "tags": [*known, *(tag for tag in dict.fromkeys(said.tags) if tag not in known)],
            "title": title,
            "summary": summary,
            "citation": citation,
            "subject": self.show(subject).digest if subject is not None else None,
        }
        shown = self._shown(progress)
        for note in package.notes:
            shown.note(note)
        wrong = sae_label_faults(self.backend, package, parents)
        return prepare(package, said, licence=licence, values=values, depends_on=parents, progress=shown, faults=wrong)

    def publish(
        self,
        source: Prepared | Package | str | Path,
        reference: Ref | None = None,
        *,
        draft: bool = False,
        private: bool = False,
        progress: Progress | None = None,
        **values: Any,
    ) -> VersionView:
        """Publish. The same again is the same version; an interrupted call goes on where it was.

        Args:
            source: from :meth:`prepare`, or what that takes.
            reference: ``namespace/name@version``; not for what was prepared.
            draft: keep it from others, and let it be replaced, until :meth:`release`.
            private: for a new artefact: members of the namespace alone can see it.
            progress: where bars go.
            values: further arguments of :meth:`prepare` (``licence``, ``authors``, ``tags``, ...).

        Raises:
            InvalidManifestError: lists every fault.
            AlreadyExistsError: the label was published with another content.
            UnauthorizedError, ForbiddenError, QuotaError: not you, or not so much.
        """
        if not isinstance(source, Prepared):
            if reference is None or "licence" not in values:
                raise InputError("A name (namespace/name@version) and a licence are needed.")
            source = self.prepare(source, reference, progress=progress, **values)
        if isinstance(self.backend, LocalBackend):
            require_no_mirror(self.backend, source.manifest.namespace)
        return send(self._puller, source, draft=draft, private=private, progress=self._shown(progress))

    def publish_from_hub(
        self,
        repository: str,
        reference: Ref,
        *,
        revision: str | None = None,
        inside: str = "",
        kind: str | None = None,
        record: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> VersionView:
        """Publish what lies in a repository of the Hugging Face hub. Its commit is pinned, and recorded in the origin.

        Args:
            repository: ``owner/repo``.
            reference: what it is published as.
            revision: branch, tag or commit.
            inside: folder within the repository.
            kind, record: for what is no SAE.
            values: as for :meth:`publish`.

        Raises:
            InputError: no such repository, or no SAE in it.
            ZooOfflineError: the hub cannot be reached, or must not be asked, and the commit is not in its cache here.
        """
        package = pack_from_hub(fetch_from_hub(repository, revision, inside=inside, offline=self.offline), kind, record)
        return self.publish(package, reference, **values)

    def release(self, reference: Ref) -> VersionView:
        """Publish a draft as it is."""
        return self.backend.release(_reference(reference))

    # --- pulling -----------------------------------------------------------------------------------------------------------

    def pull(
        self,
        reference: Ref,
        target: str | Path | None = None,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Pulled:
        """Put a version's files into a folder: all of them, checked, or none.

        Args:
            reference: what to pull.
            target: a folder that does not exist yet, or holds just this; None for one under ``<home>/zoo/pulled``.
            overwrite: replace what was pulled into the folder before; a folder that holds anything else is never replaced.
            progress: where warnings (deprecated, yanked) and bars go.

        Raises:
            NotInZooError: no such version, or not for you.
            ZooOfflineError: the server cannot be reached; or it was not pulled before, in offline mode.
            DamagedError: what comes is not what was published.
            AlreadyExistsError: the folder holds something else.
        """
        named, shown = _reference(reference), self._shown(progress)
        resolved = self._resolved(named, shown)
        if target is not None:
            return self._puller.pull(
                named, Path(target).expanduser(), overwrite=overwrite, progress=shown, resolved=resolved
            )
        folder = zoo_home() / "pulled" / resolved.digest.hex
        return self._puller.pull(named, folder, overwrite=True, progress=shown, resolved=resolved)

    def export_to_hub_folder(
        self, reference: Ref, target: str | Path, *, progress: Progress | None = None
    ) -> list[Path]:
        """Write a version as a repository for the Hugging Face hub: its files, and a card with front matter."""
        pulled = self.pull(reference, target, progress=progress)
        return write_repository(pulled.folder, pulled.manifest, pulled.digest)

    def lock(
        self, references: Iterable[Ref], file: str | Path | None = None, *, dependencies: bool = False
    ) -> Lockfile:
        """Pin what names mean now.

        Args:
            references: names.
            file: written, when given.
            dependencies: pin what they were made from, too.
        """
        locked: dict[str, LockedArtefact] = {}
        for named in map(_reference, references):
            resolved = self._resolved(named, SilentProgress())
            if dependencies:
                for one in resolved.manifest.depends_on:
                    for found in self.backend.by_digest(one.digest)[:1]:
                        parent = self._resolved(found, SilentProgress())
                        locked.setdefault(parent.digest, locked_artefact(self.location, str(found), parent))
            locked[resolved.digest] = locked_artefact(self.location, str(named), resolved)
        if file is not None:
            return write_lock(Path(file), locked.values())
        return Lockfile(artefact=tuple(locked.values()))

    def pull_locked(
        self,
        lock: Lockfile | str | Path,
        target: str | Path,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> list[Pulled]:
        """Reproduce what a lock file pins, from this zoo: a folder ``<target>/<namespace>/<name>`` each.

        Raises:
            MismatchError: the lock file and the manifest that it pins list other files.
            NotInZooError: this zoo does not have one of the digests.
        """
        found, shown = [], self._shown(progress)
        pinned = lock if isinstance(lock, Lockfile) else read_lock(Path(lock))
        folders = [one.pinned.artefact for one in pinned.artefact]
        for one in pinned.artefact:
            try:
                resolved = self._resolved(one.pinned, shown)
            except NotInZooError as error:
                raise NotInZooError(
                    error.message, hint=f"It was locked from {one.zoo}; choose a zoo that has it."
                ) from None
            one.require_same(resolved.manifest)
            folder = Path(target).expanduser() / one.pinned.namespace / one.pinned.name
            if folders.count(one.pinned.artefact) > 1:
                folder = folder / resolved.label
            found.append(self._puller.pull(one.pinned, folder, overwrite=overwrite, progress=shown, resolved=resolved))
        return found

    def mirror(
        self,
        upstream: Zoo | str,
        references: Iterable[Ref] = (),
        *,
        query: Query | None = None,
        progress: Progress | None = None,
    ) -> list[Mirrored]:
        """Copy versions of another zoo into this one, which is in a folder: same manifests, digests and names, dependencies first.

        Args:
            upstream: the other zoo.
            references: what to copy.
            query: everything that a search there finds.
            progress: where notes and bars go.
        """
        other = upstream if isinstance(upstream, Zoo) else self._other(upstream)
        try:
            wanted = [_reference(one) for one in references]
            if query is not None:
                wanted += [Reference.parse(hit.reference) for hit in islice(other.search(query), MOST_MIRRORED)]
            return mirror(other._puller, self._puller, wanted, progress=self._shown(progress))
        finally:
            if other is not upstream:
                other.close()

    # --- changing ----------------------------------------------------------------------------------------------------------

    def deprecate(self, reference: Ref, reason: str, successor: Ref | None = None) -> VersionView:
        """Say that there is something better; it is still found and pulled, with the reason shown."""
        instead = _reference(successor) if successor is not None else None
        return self._noticed(self.backend.deprecate(_reference(reference), reason, instead))

    def yank(self, reference: Ref, reason: str) -> VersionView:
        """Take a version out of searches, ``latest`` and aliases; its exact label or digest still finds it."""
        return self._noticed(self.backend.yank(_reference(reference), reason))

    def restore(self, reference: Ref) -> VersionView:
        """Undo a deprecation or a yank."""
        return self._noticed(self.backend.restore(_reference(reference)))

    def delete(self, reference: Ref, reason: str) -> VersionView:
        """Delete a version's bytes; a tombstone stays, and its label is never given again."""
        return self._noticed(self.backend.delete(_reference(reference), reason))

    def require_deletable(self, reference: Ref) -> VersionView:
        """Find out, before anybody is asked whether they are sure, that a version cannot be deleted, or not by you.

        Raises:
            NotInZooError: there is no such version.
            AlreadyExistsError: others were made from it, or are about it.
            UnauthorizedError, ForbiddenError: you may not.
        """
        view = self.show(reference)
        require_deletable(view, self.backend.whoami)
        return view

    def set_private(self, reference: Ref, private: bool) -> None:
        """Show an artefact to all, or to members of the namespace alone."""
        named = _reference(reference)
        self.backend.set_private(named.namespace, named.name, private)

    def set_alias(self, reference: Ref, alias: str, *, expected: str | None = None, reason: str = "") -> VersionView:
        """Point an alias to a version; with ``expected``, only if it points to that label now (empty: to none)."""
        return self.backend.set_alias(_reference(reference), alias, expected=expected, reason=reason)

    def remove_alias(self, reference: Ref, alias: str, *, expected: str | None = None, reason: str = "") -> None:
        """Take an alias away; the log keeps what it meant."""
        named = _reference(reference)
        self.backend.remove_alias(named.namespace, named.name, alias, expected=expected, reason=reason)

    def star(self, reference: Ref, wanted: bool = True) -> None:
        """Star an artefact, or take the star away; needs an account."""
        named = _reference(reference)
        self.backend.star(named.namespace, named.name, wanted)

    def comments(self, reference: Ref) -> list[dict[str, Any]]:
        """What people say about an artefact."""
        named = _reference(reference)
        return self.backend.comments(named.namespace, named.name)

    def comment(self, reference: Ref, text: str) -> dict[str, Any]:
        """Say something about an artefact, or one version of it; needs an account."""
        named = _reference(reference)
        version = None if named.alias == LATEST else str(named).partition("@")[2]
        return self.backend.comment(named.namespace, named.name, text, version)

    def whoami(self) -> dict[str, Any]:
        """Who asks, as the zoo knows them."""
        return self.backend.whoami()

    # --- keeping it sound --------------------------------------------------------------------------------------------------

    def verify(self, reference: Ref, progress: Progress | None = None) -> Resolved:
        """Read every byte of a version from the zoo and check it against the manifest; nothing is kept.

        Raises:
            DamagedError: says which file has which digest.
        """
        resolved = self._puller.resolve(_reference(reference))
        with self._shown(progress).task(f"verifying {resolved.name}", resolved.manifest.size, "bytes") as task:
            require_sound(self.backend, resolved, task)
        return resolved

    def verify_folder(self, folder: str | Path) -> Resolved:
        """Compare a pulled folder with the version that it was pulled from, byte by byte.

        Raises:
            NotInZooError: it was not pulled from a zoo, or the version is not in this one.
            MismatchError: lists what differs.
        """
        path = Path(folder)
        said = read_marker(path)
        named = Reference.parse(str(said["reference"]))
        resolved = self._puller.resolve(Reference(named.namespace, named.name, digest=said["digest"]))
        differences = folder_differences(path, resolved.manifest)
        if differences:
            raise MismatchError(f"{path} is not {resolved.name} as published: {'; '.join(differences[:10])}.")
        return resolved

    def verify_store(self, *, limit: int | None = None, progress: Progress | None = None) -> Verified:
        """Read the stored bytes again and compare them with their digests, those first that were not read for the longest.

        Args:
            limit: files at most; None for all of a zoo in a folder, and for 100 of a server's.
            progress: where bars go.

        Raises:
            UnauthorizedError, ForbiddenError: a server lets its administrators do that.
        """
        with self._shown(progress).task(f"verifying {self.location}", None, "bytes") as task:
            return self.backend.verify_store(limit, task)

    def gc(self, *, dry_run: bool = True, grace: float | None = None) -> dict[str, Any]:
        """Remove what no version needs; only says what would go unless ``dry_run`` is off."""
        return self.backend.collect(dry_run=dry_run, grace=grace)

    # --- steps -------------------------------------------------------------------------------------------------------------

    def _noticed(self, view: VersionView) -> VersionView:
        self._puller.noticed(view.namespace, view.name, view)
        return view

    def _shown(self, progress: Progress | None) -> Progress:
        return progress or self._progress or progress_room.default()

    def _pulling(self, backend: Backend) -> Puller:
        return Puller(backend, Cache(), self.offline, default_pause(self._patience))

    def _resolved(self, reference: Reference, progress: Progress) -> Resolved:
        """What a reference means; a zoo in a folder asks its upstream for what it lacks, and keeps it."""
        try:
            return self._puller.resolve(reference, pulled=True)
        except NotInZooError:
            upstream = read_upstream(self.backend.root) if isinstance(self.backend, LocalBackend) else None
            if upstream is None or self.offline:
                raise
        progress.note(f"{reference} is not here; {upstream} is asked for it.")
        copied = self.mirror(upstream, [reference], progress=progress)[-1]
        pinned = Reference(reference.namespace, reference.name, digest=copied.digest)
        return self._puller.resolve(pinned, pulled=True)

    def _other(self, location: str) -> Zoo:
        """A zoo that the user did not name as the zoo of this work: it gets its own token or none."""
        where = chosen_location(location)
        token = stored_token(where, named=False) or "" if isinstance(where, str) else None
        return Zoo(where, token, patience=self._patience, offline=self.offline, must_exist=True)

    def _dependency(self, role: str, wanted: Ref) -> dict[str, Any]:
        view = self.show(wanted)
        return {"digest": view.digest, "role": role, "reference": view.reference}


def _reference(reference: Ref) -> Reference:
    return reference if isinstance(reference, Reference) else Reference.parse(reference)
