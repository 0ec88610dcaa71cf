"""A server of the tests' own: PostgreSQL on a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def postgres_programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of the server, without a database."""
    pytest.importorskip("psycopg", reason="the driver for PostgreSQL is not installed")
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="nm-pg-"))
    before: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser to become somebody else")
        before = ["runuser", "-u", "nobody", "--"]
        shutil.chown(folder, "nobody")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [*before, programs / program, "-D", folder / "data", *arguments],
            check=True,
            timeout=60,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    run("initdb", "-U", "tester", "--auth=trust", "-N", "-E", "UTF8", "--locale=C")
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses='' -F", "start")
    yield f"postgresql+psycopg://tester@/{{}}?host={folder}"
    run("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Callable[..., str]:
    """Makes a database on the server, empty or as a copy of another, and gives its URL."""
    import psycopg

    folder = postgres.partition("host=")[2]

    def make(template: str | None = None) -> str:
        name = f"t{uuid.uuid4().hex}"
        copied = f" TEMPLATE {template.partition('?')[0].rpartition('/')[2]}" if template else ""
        with psycopg.connect(f"host={folder} user=tester dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}{copied}")
        return postgres.format(name)

    return make
