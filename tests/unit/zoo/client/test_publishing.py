"""Publishing: idempotent, taken up where it stopped, refused before anything is sent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.zoo.client.conftest import Served
from zoos import QUICKLY, Notes, breaking_line, data_folder, package

from neuronmap.errors import (
    AlreadyExistsError,
    InputError,
    InvalidManifestError,
    NotInZooError,
    UnauthorizedError,
    UploadError,
    ZooOfflineError,
)
from neuronmap.progress import SilentProgress
from neuronmap.zoo.client.http import Patience
from neuronmap.zoo.client.zoo import Zoo
from neuronmap.zoo.digests import Digest
from neuronmap.zoo.packing import pack_folder

BIG = bytes(range(256)) * 12_000  # 3 MB


def test_the_same_again_is_the_same_version(zoo: Zoo, tmp_path: Path) -> None:
    made = package(tmp_path / "numbers")
    first = zoo.publish(
        made, "ada/numbers@1.0", licence="mit", authors=["Ada Lovelace <0000-0002-1825-0097> (Analytical)"]
    )
    again = zoo.publish(
        made, "ada/numbers@1.0", licence="mit", authors=["Ada Lovelace <0000-0002-1825-0097> (Analytical)"]
    )
    assert again.digest == first.digest
    assert first.manifest["licence"] == "MIT"
    assert first.manifest["authors"] == [
        {"name": "Ada Lovelace", "orcid": "0000-0002-1825-0097", "affiliation": "Analytical"}
    ]
    assert len(zoo.versions("ada/numbers")) == 1


def test_a_label_with_another_content_is_refused_before_anything_is_sent(zoo: Zoo, tmp_path: Path) -> None:
    zoo.publish(package(tmp_path / "one"), "ada/numbers@1.0", licence="MIT")
    sent = count_pieces(zoo)
    with pytest.raises(AlreadyExistsError, match="never means anything else"):
        zoo.publish(package(tmp_path / "two", data=b"other"), "ada/numbers@1.0", licence="MIT")
    assert sent == []


def test_faults_are_listed_before_anything_is_sent(zoo: Zoo, tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "bad")
    (folder / "weights.safetensors").write_bytes(b"\xff" * 100)
    (folder / "table.parquet").write_text("no table")
    sent = count_pieces(zoo)
    made = pack_folder(folder, "DATASET", {"format": "bytes"})
    with pytest.raises(InvalidManifestError) as caught:
        zoo.publish(made, "ada/bad@1.0", licence="MIT")
    assert {place for place, _ in caught.value.faults} == {"weights.safetensors", "table.parquet"}
    with pytest.raises(InvalidManifestError) as caught:
        zoo.publish(package(tmp_path / "good"), "ada/good@1.0", licence="no such licence", tags=["UPPER"])
    assert {place for place, _ in caught.value.faults} == {"licence", "tags.0"}
    with pytest.raises(InputError, match="has no version"):
        zoo.publish(package(tmp_path / "other"), "ada/good", licence="MIT")
    assert sent == []


def test_what_it_was_made_from_must_be_there(zoo: Zoo, tmp_path: Path) -> None:
    made = package(tmp_path / "numbers")
    with pytest.raises(NotInZooError):
        zoo.publish(made, "ada/numbers@1.0", licence="MIT", depends_on={"base": "ada/nothing@1.0"})
    base = zoo.publish(made, "ada/base@1.0", licence="MIT")
    made = package(tmp_path / "more", data=b"more")
    view = zoo.publish(made, "ada/more@1.0", licence="MIT", depends_on={"base": "ada/base"}, subject="ada/base")
    assert [one.digest for one in view.depends_on] == [base.digest]
    assert [one.reference for one in zoo.show("ada/base").evidence] == ["ada/more@1.0"]


def test_pickles_and_archives_are_not_packed(tmp_path: Path) -> None:
    for name in ("weights.pt", "all.tar", "module.py"):
        folder = data_folder(tmp_path / name.replace(".", "-"))
        (folder / name).write_bytes(b"x")
        with pytest.raises(InputError, match="are not taken"):
            pack_folder(folder, "DATASET", {"format": "bytes"})


def test_a_draft_is_replaced_and_then_released(zoo: Zoo, tmp_path: Path) -> None:
    zoo.publish(package(tmp_path / "one", data=b"one"), "ada/numbers@1.0", licence="MIT", draft=True)
    second = zoo.publish(package(tmp_path / "two", data=b"two"), "ada/numbers@1.0", licence="MIT", draft=True)
    assert list(zoo.search(namespace="ada")) == []
    assert zoo.release("ada/numbers@1.0").digest == second.digest
    assert [hit.reference for hit in zoo.search(namespace="ada")] == ["ada/numbers@1.0"]
    assert zoo.open_file("ada/numbers", "data.bin") == b"two"


def count_pieces(zoo: Zoo, stop_after: int | None = None) -> list[tuple[str, int]]:
    """Upload and offset of the pieces that are sent; after so many, Ctrl-C."""
    sent: list[tuple[str, int]] = []
    append = zoo.backend.append

    def counting(upload: str, offset: int, piece: bytes):
        if stop_after is not None and len(sent) == stop_after:
            raise KeyboardInterrupt
        sent.append((upload, offset))
        return append(upload, offset, piece)

    zoo.backend.append = counting  # type: ignore[method-assign]
    zoo.backend.most_piece = 1_000_000  # type: ignore[misc]
    return sent


def test_ctrl_c_loses_nothing(zoo: Zoo, tmp_path: Path) -> None:
    made = package(tmp_path / "big", data=BIG)
    first = count_pieces(zoo, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        zoo.publish(made, "ada/big@1.0", licence="MIT")
    with Zoo(zoo.location, progress=SilentProgress()) as other:  # another process, later, with another title
        second = count_pieces(other)
        view = other.publish(made, "ada/big@1.0", licence="MIT", title="Big")
    assert view.manifest["title"] == "Big"
    assert len(first) == 2
    assert sorted([*first, *second]) == sorted({*first, *second}), "no piece was sent twice"
    assert zoo.open_file("ada/big", "data.bin") == BIG


def test_nothing_is_left_of_a_finished_publication(zoo: Zoo, tmp_path: Path, home: Path) -> None:
    zoo.publish(package(tmp_path / "numbers"), "ada/numbers@1.0", licence="MIT")
    assert json.loads((home / "zoo/publications.json").read_text()) == {}
    store = Path(zoo.location, "blobs")
    assert (
        not [path for path in (store / "incoming").rglob("*") if path.is_file()]
        if (store / "incoming").exists()
        else True
    )


def test_a_file_that_changes_meanwhile_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    made = package(tmp_path / "numbers")
    prepared = zoo.prepare(made, "ada/numbers@1.0", licence="MIT")
    file = tmp_path / "numbers" / "data.bin"
    file.write_bytes(b"!" + file.read_bytes()[1:])
    with pytest.raises(Exception, match="other bytes than were hashed"):
        zoo.publish(prepared)
    file.write_bytes(b"short")
    with pytest.raises(InputError, match="became shorter"):
        zoo.publish(prepared)
    with pytest.raises(NotInZooError):
        zoo.show("ada/numbers")


# --- through a server -------------------------------------------------------------------------------------------------------


def test_through_a_server(served: Served, tmp_path: Path) -> None:
    with Zoo(served.address, served.token, progress=SilentProgress()) as zoo:
        made = package(tmp_path / "numbers")
        view = zoo.publish(made, "ada/numbers@1.0", licence="MIT", tags=["numbers"])
        assert (view.reference, view.publisher) == ("ada/numbers@1.0", "ada")
        assert zoo.whoami()["name"] == "ada"
    with Zoo(served.address, progress=SilentProgress()) as anybody:
        assert [hit.reference for hit in anybody.search(tag=("numbers",))] == ["ada/numbers@1.0"]
        pulled = anybody.pull("ada/numbers", tmp_path / "pulled")
        assert pulled.digest == view.digest
        assert anybody.verify_folder(pulled.folder).name == "ada/numbers@1.0"
        assert anybody.verify("ada/numbers").digest == view.digest
        with pytest.raises(UnauthorizedError):
            anybody.publish(package(tmp_path / "mine"), "ada/mine@1.0", licence="MIT")


def test_a_line_that_breaks_again_and_again(served: Served, tmp_path: Path) -> None:
    """The server says from where; what had arrived whole is not sent again."""
    made = package(tmp_path / "big", data=os.urandom(3_000_000))
    patience = Patience(read_s=5, pause_s=0.01)
    with (
        breaking_line(served.port, lives=[400_000, 1_200_000, 300_000]) as address,
        Zoo(address, served.token, progress=SilentProgress(), patience=patience) as zoo,
    ):
        zoo.backend.begin("ada", 0)
        sent = count_pieces_of_server(zoo)
        view = zoo.publish(made, "ada/big@1.0", licence="MIT")
        assert zoo.pull("ada/big", tmp_path / "pulled").digest == view.digest
    assert len(sent) > 6, "some pieces were lost on the way"
    assert Digest.of((tmp_path / "pulled/data.bin").read_bytes()) == Digest.of((tmp_path / "big/data.bin").read_bytes())


def count_pieces_of_server(zoo: Zoo) -> list[int]:
    sent: list[int] = []
    append, begin = zoo.backend.append, zoo.backend.begin

    def counting(upload: str, offset: int, piece: bytes):
        sent.append(offset)
        return append(upload, offset, piece)

    def small(namespace: str, size: int):
        made = begin(namespace, size)
        zoo.backend.most_piece = 500_000  # type: ignore[misc]
        return made

    zoo.backend.append, zoo.backend.begin = counting, small  # type: ignore[method-assign]
    return sent


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with Zoo("http://127.0.0.1:9", "token", patience=QUICKLY, progress=Notes()) as zoo:
        with pytest.raises(ZooOfflineError, match="cannot be reached"):
            zoo.show("ada/numbers")
        with pytest.raises(ZooOfflineError):
            zoo.publish(package(tmp_path / "numbers"), "ada/numbers@1.0", licence="MIT")


def test_a_server_that_forgets_pieces_is_given_up(zoo: Zoo, tmp_path: Path) -> None:
    append = zoo.backend.append

    def forgetting(upload: str, offset: int, piece: bytes):
        return append(upload, offset, piece).model_copy(update={"received": offset})

    zoo.backend.append = forgetting  # type: ignore[method-assign]
    start = zoo.backend.start
    zoo.backend.start = lambda key, digest, size: start(key, digest, size).model_copy(  # type: ignore[method-assign]
        update={"received": 0}
    )
    zoo._puller.pause = lambda attempt: None
    with pytest.raises(UploadError):
        zoo.publish(package(tmp_path / "numbers"), "ada/numbers@1.0", licence="MIT")


def test_a_namespace_that_is_no_name(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        zoo.publish(package(tmp_path / "numbers"), "../evil/numbers@1.0", licence="MIT")


def test_every_fault_at_once(zoo: Zoo, tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data")
    (folder / "model.pkl").write_bytes(b"x")
    with pytest.raises(InvalidManifestError) as refused:
        zoo.publish(
            *(folder, "ada/demo@not_a_version"),
            licence="free for all",
            tags=["fine", "NOT!"],
            authors=["<nobody>"],
            kind="DATASET",
            record={"format": "bytes", "description": "x", "sise": 3},
        )
    said = str(refused.value)
    for part in ("record.sise", "model.pkl", "'free for all' is no SPDX", "'NOT!' cannot be a tag", "names no author"):
        assert part in said, part
    assert "'not_a_version' cannot be a version" in said
    (folder / "model.pkl").unlink()
    (folder / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(InvalidManifestError) as refused:
        zoo.publish(
            pack_folder(folder, "DATASET", {"format": "x"}), "ada/demo", licence="none", tags="NOT!", title="x" * 900
        )
    places = {place.partition(".")[0] for place, _ in refused.value.faults}
    assert {"version", "licence", "tags", "title", "weights"} <= places, refused.value.faults


def test_a_single_text_is_one_tag_and_one_author(zoo: Zoo, tmp_path: Path) -> None:
    view = zoo.publish(package(tmp_path / "data"), "ada/demo@1.0", licence="MIT", tags="demo", authors="Ada Lovelace")
    assert view.manifest["tags"] == ["demo"]
    assert [one["name"] for one in view.manifest["authors"]] == ["Ada Lovelace"]


def test_what_would_differ_is_said(zoo: Zoo, tmp_path: Path) -> None:
    made = package(tmp_path / "data")
    zoo.publish(made, "ada/demo@1.0", licence="MIT", tags=["demo"])
    with pytest.raises(AlreadyExistsError, match="; tags, title would differ"):
        zoo.publish(made, "ada/demo@1.0", licence="MIT", title="Other")


def test_whether_one_may_delete_is_known_before(published: Zoo) -> None:
    assert published.require_deletable("ada/numbers@1.0").label == "1.0"
    with pytest.raises(NotInZooError):
        published.require_deletable("ada/numbers@7.0")
