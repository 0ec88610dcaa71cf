"""docs/quality.md is what its one command makes of the committed files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import report


def test_the_committed_page_is_what_the_files_give(tmp_path: Path) -> None:
    assert report.page(tmp_path) == report.PAGE.read_text(encoding="utf-8"), "out of date: run make report"
    assert {file.name for file in tmp_path.iterdir()} <= {file.name for file in report.PLOTS.iterdir()}


def test_asking_for_help_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = report.PAGE.read_bytes()
    monkeypatch.setattr(sys, "argv", ["report.py", "--help"])
    with pytest.raises(SystemExit):
        report.main()
    assert "--check" in capsys.readouterr().out
    assert report.PAGE.read_bytes() == before
