"""A command keeps freed memory; a library import never touches the allocator, and neither do we where the user chose."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neuronmap import allocator
from neuronmap.allocator import SWITCH, keep_freed_memory, memory_state

GLIBC = pytest.mark.skipif(sys.platform != "linux" or not allocator._is_glibc(), reason="the settings are glibc's")


@pytest.fixture
def set_options(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What would be set, on a machine with glibc and an environment that says nothing; this process stays as it is."""
    options: list[tuple[int, int]] = []

    def note(option: int, value: int) -> bool:
        options.append((option, value))
        return True

    monkeypatch.setattr(allocator, "_set", note)
    monkeypatch.setattr(allocator, "_is_glibc", lambda: True)
    monkeypatch.setattr(allocator, "_state", "untouched")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    for name in (SWITCH, "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    return options


def test_large_blocks_come_from_a_heap_that_is_not_given_back(set_options: list[tuple[int, int]]) -> None:
    assert keep_freed_memory()
    assert set_options == [(-4, 0), (-1, 2**31 - 1)]
    assert memory_state() == "freed memory is kept"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (SWITCH, "system", "NEURONMAP_MALLOC=system"),
        (SWITCH, "off", "NEURONMAP_MALLOC=off is neither system nor keep"),
        ("MALLOC_ARENA_MAX", "2", "MALLOC_ARENA_MAX is set"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=3", "GLIBC_TUNABLES is set"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2", "LD_PRELOAD brings another allocator"),
        ("LD_PRELOAD", "libtcmalloc_minimal.so", "LD_PRELOAD brings another allocator"),
    ],
)
def test_what_the_user_chose_is_left_alone(
    set_options: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()
    assert set_options == []
    assert reason in memory_state()


@pytest.mark.parametrize(
    ("name", "value"), [("LD_PRELOAD", "libfaketime.so"), ("GLIBC_TUNABLES", "glibc.pthread.rseq=0")]
)
def test_what_has_nothing_to_do_with_memory_does_not_matter(
    set_options: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert keep_freed_memory()


def test_other_systems_are_left_alone(set_options: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_is_glibc", lambda: False)
    assert not keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
    assert set_options == []


def test_a_refusal_is_said(set_options: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_set", lambda *_: False)
    assert not keep_freed_memory()
    assert "refused" in memory_state()


def in_a_process(statements: str, **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != SWITCH}
    ran = subprocess.run(
        [sys.executable, "-c", statements],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**own, **environment},
    )
    return ran.stdout


# A block of 64 MiB lies in a mapping of its own unless the settings are on; it is in the heap (brk) with them.
WHERE = """
import ctypes, pathlib, sys
def lies_in_the_heap():
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    place = libc.malloc(64 << 20)
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= place < int(end, 16):
            return line.endswith("[heap]")
"""


@GLIBC
def test_only_the_command_changes_the_process() -> None:
    assert in_a_process(f"{WHERE}\nimport neuronmap.cli, neuronmap.models\nprint(lies_in_the_heap())") == "False\n"
    command = (
        f"{WHERE}\nimport contextlib\nfrom neuronmap.cli import main\nsys.argv = ['neuronmap', '--version']\n"
        "with contextlib.suppress(SystemExit): main()\nprint(lies_in_the_heap())"
    )
    assert in_a_process(command).splitlines()[-1] == "True"
    assert in_a_process(command, NEURONMAP_MALLOC="system").splitlines()[-1] == "False"
