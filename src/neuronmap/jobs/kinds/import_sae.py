"""``import``: an SAE of any known format, read, tried on its language model, and put into the library. The call of
``neuronmap sae import``.

Cancel and resume: nothing is in the library until it was read whole; the next attempt begins anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuronmap import paths
from neuronmap.config import FrozenConfig
from neuronmap.errors import InputError
from neuronmap.hub import SAEModelHub
from neuronmap.jobs.kinds.analyze import absolute
from neuronmap.jobs.kinds.kind import Kind, Needs
from neuronmap.jobs.kinds.memory import PROCESS_BYTES, model_bytes

if TYPE_CHECKING:
    from neuronmap.jobs.context import JobContext

__all__ = ["ImportArgs", "ImportSAE", "incoming_folder"]


def incoming_folder() -> Path:
    """Where files lie that came through the browser until they are imported."""
    return paths.home() / "incoming"


class ImportArgs(FrozenConfig):
    """What to import. ``source`` may be a path, and ``model`` one, too."""

    source: str
    """Folder, file, hub id or zoo reference."""
    format: str | None = None
    """Name of the format; recognised when left out."""
    select: str | None = None
    """Name of one of several SAEs in it, or a pattern."""
    name: str | None = None
    """Name in the library; derived when left out."""
    title: str = Field(default="", max_length=200)
    """What the source is called in the job's title; the source's own name when left out."""
    model: str | None = None
    """Language model, over what the files say."""
    hook: str | None = None
    """Hook point, over what the files say."""
    prove: bool = True
    """Reconstruct real activations, if the model is on this machine."""
    tokens: int = Field(default=4096, ge=1)
    """Tokens for that."""
    tags: tuple[str, ...] = ()
    """Tags to add."""
    replace: bool = False
    """Take the place of another SAE of that name."""
    remove_source: bool = False
    """Remove the source's folder afterwards; for what came through the browser alone."""


class ImportSAE(Kind[ImportArgs]):
    """Imports SAEs."""

    name = "import"
    args = ImportArgs

    def checked(self, args: ImportArgs, hub: SAEModelHub) -> ImportArgs:
        if args.name is not None:
            hub.require_free(args.name, replace=args.replace)
        if args.remove_source and not Path(args.source).is_relative_to(incoming_folder()):
            raise InputError("Only what came through the browser is removed after an import.")
        return args.updated(source=absolute(args.source), model=absolute(args.model))

    def title(self, args: ImportArgs) -> str:
        return f"importing {args.name or args.title or Path(args.source).name}"

    def needs(self, args: ImportArgs, hub: SAEModelHub) -> Needs:
        del hub
        source = Path(args.source)
        files = (
            [source]
            if source.is_file()
            else [path for path in source.rglob("*") if path.is_file()]
            if source.is_dir()
            else []
        )
        size = max((path.stat().st_size for path in files), default=0)
        return Needs("cpu", PROCESS_BYTES + 4 * size + (model_bytes(args.model) if args.prove else 0))

    def run(self, args: ImportArgs, context: JobContext) -> dict[str, Any]:
        from neuronmap.hub.formats import import_saes
        from neuronmap.jobs.placing import import_source

        done = import_saes(
            import_source(args.source, context.progress),
            args.format,
            select=args.select,
            name=args.name,
            model=args.model,
            hook=args.hook,
            prove=args.prove,
            tokens=args.tokens,
            tags=args.tags,
            replace=args.replace,
            hub=context.hub,
            progress=context.progress,
        )
        if args.remove_source:
            shutil.rmtree(args.source, ignore_errors=True)
        return {
            "sae": done[0].entry.id,
            "saes": [one.entry.id for one in done],
            "warnings": [warning for one in done if one.proof is not None for warning in one.proof.warnings],
            "verdicts": [one.proof.verdict if one.proof is not None else f"Not tried: {one.unproved}." for one in done],
        }
