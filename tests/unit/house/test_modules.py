"""House rules on the source: a module reads in one sitting, is named for what lives there, and holds nothing unsafe."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src" / "neuronmap"
SOURCES = sorted(SOURCE.rglob("*.py"))

MODULE_LINES = {"soft": 300, "hard": 600}
FUNCTION_LINES = {"soft": 60, "hard": 90}
FORBIDDEN_NAMES = re.compile(r"^(utils?|helpers?|common|misc|new_.*|.*_(v\d+|new|old))$")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|not (yet )?implemented", re.IGNORECASE)


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE.parent))


def lengths() -> list[tuple[int, int, str]]:
    """``(lines, hard limit, where)`` of every module and function over its soft limit, longest first."""
    rows = []
    for path in SOURCES:
        text = path.read_text()
        lines = text.count("\n")
        if lines > MODULE_LINES["soft"]:
            rows.append((lines, MODULE_LINES["hard"], name_of(path)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES["soft"]:
                    rows.append((lines, FUNCTION_LINES["hard"], f"{name_of(path)}:{node.lineno} {node.name}()"))
    return sorted(rows, reverse=True)


def test_modules_and_functions_read_in_one_sitting() -> None:
    rows = lengths()
    table = "\n".join(f"{lines:5d} of {hard:3d}  {where}{'  <-- over' * (lines > hard)}" for lines, hard, where in rows)
    over = [where for lines, hard, where in rows if lines > hard]
    assert not over, f"Too long, so it has two subjects; split it. All that are over the soft limits:\n{table}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_home_is_named_for_what_lives_there(path: Path) -> None:
    names = [part.removesuffix(".py") for part in path.relative_to(SOURCE).parts]
    assert not [name for name in names if FORBIDDEN_NAMES.match(name)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    """No pickle in or out: the modules that unpickle are not imported, ``torch.load`` and ``torch.save`` not called."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.append(f"{node.value.id}.{node.attr}")
        elif (
            isinstance(node, ast.keyword)
            and node.arg in {"allow_pickle", "trust_remote_code"}
            and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        ):
            found.append(f"{node.arg}=")
    unsafe = re.compile(
        r"^((c?pickle|dill|cloudpickle|joblib|shelve|marshal)(\.|$)|torch\.(load|save)$|yaml\.(unsafe_)?load$"
        r"|allow_pickle=|trust_remote_code=)"
    )
    assert not [name for name in found if unsafe.match(name)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_left_unfinished(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert not [f"{name_of(path)}:{number}: {line.strip()}" for number, line in lines if UNFINISHED.search(line)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_user_input_is_never_checked_by_assert(path: Path) -> None:
    asserts = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert not asserts, f"{name_of(path)}: raise an error of neuronmap.errors instead, at lines {asserts}"
