"""Compile the engine: ``python -m neuronmap.saes.kernels.native.build``. Also called while the package is being built.

Standard library only, since the build happens before anything is installed. One library for each instruction set, chosen when
it is loaded, so that a wheel is fast on every machine of its kind. Nothing is linked but libc.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["COMPILED", "SOURCES", "compile_engine", "sources_digest", "variants"]

HERE = Path(__file__).resolve().parent
SOURCES = ("engine.c", "kernels.h", "screen.h", "firings.h")
COMPILED = HERE / "compiled"
"""A folder of their own: beside Python files, ``.so`` files would pass for modules."""

FLAGS = [
    "-std=c11",
    "-O3",
    "-fPIC",
    "-shared",
    # Sums may be reordered into vector lanes (the same way each time); NaN and infinity keep their meaning.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    # a * b + c stays two operations, as gcc has it under -std=c11 and clang not: fused ones lengthen the chain of additions of a
    # dot product, and measured 0 to 20 % slower.
    "-ffp-contract=off",
]

# x86-64-v3 and -v4 spelled out: -march knows these names only from gcc 11 and clang 12 on.
AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]


def variants(machine: str | None = None) -> dict[str, list[str]]:
    """Instruction sets to build for on a machine, best first: name -> compiler flags.

    Elsewhere the compiler's own default does: it has vector units on 64-bit ARM (NEON) and POWER.
    """
    machine = (machine or platform.machine()).lower()
    if machine in ("x86_64", "amd64"):
        return {"x86-64-v4": AVX512, "x86-64-v3": AVX2}
    return {"generic": []}


def sources_digest() -> str:
    """Of the C files: a library says which it was compiled from, and is used with these alone."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()


def compile_engine(folder: Path = COMPILED) -> list[Path]:
    """Compile every variant into ``folder``.

    Returns:
        The libraries.

    Raises:
        RuntimeError: without a compiler (``$CC``, cc, gcc or clang), or when it fails; the message says why.
    """
    compiler = _compiler()
    built = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(f"{folder} cannot be made: {error}") from error
    for name, flags in variants().items():
        target = folder / f"engine-{name}.so"
        scratch = target.with_suffix(f".{os.getpid()}.tmp")
        command = [
            *compiler,
            *FLAGS,
            *flags,
            f'-DENGINE_SOURCES="{sources_digest()}"',
            str(HERE / SOURCES[0]),
            "-o",
            str(scratch),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"{command[0]} did not run: {error}") from error
        if done.returncode:
            scratch.unlink(missing_ok=True)
            raise RuntimeError(
                f"{shlex.join(command)} failed: {done.stderr.strip() or f'exit status {done.returncode}'}"
            )
        os.replace(scratch, target)
        built.append(target)
    return built


def _compiler() -> list[str]:
    if sys.platform == "win32":
        raise RuntimeError("The engine is not built on Windows; the backend torch runs there.")
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise RuntimeError("No C compiler found (looked for $CC, cc, gcc and clang). On Debian: apt install gcc libc6-dev")


if __name__ == "__main__":
    try:
        for library in compile_engine():
            sys.stdout.write(f"{library}\n")
    except RuntimeError as reason:
        sys.exit(str(reason))
