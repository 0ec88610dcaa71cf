"""House rules on the source: a module reads in one sitting, is named for what lives there, and holds nothing unsafe."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src" / "neuronmap"

MODULE_LINES = {"soft": 300, "hard": 600}
FUNCTION_LINES = {"soft": 60, "hard": 90}
FORBIDDEN_NAMES = re.compile(r"^(utils?|helpers?|common|misc|new_.*|.*_(v\d+|new|old))$")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\b[Nn]ot (yet )?implemented")
UNSAFE = re.compile(
    r"^((c?pickle|dill|cloudpickle|joblib|shelve|marshal)(\.|$)|torch\.(load|save)$|yaml\.(unsafe_)?load$"
    r"|allow_pickle=|trust_remote_code=)"
)


@cache
def sources() -> list[tuple[str, str, ast.Module]]:
    """Name, text and syntax tree of every module."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        found.append((str(path.relative_to(SOURCE.parent)), text, ast.parse(text)))
    return found


def lengths() -> list[tuple[int, int, str]]:
    """``(lines, hard limit, where)`` of every module and function over its soft limit, longest first."""
    rows = []
    for name, text, tree in sources():
        lines = text.count("\n")
        if lines > MODULE_LINES["soft"]:
            rows.append((lines, MODULE_LINES["hard"], name))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES["soft"]:
                    rows.append((lines, FUNCTION_LINES["hard"], f"{name}:{node.lineno} {node.name}()"))
    return sorted(rows, reverse=True)


def names_used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything imported, every ``module.attribute``, and risky keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.keyword) and not (isinstance(node.value, ast.Constant) and node.value.value is False):
            yield node.value.lineno, f"{node.arg}="


def test_modules_and_functions_read_in_one_sitting() -> None:
    rows = lengths()
    table = "\n".join(f"{lines:5d} of {hard:3d}  {where}{'  <-- over' * (lines > hard)}" for lines, hard, where in rows)
    over = [where for lines, hard, where in rows if lines > hard]
    assert not over, f"Too long, so it has two subjects; split it. All that are over the soft limits:\n{table}"


def test_a_home_is_named_for_what_lives_there() -> None:
    parts = {name: Path(name).with_suffix("").parts for name, _, _ in sources()}
    assert not [name for name, path in parts.items() if any(FORBIDDEN_NAMES.match(part) for part in path)]


def test_every_module_says_what_it_is_for() -> None:
    assert not [name for name, _, tree in sources() if not ast.get_docstring(tree)]


UNPICKLES = frozenset({"neuronmap/hub/formats/unpickling.py"})
"""The one module that opens pickles of other libraries: tensors only, in a process of its own (docs/decisions/0012)."""


def test_nothing_runs_code_from_a_file() -> None:
    """No pickle in or out: what unpickles is not imported, ``torch.load`` and ``torch.save`` are not called."""
    found = [
        f"{name}:{line} {used}"
        for name, _, tree in sources()
        if name not in UNPICKLES
        for line, used in names_used(tree)
        if UNSAFE.match(used)
    ]
    assert not found


def test_nothing_is_left_unfinished() -> None:
    assert not [
        f"{name}:{number}: {line.strip()}"
        for name, text, _ in sources()
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def test_user_input_is_never_checked_by_assert() -> None:
    asserts = [
        f"{name}:{node.lineno}"
        for name, _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert not asserts, "raise an error of neuronmap.errors instead"
