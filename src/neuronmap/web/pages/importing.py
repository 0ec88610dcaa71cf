"""Taking in an SAE of another library: its files dropped on the page, or a name on the hub or in the zoo."""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path
from typing import Annotated

from fastapi import Form, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from neuronmap import paths
from neuronmap.errors import InputError, NeuronMapError
from neuronmap.jobs.kinds.import_sae import incoming_folder
from neuronmap.web.addresses import lead_to
from neuronmap.web.asking import problem_of
from neuronmap.web.errors import Problem
from neuronmap.web.explorer import Explorer
from neuronmap.web.rendering import render
from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.sources import Source, model_sources, named_model
from neuronmap.zoo.digests import SafePath

__all__ = ["router"]

router = PageRouter()

Short = Annotated[str, Form(max_length=300)]
_MOST_FILES = 1000
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+(@[\w./-]+)?")
_HERE = ("hf://", "zoo:")
"""What a source may begin with: over the web no path is ever opened."""


class FormatLine(BaseModel):
    """A format that is read."""

    name: str
    title: str


class ImportPage(BaseModel):
    """The form."""

    formats: list[FormatLine] = Field(description="Formats that are read; which one it is, is recognised.")
    models: list[Source] = Field(description="Language models that can be named.")
    source: str = ""
    format: str = ""
    name: str = ""
    model: str = ""
    select: str = ""
    problem: Problem | None = None


def _page(explorer: Explorer) -> ImportPage:
    from neuronmap.hub.formats import list_formats

    return ImportPage(
        formats=[FormatLine(name=one.name, title=one.title) for one in list_formats()], models=model_sources(explorer)
    )


@router.page("/import", "import.html", nav="home")
def import_form(explorer: ExplorerOf) -> ImportPage:
    """Which files or which repository, and what is known of them."""
    return _page(explorer)


@router.post("/import", include_in_schema=False)
async def take_in(
    request: Request,
    explorer: ExplorerOf,
    files: Annotated[list[UploadFile], Form()] = [],  # noqa: B006 (FastAPI copies it)
    source: Short = "",
    format: Short = "",
    name: Short = "",
    model: Short = "",
    select: Short = "",
) -> Response:
    """Keep the files, queue the import, and go to its page."""
    given = {"source": source, "format": format, "name": name, "model": model, "select": select}
    folder: Path | None = None
    try:
        named = [file for file in files if file.filename]
        if bool(named) == bool(source.strip()):
            raise InputError("Give files or a source, one of the two.")
        if named:
            folder = incoming_folder() / uuid.uuid4().hex
            await run_in_threadpool(_keep, named, folder)
            place = str(folder)
        else:
            place = _outside(source.strip())
        args = {
            "source": place,
            "format": format.strip() or None,
            "select": select.strip() or None,
            "name": name.strip() or None,
            "title": _called(named),
            "model": named_model(explorer, model.strip()) if model.strip() else None,
            "remove_source": folder is not None,
        }
        job = await run_in_threadpool(explorer.jobs.submit, "import", args)
    except NeuronMapError as error:
        if folder is not None:
            await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)
        page = await run_in_threadpool(_page, explorer)
        page = page.model_copy(update={**given, "problem": problem_of(error)})
        return render(request, "import.html", {"page": page, "nav": "home"}, status=422)
    return lead_to(request, f"/jobs/{job.id}")


def _outside(source: str) -> str:
    """A source that is no path of this machine.

    Raises:
        InputError: it may be one.
    """
    if source.startswith(_HERE):
        return source
    if _REPOSITORY.fullmatch(source) and not Path(source).exists():
        return f"hf://{source}"
    raise InputError(
        f"{source!r} names no repository: owner/name, hf://owner/name@revision or zoo:namespace/name@version do. Files of this machine are "
        "dropped on the page, or imported with neuronmap sae import."
    )


def _called(files: list[UploadFile]) -> str:
    """The folder or first file that was dropped, for people; the folder on disk has a name that says nothing."""
    first = (files[0].filename or "").replace("\\", "/").strip("/").split("/")[0] if files else ""
    return first[:200]


def _keep(files: list[UploadFile], folder: Path) -> None:
    """Write the files under their own relative names, below a folder that nobody else has.

    Raises:
        InputError: a name that is not safe, or two files of one name.
    """
    if len(files) > _MOST_FILES:
        raise InputError(f"{len(files):,} files; at most {_MOST_FILES:,} are taken at once.")
    total = sum(file.size or 0 for file in files)
    paths.check_disk_space(folder.parent, total, "The files")
    names = [SafePath((file.filename or "").replace("\\", "/").lstrip("/")) for file in files]
    if len({name.folded for name in names}) < len(names):
        raise InputError("Two of the files have the same name.")
    for name, file in zip(names, files, strict=True):
        target = name.under(folder)
        paths.new_folder(target.parent)
        with open(target, "xb") as written:
            shutil.copyfileobj(file.file, written, 1 << 20)
