"""``neuronmap doctor``: is this machine ready?"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from neuronmap.allocator import memory_state
from neuronmap.cli.exits import EXIT_CODES
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table
from neuronmap.cli.tune import measured_settings, tune
from neuronmap.errors import ConfigError

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

    from neuronmap.saes.kernels.choice import describe

    memory = psutil.virtual_memory()
    threads, kernels = torch.get_num_threads(), describe(torch.device("cpu"))
    found = [
        {
            "device": "cpu",
            "what": f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads in use; kernels: {kernels}",
            "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        }
    ]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "what": f"{torch.cuda.get_device_name(index)}; kernels: {describe(torch.device('cuda', index))}",
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
                f"Only {paths.human_bytes(free)} free in {paths.home()}: activations need about 1 KiB a token. "
                "neuronmap cache list shows what can be made again."
            )
    except ResourceError as error:
        problems.append(str(error))
    return rows, problems


@command_output
def doctor(
    model: Annotated[
        str | None, typer.Argument(help="With --tune: the model to measure with; the sample model if left out.")
    ] = None,
    tuning: Annotated[
        bool, typer.Option("--tune", help="Measure what runs a language model fastest here, and use that from now on.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check versions, devices, sample data, folders and disk; say what is missing and how to get it.

    Exit code 4 when the home folder cannot be written or its disk is nearly full.

    With `--tune`: measure threads, tokens a forward pass, attention and precision, and keep what is fastest (about three minutes
    with the sample model on two cores; nothing else should run meanwhile). Harvesting and streaming use it wherever nothing
    else is asked for. Ctrl-C leaves the settings as they were.

    Examples:

        neuronmap doctor

        neuronmap doctor --tune
    """
    output = Output(as_json, quiet)
    if tuning:
        tune(model, output)
        return
    if model is not None:
        raise ConfigError(
            f"'{model}' was given without --tune: doctor looks at this machine, not at a model.",
            hint=f"neuronmap doctor --tune {model}",
        )
    _check(output)


def _check(output: Output) -> None:
    from neuronmap.corpora import list_corpora
    from neuronmap.errors import ResourceError
    from neuronmap.models.samples import list_samples

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
    settings, fault = measured_settings()
    problems += [fault] if fault else []
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
        f"Settings for language models on {settings['device']}: {settings['state']}",
        f"Memory: {memory_state()}",
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
            "measured": settings,
            "memory": memory_state(),
            "folders": folders,
            "problems": problems,
        }
    )
    if unfit:
        raise typer.Exit(EXIT_CODES[ResourceError])
