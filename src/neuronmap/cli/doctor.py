"""``neuronmap doctor``: is this machine ready?"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from neuronmap.cli.exits import EXIT_CODES
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table

__all__ = ["doctor"]

_PACKAGES = (
    "neuronmap",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "safetensors",
    "numpy",
    "pyarrow",
    "pydantic",
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[dict[str, str]]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    found = [
        {
            "device": "cpu",
            "what": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use",
            "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        }
    ]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "what": torch.cuda.get_device_name(index),
                "memory": f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free",
            }
        )
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "what": "Apple GPU", "memory": "shared"})
    return found


def _folders() -> tuple[list[dict[str, str]], list[str]]:
    from neuronmap import paths
    from neuronmap.errors import ResourceError

    rows, problems = [], []
    for what, folder in (
        ("library", paths.library_folder()),
        ("runs", paths.runs_folder()),
        ("cache", paths.home() / "cache"),
    ):
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0
        rows.append({"what": what, "folder": str(folder), "used": paths.human_bytes(used)})
    try:
        paths.require_writable(paths.home())
        free = shutil.disk_usage(paths.home()).free
        rows.append({"what": "free disk", "folder": str(paths.home()), "used": paths.human_bytes(free)})
        if free < 2 << 30:
            problems.append(
                f"Only {paths.human_bytes(free)} free in {paths.home()}: activations need about 1 KiB a token."
            )
    except ResourceError as error:
        problems.append(str(error))
    return rows, problems


@command_output
def doctor(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Check versions, devices, sample data, folders and disk; say what is missing and how to get it.

    Exit code 4 when the home folder cannot be written or its disk is nearly full.
    """
    from neuronmap.corpora import list_corpora
    from neuronmap.errors import ResourceError
    from neuronmap.models.samples import list_samples

    output = Output(as_json, quiet)
    packages = {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    devices = _devices()
    folders, problems = _folders()
    unfit = bool(problems)  # missing samples can be lived without
    samples: list[dict[str, Any]] = [
        {"kind": "model", "name": s.name, "installed": s.path() is not None, "install": s.install}
        for s in list_samples()
    ]
    samples += [
        {"kind": "corpus", "name": c.name, "installed": c.installed, "install": f"pip install {c.package}"}
        for c in list_corpora()
    ]
    problems += [f"Sample {s['kind']} {s['name']} is missing: {s['install']}" for s in samples if not s["installed"]]
    output.show(
        table("Versions", ["package", "version"], [[name, found] for name, found in packages.items()]),
        "",
        table("Devices", ["device", "what", "memory"], [[d["device"], d["what"], d["memory"]] for d in devices]),
        "",
        table(
            "Samples",
            ["kind", "name", "state"],
            [[s["kind"], s["name"], "installed" if s["installed"] else f"missing: {s['install']}"] for s in samples],
        ),
        "",
        table("Folders", ["what", "folder", "size"], [[f["what"], f["folder"], f["used"]] for f in folders]),
        "",
        "All is well." if not problems else "To mend:\n" + "\n".join(f"  - {problem}" for problem in problems),
    )
    output.document(
        {
            "schema": "neuronmap/doctor/1",
            "versions": packages,
            "devices": devices,
            "samples": samples,
            "folders": folders,
            "problems": problems,
        }
    )
    if unfit:
        raise typer.Exit(EXIT_CODES[ResourceError])
