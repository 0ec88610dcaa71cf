"""The library: what goes in, how it is found, and what happens when files are damaged or names clash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import MODEL, D, F, hook, make_bundle, make_metadata, make_sae
from safetensors.torch import save_file

from neuronmap.errors import (
    AlreadyExistsError,
    ConfigError,
    DamagedError,
    InputError,
    MismatchError,
    NotInLibraryError,
    UnwritablePathError,
)
from neuronmap.hashing import digest_file
from neuronmap.hub import SAEModelHub
from neuronmap.saes import save_bundle

WEIGHTS = "sae_weights.safetensors"


def visible(root: Path) -> list[str]:
    """Everything under the library but hidden files (the lock)."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.name.startswith("."))


# --- register ---------------------------------------------------------------------------------------------------


def test_the_default_library_lies_under_neuronmap_home(home: Path) -> None:
    assert SAEModelHub().root == home / "library"
    assert SAEModelHub().list() == []
    assert not (home / "library").exists()


def test_a_registered_bundle_is_listed_with_what_it_says(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", "topk", metrics={"summary": {"l0": 5.0}}, tags=("demo",), training={"k": 5})
    entry = hub.register(bundle)
    assert hub.list() == [entry]
    assert (entry.architecture, entry.d_in, entry.d_sae, entry.k) == ("topk", D, F, 5)
    assert (entry.model, entry.revision, entry.layer, entry.component) == ("org/Tiny-LM", "abc", 2, "residual")
    assert (entry.hook, entry.tags, entry.metrics) == ("model.layers.2:out", ("demo",), {"l0": 5.0})
    assert entry.weights_digest == digest_file(bundle / WEIGHTS)
    assert entry.size_bytes == sum(file.stat().st_size for file in entry.path.iterdir())
    assert entry.training == {"k": 5}
    assert entry.problem == ""
    assert json.loads(json.dumps(entry.to_dict()))["id"] == entry.id


def test_the_derived_id_names_model_place_and_kind(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "b", "topk"))
    digits = str(entry.weights_digest).removeprefix("sha256:")[:8]
    assert entry.id == f"tiny-lm/layers.2-residual/topk-{F}-{digits}"
    assert entry.path == hub.root / entry.id


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"model": None, "hook": None}, "unknown-model/unknown-hook/relu-48-"),
        ({"model": {"name": "/srv/models/ä/"}}, "unknown-model/layers.2-residual/"),
        ({"model": {"name": "C:\\models\\gpt 2"}}, "gpt-2/"),
        ({"hook": {"name": "encoder.blocks.1.ff:in"}}, "tiny-lm/encoder.blocks.1.ff-in/"),
    ],
)
def test_ids_are_safe_whatever_the_names(changes: dict[str, Any], start: str, hub: SAEModelHub, tmp_path: Path) -> None:
    assert hub.register(make_bundle(tmp_path / "b", **changes)).id.startswith(start)


def test_an_sae_in_memory_and_a_result_can_be_registered(hub: SAEModelHub) -> None:
    class Result:
        def save(self, folder: Path) -> Path:
            return save_bundle(make_sae(seed=2), folder, make_metadata())

    first = hub.register((make_sae(seed=1), make_metadata()), name="first")
    second = hub.register(Result(), name="second")
    assert [entry.id for entry in hub.list()] == ["first", "second"]
    assert first.weights_digest != second.weights_digest


@pytest.mark.parametrize("source", [3, None, make_sae()])
def test_other_things_cannot_be_registered(source: Any, hub: SAEModelHub) -> None:
    with pytest.raises(InputError, match="give a folder, "):
        hub.register(source)
    assert visible(hub.root) == []


def test_the_same_weights_are_registered_once(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    assert hub.register(bundle) == hub.register(bundle)
    assert hub.register(bundle, name="mine") == hub.register(bundle, name="mine")
    assert len(hub.list()) == 2


def test_a_name_belongs_to_one_sae(hub: SAEModelHub, tmp_path: Path) -> None:
    kept = hub.register(make_bundle(tmp_path / "a", seed=1), name="mine")
    with pytest.raises(AlreadyExistsError, match="another SAE 'mine'"):
        hub.register(make_bundle(tmp_path / "b", seed=2), name="mine")
    assert hub.list() == [kept]


def test_replacing_puts_the_new_sae_in_the_place_of_the_old(hub: SAEModelHub, tmp_path: Path) -> None:
    old = hub.register(make_bundle(tmp_path / "one"), name="mine")
    new = hub.register(make_bundle(tmp_path / "two", "topk", 1), name="mine", replace=True)
    assert hub.list() == [new]
    assert (new.architecture, new.path) == ("topk", old.path)
    assert new.weights_digest != old.weights_digest
    assert not list(hub.root.glob(".staging-*"))


@pytest.mark.parametrize("failure", [OSError("busy"), KeyboardInterrupt()])
def test_a_replacement_that_fails_keeps_the_old_sae(
    failure: BaseException, hub: SAEModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = hub.register(make_bundle(tmp_path / "one"), name="mine")
    damaged = make_bundle(tmp_path / "damaged", "topk")
    (damaged / WEIGHTS).write_bytes(b"")
    with pytest.raises(DamagedError):
        hub.register(damaged, name="mine", replace=True)
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if Path(source).name == "bundle":
            raise failure
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("neuronmap.hub.library.os.rename", fails)
        with pytest.raises(UnwritablePathError if isinstance(failure, OSError) else KeyboardInterrupt):
            hub.register(make_bundle(tmp_path / "two", "topk", 1), name="mine", replace=True)
    assert hub.list() == [old]
    assert hub.verify("mine") == old.weights_digest


def test_whether_a_name_is_free_is_known_before_training(hub: SAEModelHub, tmp_path: Path) -> None:
    hub.register(make_bundle(tmp_path / "one"), name="a/b")
    for name in ("a/b", "a", "a/b/c"):
        with pytest.raises(AlreadyExistsError):
            hub.require_free(name)
    for name in ("a", "a/b/c"):
        with pytest.raises(AlreadyExistsError):
            hub.require_free(name, replace=True)
    with pytest.raises(ConfigError):
        hub.require_free("../a")
    hub.require_free("a/b", replace=True)
    hub.require_free("a/c")


def test_bundles_do_not_lie_inside_each_other(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    hub.register(bundle, name="a/b")
    with pytest.raises(AlreadyExistsError, match="inside the SAE 'a/b'"):
        hub.register(bundle, name="a/b/c")
    with pytest.raises(AlreadyExistsError, match="folder of other SAEs"):
        hub.register(bundle, name="a")
    assert [entry.id for entry in hub.list()] == ["a/b"]


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "../a", "a/../b", ".a", "a/.b", "a b", "a\\b", "é", "x" * 121, "a/analyses/b", "nul", "a.", "-a"],
)
def test_names_that_could_lead_astray_are_refused(name: str, hub: SAEModelHub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be an id"):
        hub.register(make_bundle(tmp_path / "b"), name=name)
    assert not hub.root.exists()


def test_a_damaged_source_is_not_taken_in(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    with pytest.raises(DamagedError, match=r"not registered|changed or damaged"):
        hub.register(bundle)
    with pytest.raises(InputError, match="does not exist"):
        hub.register(tmp_path / "nothing")
    assert visible(hub.root) == []


def test_a_saelens_folder_becomes_a_bundle_that_remembers_its_origin(hub: SAEModelHub, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
    save_file({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, folder / WEIGHTS)
    config = {
        "architecture": "topk",
        "k": 7,
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "metadata": {
            "sae_lens_version": "6.1.0",
            "model_name": "gpt2",
            "hook_name": "transformer.h.3",
            "neuronpedia_id": "x",
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    entry = hub.register(folder, tags=["foreign"])
    assert (entry.architecture, entry.k, entry.model, entry.layer) == ("topk", 7, "gpt2", 3)
    assert (entry.component, entry.tags) == ("residual", ("foreign",))
    origin = hub.info(entry.id).origin
    assert origin is not None
    assert (origin["format"], origin["version"], origin["weights_digest"]) == (
        "saelens",
        "6.1.0",
        digest_file(folder / WEIGHTS),
    )
    kept = json.loads((entry.path / "cfg.json").read_text())["metadata"]
    assert (kept["neuronpedia_id"], kept["hook_name"]) == ("x", "transformer.h.3")
    assert hub.verify(entry.id) == entry.weights_digest


def test_linked_files_are_copied_and_hidden_ones_left_out(hub: SAEModelHub, tmp_path: Path) -> None:
    real = make_bundle(tmp_path / "real")
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for file in real.iterdir():
        (linked / file.name).symlink_to(file)
    (linked / ".cache").mkdir()
    (linked / ".cache" / "x").write_text("x")
    entry = hub.register(linked)
    assert not any(path.is_symlink() for path in entry.path.rglob("*"))
    assert not (entry.path / ".cache").exists()


def test_an_unwritable_library_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnwritablePathError):
        SAEModelHub(tmp_path / "file" / "library").register(make_bundle(tmp_path / "b"))


# --- get, list --------------------------------------------------------------------------------------------------


def test_an_sae_is_found_by_any_unique_beginning(hub: SAEModelHub, tmp_path: Path) -> None:
    first = hub.register(make_bundle(tmp_path / "a", "topk", seed=1))
    second = hub.register(make_bundle(tmp_path / "b", "relu", seed=2), name="other/one")
    for name in (first.id, "tiny-lm/", "topk-", str(first.weights_digest)[7:15], str(first.weights_digest)):
        assert hub.get(name) == first
    assert hub.get("other") == hub.get("one") == second


def test_a_whole_id_wins_over_longer_ones(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a")
    short = hub.register(bundle, name="demo")
    hub.register(bundle, name="demo-2")
    assert hub.get("demo") == short


def test_an_ambiguous_name_lists_what_it_could_be(hub: SAEModelHub, tmp_path: Path) -> None:
    for name in ("demo-1", "demo-2"):
        hub.register(make_bundle(tmp_path / name), name=name)
    with pytest.raises(NotInLibraryError, match="fits 2 SAEs: demo-1, demo-2"):
        hub.get("dem")


def test_an_unknown_name_suggests_near_ones(hub: SAEModelHub, tmp_path: Path) -> None:
    with pytest.raises(NotInLibraryError, match="has no SAE 'x'; it holds 0"):
        hub.get("x")
    hub.register(make_bundle(tmp_path / "a"), name="smollm2/matryoshka")
    with pytest.raises(NotInLibraryError) as raised:
        hub.get("matroshka")
    assert raised.value.hint == "Did you mean smollm2/matryoshka?"
    with pytest.raises(NotInLibraryError):
        hub.get("")


@pytest.mark.parametrize("name", ["cfg.json", WEIGHTS])
def test_damaged_bundles_are_listed_with_their_problem(name: str, hub: SAEModelHub, tmp_path: Path) -> None:
    sound = hub.register(make_bundle(tmp_path / "a", seed=1), name="sound")
    broken = hub.register(make_bundle(tmp_path / "b", seed=2), name="broken")
    (broken.path / name).write_bytes(b"{")
    entries = {entry.id: entry for entry in hub.list()}
    assert entries["sound"] == sound
    assert name in entries["broken"].problem
    with pytest.raises(DamagedError, match="'broken' cannot be used"):
        hub.load("broken")
    (broken.path / name).unlink()
    assert "is missing" in hub.get("broken").problem


def test_unfinished_and_foreign_folders_are_not_listed(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "a"))
    make_bundle(hub.root / ".staging-1" / "bundle")
    (hub.root / "notes").mkdir()
    (hub.root / "notes" / "a.txt").write_text("x")
    (hub.root / "stray.txt").write_text("x")
    assert hub.list() == [entry]


def test_a_saelens_folder_put_there_by_hand_asks_to_be_registered(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(hub.root / "by-hand")
    config = json.loads((bundle / "cfg.json").read_text())
    del config["metadata"]["neuronmap"]
    (bundle / "cfg.json").write_text(json.dumps(config))
    assert "register it" in hub.get("by-hand").problem


def test_changes_on_disk_are_seen(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "a"))
    other = SAEModelHub(hub.root)
    assert other.list() == [entry]
    hub.add_tags(entry.id, "new")
    assert other.get(entry.id).tags == ("new",)
    hub.delete(entry.id)
    assert other.list() == []


def test_unchanged_bundles_are_read_once(hub: SAEModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.register(make_bundle(tmp_path / "a"))
    entries = hub.list()
    monkeypatch.setattr("neuronmap.hub.library.read_entry", None)  # a second reading would fail
    assert hub.list() == entries


def test_a_thousand_bundles_list_in_a_second(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", metrics={"summary": {"l0": 1.0}})
    for number in range(1000):
        folder = hub.root / f"model-{number % 10}" / f"sae-{number}"
        folder.mkdir(parents=True)
        for file in bundle.iterdir():
            os.link(file, folder / file.name)
    took = []
    for _ in range(3):
        start = time.process_time()
        assert len(SAEModelHub(hub.root).list()) == 1000
        took.append(time.process_time() - start)
    assert min(took) < 1.0, f"listing 1,000 bundles took {min(took):.2f} s of processor time"


def test_reading_the_library_loads_no_torch(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    script = (
        "import sys; from neuronmap.hub import SAEModelHub\n"
        f"hub = SAEModelHub({str(hub.root)!r}); entry = hub.register({str(bundle)!r}); hub.add_tags(entry.id, 't')\n"
        "assert hub.search(tag='t', model='tiny-lm') and hub.delete(entry.id)\n"
        "sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], timeout=60, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


# --- load, verify -----------------------------------------------------------------------------------------------


def test_loading_gives_the_sae_that_was_registered(hub: SAEModelHub) -> None:
    sae = make_sae("topk", seed=3)
    entry = hub.register((sae, make_metadata()))
    x = torch.randn(8, D, generator=torch.Generator().manual_seed(0))
    assert torch.equal(hub.load(entry.id).encode(x), sae.encode(x))


def test_the_same_weights_are_loaded_once(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    hub.register(bundle, name="a")
    hub.register(bundle, name="b")
    assert hub.load("a") is hub.load("b")


def test_only_a_few_saes_stay_in_memory(hub: SAEModelHub) -> None:
    for seed in range(6):
        hub.register((make_sae(seed=seed), make_metadata()), name=f"s{seed}")
    first = hub.load("s0")
    for seed in range(1, 6):
        hub.load(f"s{seed}")
    assert hub.load("s5") is hub.load("s5")
    assert hub.load("s0") is not first


def test_verify_finds_a_changed_byte(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "b"))
    assert hub.verify(entry.id) == entry.weights_digest
    file = entry.path / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-2] ^= 4
    file.write_bytes(data)
    with pytest.raises(DamagedError, match="was changed or damaged"):
        hub.verify(entry.id)
    with pytest.raises(DamagedError, match="was changed or damaged"):
        hub.load(entry.id)
    assert hub.load(entry.id, verify=False).d_sae == F


def test_an_sae_that_does_not_fit_is_not_loaded(hub: SAEModelHub, capsys: pytest.CaptureFixture[str]) -> None:
    from neuronmap.models import ModelIdentity

    entry = hub.register((make_sae(), make_metadata()))
    hub.load(entry.id, ModelIdentity.from_dict(MODEL))
    other = ModelIdentity.from_dict({**MODEL, "model_digest": "sha256:" + "9" * 64, "revision": "def"})
    with pytest.raises(MismatchError, match=r"model digest.*revision: the SAE has abc, the model def"):
        hub.load(entry.id, other)
    capsys.readouterr()
    hub.load(entry.id, other, force=True)
    assert "forced: model digest" in capsys.readouterr().err


def test_the_hook_is_looked_up_on_a_loaded_model(hub: SAEModelHub, tiny_llama: Any) -> None:
    from neuronmap.models import resolve_hook

    def registered(hook: dict[str, Any], width: int, name: str) -> str:
        cls = type(make_sae())
        sae = cls(width, F)
        sae.initialise(torch.zeros(width), torch.Generator().manual_seed(0))
        metadata = make_metadata(model=tiny_llama.identity.to_dict(), hook=hook)
        return hub.register((sae, metadata), name=name).id

    right = resolve_hook(tiny_llama, 2, "mlp_hidden")
    assert hub.check_fit(registered(right.to_dict(), right.width, "right"), tiny_llama) == []
    narrow = {**right.to_dict(), "width": right.width - 1}
    found = hub.check_fit(registered(narrow, right.width - 1, "narrow"), tiny_llama)
    assert [difference.severity for difference in found] == ["impossible"]
    with pytest.raises(MismatchError, match="width at the hook: the SAE has 95, the model 96"):
        hub.load("narrow", tiny_llama, force=True)
    gone = {**right.to_dict(), "module_path": "model.layers.99.mlp", "name": "model.layers.99.mlp:out"}
    found = hub.check_fit(registered(gone, right.width, "gone"), tiny_llama)
    assert [(difference.what, difference.found) for difference in found] == [("hook", "no such module")]


# --- delete, tags, analyses -------------------------------------------------------------------------------------


def test_deleting_removes_the_sae_and_empty_folders_above(hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    hub.register(bundle, name="a/b/c")
    hub.register(bundle, name="a/d")
    assert hub.delete("a/b/c")
    assert not (hub.root / "a" / "b").exists()
    assert [entry.id for entry in hub.list()] == ["a/d"]
    assert hub.delete("a/d")
    assert visible(hub.root) == []


def test_deleting_takes_whole_ids_only(hub: SAEModelHub, tmp_path: Path) -> None:
    hub.register(make_bundle(tmp_path / "b"), name="demo/one")
    for name in ("demo", "demo/o", "one"):
        with pytest.raises(NotInLibraryError, match=f"no SAE '{name}'"):
            hub.delete(name)
    assert hub.delete("demo/two", missing_ok=True) is False
    with pytest.raises(ConfigError):
        hub.delete("../b")
    assert len(hub.list()) == 1


def test_a_damaged_sae_can_be_deleted(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "b"), name="broken")
    (entry.path / "cfg.json").unlink()
    assert hub.delete("broken")


def test_tags_change_without_touching_the_weights(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "b", tags=("a",)), tags=["b", "a"])
    assert entry.tags == ("a", "b")
    assert hub.add_tags(entry.id, "c", "a").tags == ("a", "b", "c")
    assert hub.remove_tags(entry.id, "a", "zzz").tags == ("b", "c")
    assert hub.verify(entry.id) == entry.weights_digest


@pytest.mark.parametrize("tag", ["", "  ", "a,b", "a\nb", "x" * 61])
def test_impossible_tags_are_refused(tag: str, hub: SAEModelHub, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(ConfigError, match="cannot be a tag"):
        hub.register(bundle, tags=[tag])
    entry = hub.register(bundle)
    with pytest.raises(ConfigError, match="cannot be a tag"):
        hub.add_tags(entry.id, tag)


def test_analyses_are_attached_whole(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "b"))
    (tmp_path / "density.json").write_text("{}")
    (tmp_path / "features" / "part").mkdir(parents=True)
    (tmp_path / "features" / "part" / "x.txt").write_text("x")
    hub.attach(entry.id, "density.json", tmp_path / "density.json")
    hub.attach(entry.id, "features", tmp_path / "features")
    assert sorted(hub.analyses(entry.id)) == ["density.json", "features"]
    assert (hub.analyses(entry.id)["features"] / "part" / "x.txt").read_text() == "x"
    assert [found.id for found in hub.list()] == [entry.id]
    with pytest.raises(AlreadyExistsError, match=r"has an analysis 'density.json'"):
        hub.attach(entry.id, "density.json", tmp_path / "density.json")
    (tmp_path / "density.json").write_text("[1]")
    assert hub.attach(entry.id, "density.json", tmp_path / "density.json", overwrite=True).read_text() == "[1]"
    for name in ("../x", "a/b", "", ".x"):
        with pytest.raises(ConfigError):
            hub.attach(entry.id, name, tmp_path / "density.json")
    with pytest.raises(InputError, match="does not exist"):
        hub.attach(entry.id, "y", tmp_path / "nothing")


def test_an_analysis_is_moved_in_only_if_the_sae_is_still_the_one(hub: SAEModelHub, tmp_path: Path) -> None:
    entry = hub.register(make_bundle(tmp_path / "b"), name="mine")
    with hub.staging() as staging:
        made = staging / "store"
        made.mkdir()
        (made / "x.txt").write_text("1")
        target = hub.attach("mine", "first", made, move=True, weights_digest=entry.weights_digest)
        assert not made.exists()
    assert (target / "x.txt").read_text() == "1"
    with hub.staging() as staging:
        made = staging / "store"
        made.mkdir()
        (made / "x.txt").write_text("2")
        hub.register(make_bundle(tmp_path / "other", seed=5), name="mine", replace=True)  # while the analysis ran
        with pytest.raises(MismatchError, match="other weights now"):
            hub.attach("mine", "first", made, overwrite=True, move=True, weights_digest=entry.weights_digest)
    assert hub.analyses("mine") == {}
    assert [path.name for path in hub.root.iterdir() if path.name.startswith(".staging")] == []


# --- search -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(hub: SAEModelHub) -> SAEModelHub:
    """Three SAEs that differ in everything one can ask for."""
    for name, architecture, place, model, tags, metrics in [
        ("a", "relu", hook(1), MODEL, ("x", "y"), {"explained_variance": 0.6, "l0": 40}),
        ("b", "topk", hook(2, "mlp"), MODEL, ("x",), {"explained_variance": 0.8, "l0": 5}),
        ("c", "topk", hook(2), {**MODEL, "name": "gpt2"}, (), None),
    ]:
        metadata = make_metadata(hook=place, model=model, tags=tags)
        folder = hub.root / name
        save_bundle(
            make_sae(architecture, ord(name)), folder, metadata, metrics={"summary": metrics} if metrics else None
        )
    return hub


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "abc"),
        ({"model": "tiny-lm"}, "ab"),
        ({"model": "ORG/tiny-lm"}, "ab"),
        ({"model": "*p*2"}, "c"),
        ({"model": "tiny"}, ""),
        ({"layer": 2}, "bc"),
        ({"layer": 0}, ""),
        ({"component": "residual"}, "ac"),
        ({"component": "model.layers.2.mlp:out"}, "b"),
        ({"architecture": "topk", "model": "gpt2"}, "c"),
        ({"tag": "x"}, "ab"),
        ({"tag": ["x", "y"]}, "a"),
        ({"where": "explained_variance>=0.7"}, "b"),
        ({"where": ["l0 < 50", "explained_variance<0.7"]}, "a"),
        ({"where": "l0!=5"}, "a"),
        ({"sort": "-explained_variance"}, "bac"),
        ({"sort": "l0"}, "bac"),
        ({"sort": "-id"}, "cba"),
        ({"sort": "-id", "limit": 2}, "cb"),
    ],
)
def test_search_gives_what_meets_every_condition(conditions: dict[str, Any], expected: str, shelf: SAEModelHub) -> None:
    assert "".join(entry.id for entry in shelf.search(**conditions)) == expected


@pytest.mark.parametrize("text", ["", "explained_variance", "l0>", ">3", "l0=>3", "l0>many", "l0 > 3 4"])
def test_a_condition_that_makes_no_sense_is_explained(text: str, shelf: SAEModelHub) -> None:
    with pytest.raises(ConfigError, match="is not a condition on a metric"):
        shelf.search(where=text)


def test_a_metric_that_no_sae_has_lists_what_there_is(shelf: SAEModelHub) -> None:
    with pytest.raises(ConfigError, match=r"'no_such_metric'.*explained_variance, l0"):
        shelf.search(where="no_such_metric>0")


def test_sorting_by_something_unknown_lists_what_there_is(shelf: SAEModelHub) -> None:
    with pytest.raises(ConfigError, match=r"Cannot sort by 'beauty'.*explained_variance, l0"):
        shelf.search(sort="beauty")


def test_damaged_saes_meet_no_condition(shelf: SAEModelHub) -> None:
    (shelf.root / "a" / "cfg.json").write_text("{")
    assert "".join(entry.id for entry in shelf.search()) == "abc"
    assert "".join(entry.id for entry in shelf.search(architecture="*")) == "bc"
