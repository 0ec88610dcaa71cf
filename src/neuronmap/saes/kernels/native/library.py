"""Find, load and describe the compiled engine."""

from __future__ import annotations

import ctypes
import platform
import re
from ctypes import c_double, c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from neuronmap.saes.kernels.native.build import COMPILED, sources_digest, variants

__all__ = ["Engine", "load_engine", "why_not"]

_NEEDS = {"x86-64-v4": ("AVX512",), "x86-64-v3": ("AVX512", "AVX2")}
"""Which of torch's names for what the CPU can do each variant runs on."""

_REAL = object()  # stands for float or double in the table below
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "top_k_block": (None, [c_void_p, c_void_p, *[c_int64] * 5, c_int, *[c_void_p] * 4, c_int]),
    "top_k_pack": (None, [*[c_void_p] * 3, c_int64, c_int64, *[c_void_p] * 4]),
    "keep_top_k": (c_int, [c_void_p, c_int64, c_int64, c_int64, c_int]),
    "collector_new": (c_void_p, [c_int64, c_int64]),
    "collector_free": (None, [c_void_p]),
    "collector_clear": (None, [c_void_p]),
    "collector_size": (c_int64, [c_void_p]),
    "collect_block": (c_int64, [*[c_void_p] * 4, _REAL, c_int64, c_int64, c_int]),
    "collector_tighten": (_REAL, [c_void_p, c_int64]),
    "collector_offsets": (c_int64, [c_void_p, c_void_p]),
    "collector_pack": (c_int, [*[c_void_p] * 5, c_int]),
    "drop_ties": (None, [*[c_void_p] * 4, c_int64, _REAL, c_int64]),
    "take_columns": (None, [c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_int]),
    "reconstruct": (None, [*[c_void_p] * 5, c_int64, c_int64, c_int64, c_void_p, _REAL, c_int, *[c_void_p] * 3, c_int]),
    "sort_by_feature": (None, [*[c_void_p] * 4, c_int64, c_int64, _REAL, *[c_void_p] * 4]),
    "weight_gradients": (None, [*[c_void_p] * 6, *[c_int64] * 4, *[c_void_p] * 4, c_int]),
    "energy": (c_double, [c_void_p, c_void_p, c_int64, c_int64, c_int]),
    "adam": (None, [*[c_void_p] * 4, c_int64, c_int64, *[c_double] * 6, c_int, c_int]),
}


_SINGLE: dict[str, tuple[object, list[object]]] = {  # for float alone, names without suffix
    "count_firings": (None, [c_void_p, c_float, *[c_void_p] * 5, c_int64, *[c_void_p] * 6, c_int]),
    "halve": (None, [c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_int]),
    "collect_screened": (c_int64, [*[c_void_p] * 11, c_float, c_int64, c_int64, c_int64, c_int]),
    "top_k_screened": (None, [*[c_void_p] * 10, *[c_int64] * 6, c_int, *[c_void_p] * 4, c_int]),
}


class Engine:
    """The functions of a loaded library for one precision, by their names without suffix.

    Attributes:
        dtype: of the tensors it takes.
        variant: instruction set it was compiled for.
        threaded: whether torch's OpenMP runtime was found; without it the engine runs in one thread.

    Raises:
        OSError, AttributeError: if the file is no engine, or one of another version: its functions may take other arguments.
    """

    def __init__(self, path: Path, double: bool) -> None:
        library = ctypes.CDLL(str(path))
        library.engine_sources.restype = ctypes.c_char_p
        if library.engine_sources() != sources_digest().encode():
            raise OSError("it was compiled from other sources")
        self.dtype = torch.float64 if double else torch.float32
        self.variant = path.stem.removeprefix("engine-")
        parallel = _gomp_parallel()
        self.threaded = parallel is not None
        library.engine_use_openmp.argtypes = [c_void_p]
        library.engine_use_openmp(parallel)
        real = c_double if double else c_float
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, f"{name}_{'f64' if double else 'f32'}")
            function.restype = real if result is _REAL else result
            function.argtypes = [real if kind is _REAL else kind for kind in arguments]
            setattr(self, name, function)
        for name, (result, arguments) in _SINGLE.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> ctypes._NamedFuncPointer:
        raise AttributeError(name)  # the functions are set above; this tells type checkers what they are


def load_engine(double: bool = False) -> Engine | None:
    """The engine for float32 (or float64), or None where there is none; :func:`why_not` says why."""
    path = _find()
    found = path if isinstance(path, str) else _opened(path, double)
    return None if isinstance(found, str) else found


def why_not() -> str | None:
    """Why the engine cannot run here, or None when it can."""
    path = _find()
    found = path if isinstance(path, str) else _opened(path, False)
    return found if isinstance(found, str) else None


@cache
def _opened(path: Path, double: bool) -> Engine | str:
    try:
        return Engine(path, double)
    except (OSError, AttributeError) as error:
        return (
            f"the compiled engine cannot be used ({error}); python -m neuronmap.saes.kernels.native.build makes it anew"
        )


def _find() -> Path | str:
    can = torch.backends.cpu.get_cpu_capability()
    present = [name for name in variants() if (COMPILED / f"engine-{name}.so").exists()]
    for name in present:
        if name not in _NEEDS or can in _NEEDS[name]:
            return COMPILED / f"engine-{name}.so"
    if present:
        return f"this CPU ({can}) has not the instructions that the engine was compiled for ({', '.join(present)})"
    return "the engine was not compiled; with a C compiler, python -m neuronmap.saes.kernels.native.build does it"


def _gomp_parallel() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch uses, or None."""
    for path in _openmp_libraries():
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def _openmp_libraries() -> list[str]:
    """OpenMP runtimes that may be torch's, the likeliest first. torch is loaded, so its own is in this process."""
    own = Path(torch.__file__).parent
    if platform.system() == "Linux":
        mapped = {
            line.split(maxsplit=5)[-1].strip()
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "/" in line
        }
        found = [path for path in mapped if re.search(r"/lib(gomp|omp|iomp5)[-.\d\w]*\.so", path)]
    else:
        found = [str(path) for path in (own / "lib").glob("lib*omp*.dylib")]
    return sorted(found, key=lambda path: (str(own) not in path, path))
