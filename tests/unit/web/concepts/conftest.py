"""An explorer on a home that has reports of the tracker, written by hand, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.unit.web.concepts.made import report
from tests.unit.web.conftest import made_app

from neuronmap.hub.reports import store_report


@pytest.fixture
def empty(home: Path) -> Iterator[TestClient]:
    """On a home without anything."""
    with TestClient(made_app(), base_url="http://localhost", follow_redirects=False) as found:
        yield found


@pytest.fixture
def reader(empty: TestClient) -> TestClient:
    """On a home with the report ``tried``."""
    store_report(report(), "tried")
    return empty
