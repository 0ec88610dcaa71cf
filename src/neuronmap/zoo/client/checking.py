"""Whether a version may be deleted, before anybody is asked whether they are sure; and whether its bytes are those that were published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from neuronmap.errors import AlreadyExistsError, DamagedError, ForbiddenError, NotInZooError
from neuronmap.progress import Task
from neuronmap.zoo.client.backend import Backend
from neuronmap.zoo.client.pulling import Resolved
from neuronmap.zoo.views import VersionView

__all__ = ["require_deletable", "require_sound"]


def require_deletable(view: VersionView, whoami: Callable[[], dict[str, Any]]) -> None:
    """Refuse what cannot be deleted, or not by who asks. The zoo itself decides; this only says it early.

    Args:
        view: the version.
        whoami: asks the zoo who asks.

    Raises:
        NotInZooError: it was deleted already.
        AlreadyExistsError: others were made from it, or are about it.
        UnauthorizedError, ForbiddenError: they may not.
    """
    if view.state == "deleted":
        raise NotInZooError(f"{view.reference} was deleted already: {view.reason}.")
    if view.used_by:
        raise AlreadyExistsError(
            f"{view.reference} is needed by {view.used_by} {'version' if view.used_by == 1 else 'versions'}.",
            hint="Yank it in place of deleting it; or delete those first.",
        )
    me = whoami()
    if me.get("is_local"):
        return
    scope = "write" if view.state == "draft" else "admin"
    scopes = [str(one) for one in me.get("scopes") or []]
    if scope not in scopes:
        raise ForbiddenError(
            f"The token of {me.get('name')} has the scopes {', '.join(scopes)}; deleting needs {scope!r}.",
            hint="Make a token with that scope.",
        )
    only = me.get("only_namespace")
    if only not in (None, view.namespace):
        raise ForbiddenError(
            f"The token of {me.get('name')} is for {only} alone.",
            hint="Use a token for all of your namespaces, or for this one.",
        )
    roles = {one.get("namespace"): one.get("role") for one in me.get("namespaces") or []}
    governs = me.get("is_admin") and "admin" in scopes and only is None
    if not governs and roles.get(view.namespace) not in (("owner",) if scope == "admin" else ("owner", "writer")):
        raise ForbiddenError(
            f"{me.get('name')} may not delete what belongs to {view.namespace}.",
            hint=f"Ask an owner of {view.namespace}{' or a writer' if scope == 'write' else ''}.",
        )


def require_sound(backend: Backend, resolved: Resolved, task: Task) -> None:
    """Read every byte of a version and compare it with its manifest.

    Raises:
        DamagedError: says which file has which digest.
    """
    wrong = []
    for entry in resolved.manifest.files:
        state, size = hashlib.sha256(), 0
        with backend.open(resolved.reference, entry) as opened:
            for piece in opened.pieces:
                state.update(piece)
                size += len(piece)
                task.advance(len(piece))
                if size > entry.size:
                    break
        if state.hexdigest() != entry.digest.hex:
            wrong.append(f"{entry.path} has the digest sha256:{state.hexdigest()}, not {entry.digest}")
    if wrong:
        raise DamagedError(f"{resolved.name} in {backend.location} is not what was published: {'; '.join(wrong[:10])}.")
