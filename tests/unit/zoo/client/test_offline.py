"""Offline mode: no server is asked anything, and what is known to be withdrawn is not taken for the newest."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoos import QUICKLY, HostileServer, package

from neuronmap.errors import NotInZooError, ZooOfflineError
from neuronmap.progress import SilentProgress
from neuronmap.zoo.client.zoo import Zoo


def opened(address: str, *, offline: bool = False) -> Zoo:
    return Zoo(address, "", offline=offline, patience=QUICKLY, progress=SilentProgress())


def test_no_server_is_asked(hostile: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONMAP_OFFLINE", "1")
    zoo = Zoo(hostile.address, "", patience=QUICKLY, progress=SilentProgress())
    for call in (zoo.search_page, zoo.whoami, lambda: zoo.show("ada/numbers"), lambda: zoo.verify("ada/numbers")):
        with pytest.raises(ZooOfflineError, match=r"offline mode|not known here"):
            call()
    assert hostile.requests == []


def test_latest_is_not_a_version_that_is_known_to_be_yanked(hostile: HostileServer, tmp_path: Path) -> None:
    with opened(hostile.address) as zoo:
        zoo.pull("ada/numbers", tmp_path / "before")
    offline = opened(hostile.address, offline=True)
    assert offline.pull("ada/numbers", tmp_path / "known").warnings == ()
    hostile.view.update(state="yanked", reason="wrong numbers")
    with opened(hostile.address) as zoo:
        zoo.show("ada/numbers@1.0")
    with pytest.raises(ZooOfflineError, match=r"yanked since \(wrong numbers\)"):
        offline.pull("ada/numbers", tmp_path / "latest")
    assert not (tmp_path / "latest").exists()
    exact = offline.pull("ada/numbers@1.0", tmp_path / "exact")
    assert exact.state == "yanked"
    assert "wrong numbers" in exact.warnings[0]


def test_a_folder_without_a_zoo_stays_without(tmp_path: Path) -> None:
    with pytest.raises(NotInZooError, match="There is no zoo in"):
        Zoo(tmp_path / "mistyped", must_exist=True)
    with Zoo(tmp_path / "zoo", progress=SilentProgress()) as zoo, pytest.raises(NotInZooError, match="There is no zoo"):
        zoo.mirror(str(tmp_path / "mistyped"), ["ada/numbers"])
    assert not (tmp_path / "mistyped").exists()
    with Zoo(tmp_path / "zoo", must_exist=True, progress=SilentProgress()) as again:
        assert again.publish(package(tmp_path / "data"), "ada/numbers@1.0", licence="MIT").label == "1.0"
