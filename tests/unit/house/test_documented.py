"""What users meet is written down: every error, every setting, every generated page as the code is now."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from neuronmap import errors
from neuronmap.config import FrozenConfig

ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.NeuronMapError)]


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(child) for child in cls.__subclasses__()))


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "reference" / "errors.md").read_text()


def test_every_error_has_its_own_code() -> None:
    codes = {cls.__name__: cls.__dict__.get("code") for cls in ERRORS}
    assert all(codes.values()), f"no code of their own: {[name for name, code in codes.items() if not code]}"
    assert len(set(codes.values())) == len(codes), codes


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_is_public_drawn_and_documented(cls: type[errors.NeuronMapError], page: str) -> None:
    assert cls.__name__ in errors.__all__
    assert re.search(rf"── {cls.__name__}\b|^\s*{cls.__name__}$", errors.__doc__ or "", flags=re.MULTILINE)
    assert f"### `{cls.code}`" in page, f"docs/reference/errors.md has no heading for the code {cls.code}"
    assert f"`{cls.__name__}`" in page


def test_the_errors_page_holds_no_code_that_is_gone(page: str) -> None:
    assert set(re.findall(r"^### `(\w+)`", page, flags=re.MULTILINE)) == {cls.code for cls in ERRORS}


def test_every_exit_code_is_documented(page: str) -> None:
    from neuronmap.cli.exits import EXIT_CODES

    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)} == {0, *EXIT_CODES.values()}


def test_every_error_raised_on_purpose_is_in_the_tree(modules: list[ModuleType]) -> None:
    strangers = [
        f"{module.__name__}.{name}"
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseException) and cls.__module__ == module.__name__ and cls not in ERRORS
        and not name.startswith("_")
    ]  # fmt: skip
    assert not strangers, "errors that users may meet live in neuronmap.errors"


def test_every_setting_has_a_docstring(modules: list[ModuleType]) -> None:
    silent = [
        f"{cls.__module__}.{cls.__qualname__}.{name}"
        for cls in sorted(subclasses(FrozenConfig), key=lambda cls: cls.__qualname__)
        if cls.__module__.startswith("neuronmap")
        for name, field in cls.model_fields.items()  # type: ignore[attr-defined]
        if not field.description
    ]
    assert modules
    assert not silent, "a string literal under the field feeds --help and the reference pages"


def test_every_metric_is_defined(root: Path) -> None:
    from neuronmap.evaluation.metrics import Behaviour, Reconstruction, Sparsity

    page = (root / "docs" / "explanation" / "metrics.md").read_text()
    names = [name for section in (Reconstruction, Sparsity, Behaviour) for name in section.model_fields]
    assert not [name for name in names if f"`{name}`" not in page and name != "mean_of"]


def test_generated_files_are_current(root: Path, generator: ModuleType) -> None:
    stale = [
        str(path)
        for path, text in generator.pages().items()
        if not (root / path).exists() or (root / path).read_text() != text
    ]
    assert not stale, "run `make reference`"
