"""House rules on the repository: what lies in the root, what may not be written anywhere, and what must agree."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT_ENTRIES = {
    ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "hatch_build.py",
    "benchmarks", "constraints-peers.txt", "constraints.txt", "docs", "examples", "mkdocs.yml", "pyproject.toml",
    "src", "tests",
}  # fmt: skip
LARGEST_FILE_BYTES = 1 << 20

# Written with brackets so that this file does not find itself.
MACHINE = re.compile(
    r"(?<![\w.~:/-])/(?:r[o]ot|w[o]rk|f[a]rm|h[o]me|U[s]ers)/\w"  # an absolute path of someone's machine
    r"|py[p]i\.org/simple|files\.python[h]osted|registry\.np[m]js|deb\.deb[i]an\.org"  # a registry's host
    r"|(?<![\d.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?!\.?\d)"  # a private address: four numbers, no more
)


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    return read_pins(root / "constraints.txt")


def read_pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines), "a line of a constraints file is name==version"
    return {canonical(name): number for name, number in (line.split("==") for line in lines)}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_root_holds_only_what_belongs_there(root: Path, repository_files: list[Path]) -> None:
    entries = {file.relative_to(root).parts[0] for file in repository_files}
    assert not entries - ROOT_ENTRIES, "outputs and notes do not belong in the root"


def test_no_large_file_lies_in_the_repository(root: Path, repository_files: list[Path]) -> None:
    large = [str(file.relative_to(root)) for file in repository_files if file.stat().st_size > LARGEST_FILE_BYTES]
    assert not large


def test_no_machine_or_registry_is_named(root: Path, repository_files: list[Path]) -> None:
    found = []
    for file in repository_files:
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{file.relative_to(root)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_the_changelog_begins_with_this_version(root: Path, project: dict[str, Any]) -> None:
    headings = re.findall(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == project["project"]["version"] == version("neuronmap")


def test_every_dependency_is_pinned(project: dict[str, Any], pins: dict[str, str]) -> None:
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    needed = {canonical(re.match(r"[\w.-]+", item).group()) for group in groups for item in group}  # type: ignore[union-attr]
    needed |= {canonical(re.match(r"[\w.-]+", item).group()) for item in project["build-system"]["requires"]}  # type: ignore[union-attr]
    assert not {name for name in needed if name not in pins}


def test_pins_hold_no_build_of_one_machine(root: Path, pins: dict[str, str]) -> None:
    """``torch==2.13.0`` admits CPU and CUDA builds; ``torch==2.13.0+cpu`` would shut out every GPU."""
    both = {**pins, **read_pins(root / "constraints-peers.txt")}
    assert not {name: number for name, number in both.items() if "+" in number}


def test_peers_are_compared_on_the_same_torch(root: Path, pins: dict[str, str]) -> None:
    peers = read_pins(root / "constraints-peers.txt")
    same = ("torch", "transformers", "numpy", "safetensors")
    assert {name: peers[name] for name in same} == {name: pins[name] for name in same}


def test_the_licence_is_the_whole_apache_text(root: Path) -> None:
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


def test_every_make_target_that_is_named_exists(root: Path, repository_files: list[Path]) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    for file in [root / ".ci" / "run", *(file for file in repository_files if file.suffix == ".md")]:
        named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", file.read_text(), flags=re.MULTILINE))
        assert named <= targets, f"{file.relative_to(root)} names {sorted(named - targets)}"


def test_every_skip_gives_its_reason(root: Path) -> None:
    """``pytest.skip(...)`` has a text; ``mark.skip``, ``mark.skipif`` and ``mark.xfail`` have ``reason=``."""
    silent = []
    for file in sorted((root / "tests").rglob("*.py")):
        calls = {}
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                calls[node.func] = node
            if isinstance(node, ast.Attribute) and node.attr in {"skip", "skipif", "xfail"}:
                call = calls.get(node)
                of_mark = isinstance(node.value, ast.Attribute) and node.value.attr == "mark"
                of_pytest = isinstance(node.value, ast.Name) and node.value.id == "pytest"
                reasoned = call is not None and (
                    any(keyword.arg == "reason" for keyword in call.keywords) or (of_pytest and bool(call.args))
                )
                if (of_mark or of_pytest) and not reasoned:
                    silent.append(f"{file.relative_to(root)}:{node.lineno}")
    assert not silent
