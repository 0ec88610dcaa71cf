"""``--json`` of ``neuronmap zoo admin``: one document of the documented shape, which holds no password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from neuronmap.cli import app
from neuronmap.cli.documents import DOCUMENTS

PASSWORD = "four words nobody guesses"


@pytest.fixture
def document(tmp_path: Path) -> Any:
    """Types ``neuronmap zoo admin ... --json`` beside a server's folder, and reads what it prints."""

    def typed(*arguments: str, answer: str = "") -> dict[str, Any]:
        command = ["zoo", "admin", *arguments, "--folder", str(tmp_path), "--json"]
        done = CliRunner().invoke(app, command, input=answer)
        assert PASSWORD not in done.output
        found: dict[str, Any] = json.loads(done.stdout)
        DOCUMENTS[f"zoo admin {arguments[0]}" if done.exit_code == 0 else "error"].model_validate(found)
        return found

    return typed


def test_accounts_quotas_and_the_store(document: Any, tmp_path: Path) -> None:
    made = document("create-user", "ada", "--admin", "--email", "ada@example.org", answer=f"{PASSWORD}\n")
    assert made["schema"] == "neuronmap/zoo.admin.create-user/1"
    assert (made["user"]["name"], made["user"]["email"], made["user"]["is_admin"]) == ("ada", "ada@example.org", True)
    assert document("create-user", "ada", answer=f"{PASSWORD}\n")["error"] == "already_exists"
    assert document("set-password", "ada", answer=f"{PASSWORD}\n")["user"] == "ada"
    assert document("quota", "ada", "1KiB")["namespace"]["quota_bytes"] == 1024
    assert document("quota", "ada", "none")["namespace"]["quota_bytes"] is None
    assert document("verify")["store"] == {
        "checked": 0,
        "checked_bytes": 0,
        "damaged": [],
        "missing": [],
        "repaired": [],
    }


def test_every_command_of_the_zoo_has_a_document() -> None:
    """All but ``serve``, which runs until it is stopped."""

    def names(group: Any, before: str) -> list[str]:
        found = []
        for name, command in group.commands.items():
            found += names(command, f"{before} {name}") if hasattr(command, "commands") else [f"{before} {name}"]
        return found

    zoo = typer.main.get_command(app).commands["zoo"]  # type: ignore[attr-defined]
    commands = set(names(zoo, "zoo")) - {"zoo serve"}
    assert commands == {name for name in DOCUMENTS if name.startswith("zoo ")}
