"""``publish``: an SAE of the library, with analyses if wanted, into the zoo of this machine. The call of ``neuronmap zoo publish``.

Cancel and resume: what was sent stays for a week; the next attempt sends only the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neuronmap.config import FrozenConfig
from neuronmap.errors import InputError
from neuronmap.hub import SAEModelHub, list_analyses
from neuronmap.jobs.kinds.kind import Kind, Needs, usable
from neuronmap.jobs.kinds.memory import PROCESS_BYTES
from neuronmap.zoo.licences import check_licence
from neuronmap.zoo.names import Reference, check_name, check_tag
from neuronmap.zoo.packing import name_beside
from neuronmap.zoo.packing.package import author as read_author

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["Publish", "PublishArgs"]


class PublishArgs(FrozenConfig):
    """What to publish, and as what."""

    sae: str
    """Name in the library."""
    reference: str
    """namespace/name@version."""
    licence: str
    """SPDX expression."""
    analyses: tuple[str, ...] = ()
    """Analyses that go with it, as <name>-features; with their own name behind it where there are several."""
    title: str = ""
    """One line; made from the content when left out."""
    summary: str = ""
    """A paragraph."""
    authors: tuple[str, ...] = ()
    """Name <orcid>."""
    tags: tuple[str, ...] = ()
    """Tags, besides those that it has."""
    draft: bool = False
    """Keep it replaceable until it is released."""


class Publish(Kind[PublishArgs]):
    """Publishes one SAE and analyses of it."""

    name = "publish"
    args = PublishArgs

    def checked(self, args: PublishArgs, hub: SAEModelHub) -> PublishArgs:
        entry = usable(hub, args.sae)
        faults: list[str] = []

        def tried(rule: Callable[[str], Any], value: str) -> Any:
            try:
                return rule(value)
            except InputError as error:
                faults.append(error.message)
                return None

        named = tried(Reference.parse, args.reference)
        if named is not None and named.label is None:
            faults.append(f"{args.reference} has no version to publish: namespace/name@1.0 has.")
        licence = tried(check_licence, args.licence)
        for tag in args.tags:
            tried(check_tag, tag)
        for author in args.authors:
            tried(read_author, author)
        known = {one.name for one in list_analyses(entry) if not one.problem}
        unknown = [name for name in args.analyses if name not in known]
        if unknown:
            there = ", ".join(sorted(known)) or "none"
            faults.append(f"{entry.id} has no analysis {', '.join(unknown)}; it has {there}.")
        if named is not None and not faults:
            for one in args.analyses:
                tried(check_name, name_beside(named.name, one, alone=len(args.analyses) == 1))
        if faults:
            raise InputError(" ".join(faults))
        return args.updated(sae=entry.id, licence=licence, reference=str(named))

    def title(self, args: PublishArgs) -> str:
        return f"publishing {args.sae} as {args.reference}"

    def needs(self, args: PublishArgs, hub: SAEModelHub) -> Needs:
        del args, hub
        return Needs("cpu", PROCESS_BYTES)

    def run(self, args: PublishArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.zoo import Zoo
        from neuronmap.zoo.client.location import zoo_home

        entry = usable(context.hub, args.sae)
        shared: dict[str, Any] = {
            "licence": args.licence,
            "authors": args.authors,
            "tags": args.tags,
            "draft": args.draft,
            "progress": context.progress,
        }
        named = Reference.parse(args.reference)
        with Zoo(zoo_home(), progress=context.progress) as zoo:  # of this machine, whatever NEURONMAP_ZOO names
            context.fence()
            views = [zoo.publish(entry.path, args.reference, title=args.title, summary=args.summary, **shared)]
            folders = {one.name: one.path for one in list_analyses(entry)}
            for name in args.analyses:
                called = name_beside(named.name, name, alone=len(args.analyses) == 1)
                reference = f"{named.namespace}/{called}@{named.label}"
                views.append(zoo.publish(folders[name], reference, depends_on={"sae": views[0].reference}, **shared))
        return {"published": [{"reference": view.reference, "digest": str(view.digest)} for view in views]}
