"""What users may import is written down, complete and loads. The frozen list is ``public_api.txt``.

A change of the public names is made on purpose: ``make reference`` rewrites the list, and the change is in the diff.
"""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src" / "neuronmap"
ROOMS = ["neuronmap", *sorted(f"neuronmap.{init.parent.name}" for init in SOURCE.glob("*/__init__.py"))]
MODULES = sorted(f"neuronmap.{path.stem}" for path in SOURCE.glob("*.py") if not path.stem.startswith("__"))


def order(name: str) -> tuple[int, list[int | str]]:
    """The order of ruff's RUF022: CONSTANTS, Classes, functions; digits as numbers."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("name", [*ROOMS, *MODULES])
def test_all_is_sorted_without_repeats_and_loads(name: str) -> None:
    module = import_module(name)
    public = module.__all__
    assert public == sorted(set(public), key=order)
    missing = [item for item in public if getattr(module, item, None) is None]
    assert not missing, f"{name}.__all__ promises what is not there: {missing}"


@pytest.mark.parametrize("name", [room for room in ROOMS if room != "neuronmap"])
def test_a_room_lists_everything_it_re_exports(name: str) -> None:
    tree = ast.parse((SOURCE / name.removeprefix("neuronmap.") / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(name)
        for alias in node.names
    }
    public = {item for item in imported if not item.startswith("_")}
    assert not public - set(import_module(name).__all__)


def test_the_front_door_knows_every_name_it_lists() -> None:
    import neuronmap

    assert dir(neuronmap) == sorted(neuronmap.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = neuronmap.no_such_name
