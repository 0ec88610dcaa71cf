"""Pulling: a name becomes a digest, the digest a manifest, the manifest files; every byte is hashed here before anybody sees it.

What a server says is believed of one thing only: which digest a name means. The target folder is filled beside its place and renamed:
it is whole, or it is not there. Paths come through :class:`~neuronmap.zoo.digests.SafePath` alone.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neuronmap import paths
from neuronmap.errors import AlreadyExistsError, DamagedError, NeuronMapError, NotInZooError, ZooError, ZooOfflineError
from neuronmap.progress import Progress, Task
from neuronmap.zoo.client.backend import Backend
from neuronmap.zoo.client.cache import Cache, Partial, copy_hashed
from neuronmap.zoo.client.http import Patience
from neuronmap.zoo.client.location import zoo_home
from neuronmap.zoo.digests import Digest, SafePath
from neuronmap.zoo.manifest import FileEntry, Manifest
from neuronmap.zoo.names import Reference
from neuronmap.zoo.views import VersionSummary, VersionView

__all__ = ["MARKER", "Pulled", "Puller", "Resolved", "folder_differences", "read_marker", "require_replaceable"]

MARKER = ".neuronmap-zoo.json"
"""Beside pulled files: reference, zoo, digest, and the files' digests. No artefact can hold a file of that name."""
_TRIES = 5


class Resolved(NamedTuple):
    """What a name means now.

    Attributes:
        reference: by digest; whatever happens, it means the same bytes.
        label: of the version.
        manifest: of the version.
        data: its bytes.
        state, reason, successor: of the version, as the zoo said last.
    """

    reference: Reference
    label: str
    manifest: Manifest
    data: bytes
    state: str
    reason: str
    successor: str | None

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return Digest.of(self.data)

    @property
    def name(self) -> str:
        """``namespace/name@label``."""
        return f"{self.reference.artefact}@{self.label}"

    def warnings(self) -> tuple[str, ...]:
        """What whoever uses it should know."""
        reason = f": {self.reason}" if self.reason else ""
        if self.state == "yanked":
            return (f"{self.name} was yanked{reason}. It is pulled because exactly this version was asked for.",)
        if self.state == "deprecated":
            instead = f" Use {self.successor} instead." if self.successor else ""
            return (f"{self.name} is deprecated{reason}.{instead}",)
        return ()


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Attributes:
        reference: ``namespace/name@label``.
        digest: of the manifest.
        zoo: where from.
        folder: where its files are now.
        manifest: of the version.
        state: published, deprecated, yanked or draft.
        warnings: what whoever uses it should know.
        fetched_bytes: that came from a server; the rest was here.
    """

    reference: str
    digest: Digest
    zoo: str
    folder: Path
    manifest: Manifest
    state: str
    warnings: tuple[str, ...]
    fetched_bytes: int = 0


@dataclass
class Puller:
    """Pulls from one zoo.

    Args:
        backend: the zoo.
        cache: for what comes from servers.
        offline: ask nobody.
        pause: waits before another try (attempt).
    """

    backend: Backend
    cache: Cache
    offline: bool
    pause: Callable[[int], None]
    fetched_bytes: int = 0

    def resolve(self, reference: Reference, *, pulled: bool = False) -> Resolved:
        """What a name means: the manifest, checked.

        Raises:
            NotInZooError: nothing that can be pulled.
            ZooOfflineError: the server cannot be reached; or, offline, it was never asked for this.
            DamagedError: the zoo has another manifest under this digest than the one that belongs to it.
        """
        said = self._recalled(reference) if self.offline and self.backend.is_remote else self._asked(reference)
        digest = Digest(said["digest"])
        pinned = Reference(reference.namespace, reference.name, digest=digest)
        data = self._manifest(pinned, digest, pulled)
        manifest = Manifest.parse(data)
        if manifest.artefact != reference.artefact or manifest.version != said["label"]:
            raise DamagedError(
                f"{self.backend.location} gives the manifest of {manifest.artefact}@{manifest.version} for {reference}."
            )
        return Resolved(pinned, manifest.version, manifest, data, said["state"], said["reason"], said["successor"])

    def fetch(self, resolved: Resolved, progress: Progress) -> None:
        """Bring what is missing of a version's files from the server into the cache."""
        missing = [
            entry
            for entry in {entry.digest: entry for entry in resolved.manifest.files}.values()
            if not self.cache.has(entry.digest, entry.size)
        ]
        if not missing:
            return
        if self.offline:
            raise ZooOfflineError(
                f"{len(missing)} files of {resolved.name} were not pulled before, and this is offline mode.",
                hint="Pull it once with the network.",
            )
        total = sum(entry.size for entry in missing)
        paths.check_disk_space(self.cache.root, total, resolved.name, 16 << 20)
        with progress.task(f"pulling {resolved.name}", total, "bytes") as task:
            for entry in missing:
                self._download(resolved.reference, entry, task)

    def pull(
        self,
        reference: Reference,
        target: Path,
        *,
        overwrite: bool,
        progress: Progress,
        resolved: Resolved | None = None,
    ) -> Pulled:
        """Put a version's files into a folder that does not exist yet, or is empty, whole or not at all.

        Args:
            target: the folder.
            overwrite: replace what was pulled into it before; anything else is never removed.

        Raises:
            AlreadyExistsError: there is something else.
        """
        target = target.resolve()
        resolved = resolved or self.resolve(reference, pulled=True)
        self.fetched_bytes = 0
        for warning in resolved.warnings():
            progress.note(warning)
        found = self._pulled(resolved, target)
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            if not folder_differences(target, resolved.manifest):
                return found
            if not overwrite:
                raise AlreadyExistsError(
                    f"{target} is there already, and is not {resolved.name}.",
                    hint="Choose another folder; --replace (overwrite) replaces one that was pulled before.",
                )
            if not _is_ours(target):
                require_replaceable(target)
        if self.backend.is_remote:
            self.fetch(resolved, progress)
        paths.check_disk_space(target.parent, resolved.manifest.size, resolved.name, 16 << 20)
        if target.is_dir() and not any(target.iterdir()):
            self._fill_empty(resolved, target, progress)
            return self._pulled(resolved, target)
        made = target.with_name(f".{target.name}.{uuid.uuid4().hex}") if target.exists() else target
        with paths.staging_folder(made) as staging:
            self._fill(resolved, staging, progress)
        if made != target:
            paths.replace_folder(made, target)
        return self._pulled(resolved, target)

    # --- steps -------------------------------------------------------------------------------------------------------------

    def _pulled(self, resolved: Resolved, target: Path) -> Pulled:
        return Pulled(
            reference=resolved.name,
            digest=resolved.digest,
            zoo=self.backend.location,
            folder=target,
            manifest=resolved.manifest,
            state=resolved.state,
            warnings=resolved.warnings(),
            fetched_bytes=self.fetched_bytes,
        )

    def _asked(self, reference: Reference) -> dict[str, Any]:
        try:
            view = self.backend.show(reference)
        except NotInZooError:
            if self.backend.is_remote:
                self.cache.forget(self.backend.location, reference)
            raise
        if view.state == "deleted":
            raise NotInZooError(
                f"{view.reference} was deleted{f': {view.reason}' if view.reason else ''}; its bytes are gone."
            )
        said = _said(view)
        if self.backend.is_remote:
            exact = Reference(view.namespace, view.name, label=view.label)
            pinned = Reference(view.namespace, view.name, digest=view.digest)
            for known in {reference, exact, pinned}:
                self.cache.remember(self.backend.location, known, said)
        return said

    def noticed(self, namespace: str, name: str, version: VersionSummary | VersionView) -> None:
        """A server said how a version is now: what is remembered of it for offline use follows. What was never pulled is not remembered."""
        if not self.backend.is_remote:
            return
        where, said = self.backend.location, _said(version)
        pinned = Reference(namespace, name, digest=version.digest)
        if self.cache.recall(where, pinned) not in (None, said):
            for known in (pinned, Reference(namespace, name, label=version.label)):
                self.cache.remember(where, known, said)

    def _recalled(self, reference: Reference) -> dict[str, Any]:
        said = self.cache.recall(self.backend.location, reference)
        if said is None:
            raise ZooOfflineError(
                f"What {reference} means is not known here, and this is offline mode.",
                hint="Ask for it once with the network; @sha256:... and labels that were pulled are known.",
            )
        pinned = Reference(reference.namespace, reference.name, digest=Digest(said["digest"]))
        said = self.cache.recall(self.backend.location, pinned) or said  # what was heard of the version last
        if said["state"] in ("yanked", "deleted") and not reference.exact:
            exact = f"{reference.artefact}@{said['label']}"
            reason = f" ({said['reason']})" if said["reason"] else ""
            raise ZooOfflineError(
                f"{reference} meant {exact} here, which is {said['state']} since{reason}; what it means now is not known offline.",
                hint=f"Ask once with the network, or pull exactly {exact}.",
            )
        return said

    def _manifest(self, pinned: Reference, digest: Digest, pulled: bool) -> bytes:
        if not self.backend.is_remote:
            return _checked(self.backend.manifest(pinned, pulled=pulled), digest, self.backend.location)
        data = self.cache.read(digest)
        if data is None:
            if self.offline:
                raise ZooOfflineError(f"The manifest of {pinned} was not pulled before, and this is offline mode.")
            data = _checked(self.backend.manifest(pinned, pulled=pulled), digest, self.backend.location)
            self.cache.put(data)
        return data

    def _download(self, pinned: Reference, entry: FileEntry, task: Task) -> None:
        """One file into the cache. A connection that breaks is taken up where it broke; wrong bytes are fetched once more."""
        wrong = broken = 0
        with self.cache.partial(entry.digest) as partial:
            task.advance(min(partial.size, entry.size))
            while True:
                before = partial.size
                if partial.size > entry.size:
                    partial.restart()
                try:
                    if partial.size < entry.size or not entry.size:
                        self._receive(pinned, entry, partial, task)
                except ZooError as error:
                    fresh = partial.size > before
                    broken = 0 if fresh else broken + 1
                    if broken >= _TRIES or not (isinstance(error, ZooOfflineError) or before):
                        raise
                    if not isinstance(error, ZooOfflineError):
                        partial.restart()  # the server cannot go on from there
                    self.pause(broken)
                    continue
                if partial.size < entry.size:  # it ended early without a word
                    broken += 1
                    if broken >= _TRIES:
                        raise DamagedError(
                            f"{self.backend.location} sends {partial.size:,} of the {entry.size:,} bytes of {entry.path}."
                        )
                    continue
                if partial.digest == entry.digest:
                    self.cache.keep(partial, entry.digest)
                    return
                found, wrong = partial.digest, wrong + 1
                partial.restart()
                if wrong == 2:
                    raise DamagedError(
                        f"{self.backend.location} sends {entry.path} with the digest {found}, not {entry.digest}, twice."
                    )

    def _receive(self, pinned: Reference, entry: FileEntry, partial: Partial, task: Task) -> None:
        with self.backend.open(pinned, entry, partial.size) as opened:
            if opened.start != partial.size:
                partial.restart()  # the server begins at 0 all the same
            for piece in opened.pieces:
                if partial.size + len(piece) > entry.size:
                    partial.restart()
                    raise DamagedError(
                        f"{self.backend.location} sends more than the {entry.size:,} bytes of {entry.path}."
                    )
                partial.write(piece)
                self.fetched_bytes += len(piece)
                task.advance(len(piece))

    def _fill_empty(self, resolved: Resolved, target: Path, progress: Progress) -> None:
        """Into an empty folder that stays: it may be where somebody stands, or a mounted disk. The marker comes last."""
        moved: list[Path] = []
        try:
            with paths.staging_folder(target / f".pulling-{uuid.uuid4().hex}") as staging:
                self._fill(resolved, staging, progress)
                for inner in sorted(staging.iterdir(), key=lambda path: path.name == MARKER):
                    moved.append(target / inner.name)
                    inner.rename(target / inner.name)
        except BaseException:
            for path in moved:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            raise
        finally:
            for left in target.glob(".pulling-*"):
                left.rmdir()

    def _fill(self, resolved: Resolved, staging: Path, progress: Progress) -> None:
        manifest = resolved.manifest
        for entry in manifest.files:
            target = entry.path.under(staging)
            paths.new_folder(target.parent)
            if self.backend.is_remote:
                self._from_cache(resolved, entry, target, progress)
            elif (found := self._from_store(resolved, entry, target)) != entry.digest:
                raise DamagedError(
                    f"{self.backend.location} holds {entry.path} of {resolved.name} with the digest {found}, not {entry.digest}.",
                    hint="neuronmap zoo verify",
                )
        marker = {
            "reference": resolved.name,
            "digest": str(resolved.digest),
            "zoo": self.backend.location,
            "files": [{"path": one.path, "digest": one.digest, "size": one.size} for one in manifest.files],
        }
        paths.write_json(staging / MARKER, marker)

    def _from_cache(self, resolved: Resolved, entry: FileEntry, target: Path, progress: Progress) -> None:
        """Copy, and hash what is copied: a cached file that was damaged is fetched again, once."""
        for last in (False, True):
            found = copy_hashed(self.cache.path(entry.digest), target)
            if found == entry.digest:
                return
            target.unlink()
            self.cache.drop(entry.digest)
            if last:
                break
            progress.note(f"The cached {entry.path} was damaged; it is fetched again.")
            self.fetch(resolved, progress)
        raise DamagedError(f"{entry.path} of {resolved.name} cannot be kept in the cache {self.cache.root} undamaged.")

    def _from_store(self, resolved: Resolved, entry: FileEntry, target: Path) -> Digest:
        state, size = hashlib.sha256(), 0
        with self.backend.open(resolved.reference, entry) as opened, open(target, "xb") as file:
            for piece in opened.pieces:
                size += len(piece)
                if size > entry.size:
                    break
                state.update(piece)
                file.write(piece)
        return Digest(f"sha256:{state.hexdigest()}")


def require_replaceable(folder: Path) -> None:
    """Refuse to remove a folder that holds anything but what was pulled into it.

    Args:
        folder: whole path of it, links followed.

    Raises:
        AlreadyExistsError: says what would be lost.
    """
    hint = "Choose another folder, or remove it yourself."
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise AlreadyExistsError(f"{folder} is the current folder, or around it, and is not replaced.", hint=hint)
    if folder == Path.home().resolve() or folder in Path.home().resolve().parents:
        raise AlreadyExistsError(f"{folder} is the home folder, or around it, and is never replaced.", hint=hint)
    if not folder.is_dir():
        raise AlreadyExistsError(f"{folder} is a file, and is never replaced by a folder.", hint=hint)
    try:
        known = {str(path) for path, _, _ in read_marker(folder)["files"]} | {MARKER}
    except NotInZooError:
        raise AlreadyExistsError(
            f"{folder} was not pulled from a zoo (it has no {MARKER}), and is never replaced.", hint=hint
        ) from None
    others = sorted(
        inside
        for path in folder.rglob("*")
        if not path.is_dir() and (inside := path.relative_to(folder).as_posix()) not in known
    )
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise AlreadyExistsError(f"{folder} also holds what was not pulled: {shown}; it is not replaced.", hint=hint)


def _is_ours(folder: Path) -> bool:
    """Whether it is one of those that we keep for ourselves, by digest or for lock files."""
    return any(folder.is_relative_to((zoo_home() / name).resolve()) for name in ("pulled", "locked"))


def folder_differences(folder: Path, manifest: Manifest) -> list[str]:
    """What a folder's visible files differ in from a version's: sentences, none where they are the same. Every byte is read."""
    found = []
    listed = {entry.path: entry for entry in manifest.files}
    for entry in listed.values():
        path = entry.path.under(folder)
        if not path.is_file():
            found.append(f"{entry.path} is missing")
        elif path.stat().st_size != entry.size:
            found.append(f"{entry.path} has {path.stat().st_size:,} bytes, not {entry.size:,}")
        elif (digest := _digest_of(path)) != entry.digest:
            found.append(f"{entry.path} has the digest {digest}, not {entry.digest}")
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if (
            path.is_file()
            and not any(part.startswith(".") for part in inside.parts)
            and inside.as_posix() not in listed
        ):
            found.append(f"{inside.as_posix()} is no file of it")
    return found


def read_marker(folder: Path) -> dict[str, Any]:
    """What a pulled folder says of itself: reference, digest, zoo, files.

    Raises:
        NotInZooError: it was not pulled from a zoo.
        DamagedError: the marker cannot be read.
    """
    try:
        found = paths.read_json(folder / MARKER)
        digests = [(SafePath(one["path"]), Digest(one["digest"]), int(one["size"])) for one in found["files"]]
        return {**found, "digest": Digest(found["digest"]), "files": digests}
    except FileNotFoundError:
        raise NotInZooError(f"{folder} was not pulled from a zoo: it has no {MARKER}.") from None
    except (KeyError, TypeError, ValueError, NeuronMapError) as error:
        raise DamagedError(f"{folder / MARKER} cannot be read: {error}") from None


def _digest_of(path: Path) -> Digest:
    from neuronmap.hashing import digest_file

    return Digest(digest_file(path))


def _said(version: VersionSummary | VersionView) -> dict[str, Any]:
    """What is remembered of a version."""
    return {
        "digest": str(version.digest),
        "label": version.label,
        "state": version.state,
        "reason": version.reason,
        "successor": version.successor,
    }


def _checked(data: bytes, digest: Digest, location: str) -> bytes:
    if Digest.of(data) != digest:
        raise DamagedError(f"{location} gives a manifest with the digest {Digest.of(data)} for {digest}.")
    return data


def default_pause(patience: Patience) -> Callable[[int], None]:
    """Waits twice as long with each try."""
    import random
    import time

    return lambda attempt: time.sleep(min(30.0, patience.pause_s * 2**attempt * random.uniform(0.8, 1.2)))
