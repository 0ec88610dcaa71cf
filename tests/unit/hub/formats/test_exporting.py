"""Ours as theirs: what a format has no place for is refused, what it has comes back as it was, and folders appear whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from layouts import D, F, K, rows, sparsify_folder, transcoder_set, write_json

from neuronmap.errors import AlreadyExistsError, ConfigError, InputError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.formats import Given, convert_sae, detect, export_sae
from neuronmap.hub.formats.huggingface import Card
from neuronmap.hub.formats.importing import read_candidate
from neuronmap.hub.formats.replacing import MARKER
from neuronmap.progress import SilentProgress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture, load_sae


def make(architecture: str, options: dict[str, Any] | None = None, seed: int = 0, **more: Any) -> SparseAutoencoder:
    cls = get_architecture(architecture)
    sae = cls(D, F, cls.Options.from_dict(options or {}), **more)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            if name == "threshold":
                parameter.abs_()
    return sae.eval()


def hook(layer: int, side: str = "out", component: str | None = "residual") -> dict[str, Any]:
    path = f"model.layers.{layer}" + ("" if component == "residual" else ".mlp")
    return {
        "name": f"{path}:{side}",
        "layer": layer,
        "component": component,
        "module_path": path,
        "side": side,
        "width": D,
    }


def store(hub: SAEModelHub, name: str, sae: SparseAutoencoder, layer: int = 2, **metadata: Any) -> str:
    where = (
        {"hook": hook(layer)}
        if sae.reconstructs_input
        else {"hook": hook(layer, "in", None), "hook_out": hook(layer, "out", "mlp")}
    )
    return hub.register(
        (sae, BundleMetadata.from_dict({"model": {"name": "org/tiny"}, **where, **metadata})), name=name
    ).id


def same(first: SparseAutoencoder, second: SparseAutoencoder) -> None:
    with torch.no_grad():
        torch.testing.assert_close(first.encode(rows()), second.encode(rows()), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(first.reconstruct(rows()), second.reconstruct(rows()), atol=1e-5, rtol=1e-5)


def test_a_whole_set_for_circuit_tracer(tmp_path: Path, hub: SAEModelHub) -> None:
    made = [
        make("transcoder", {"rule": "relu"}, 1, skip=True),
        make("transcoder", {"rule": "jumprelu"}, 2),
        make("transcoder", {"rule": "jumprelu"}, 3, skip=True),
    ]
    names = [store(hub, f"layer{layer}", sae, layer) for layer, sae in enumerate(made)]
    written = export_sae(names, "circuit_tracer", tmp_path / "set", hub=hub)
    assert [file.name for file in written.files] == [
        "layer_0.safetensors",
        "layer_1.safetensors",
        "layer_2.safetensors",
        "config.yaml",
    ]
    config = yaml.safe_load((tmp_path / "set" / "config.yaml").read_text())
    assert config["model_kind"] == "transcoder_set"
    assert (config["model_name"], config["feature_input_hook"], config["feature_output_hook"]) == (
        "org/tiny",
        "mlp.hook_in",
        "hook_mlp_out",
    )
    for candidate, sae in zip(detect(tmp_path / "set"), made, strict=True):
        same(read_candidate(candidate, Given()).sae, sae)


REFUSED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a ReLU for sparsify": ("sparsify", "relu", {}, "keeps the k largest.*this is a relu"),
    "an SAE for circuit-tracer": ("circuit_tracer", "topk", {"k": K}, "takes transcoders"),
    "a transcoder for dictionary_learning": (
        "dictionary_learning",
        "transcoder",
        {},
        "no class for an SAE with architecture transcoder",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_place_for_it(case: str, tmp_path: Path, hub: SAEModelHub) -> None:
    form, architecture, options, said = REFUSED[case]
    name = store(hub, "mine", make(architecture, options), layer=0)
    with pytest.raises(InputError, match=f"(?s){said}"):
        export_sae(name, form, tmp_path / "out", hub=hub)
    assert [path.name for path in tmp_path.iterdir()] == ["library"]


def test_a_set_with_a_gap_is_refused(tmp_path: Path, hub: SAEModelHub) -> None:
    names = [store(hub, f"layer{layer}", make("transcoder", seed=layer), layer) for layer in (0, 2)]
    with pytest.raises(InputError, match=r"layers \[0, 2\]"):
        export_sae(names, "circuit_tracer", tmp_path / "out", hub=hub)


def test_normalised_rows_have_no_place_elsewhere(tmp_path: Path, hub: SAEModelHub) -> None:
    sae = make("topk", {"k": K})
    sae.input_norm = "layer_norm"
    with pytest.raises(InputError, match="layer_norm"):
        export_sae(store(hub, "normed", sae), "sparsify", tmp_path / "out", hub=hub)


def test_a_folder_that_is_there_stays(tmp_path: Path, hub: SAEModelHub) -> None:
    name = store(hub, "mine", make("topk", {"k": K}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("kept")
    with pytest.raises(AlreadyExistsError, match="exists already"):
        export_sae(name, "sparsify", tmp_path / "out", hub=hub)
    assert (tmp_path / "out" / "precious.txt").read_text() == "kept"
    with pytest.raises(AlreadyExistsError, match="not made by an export"):
        export_sae(name, "sparsify", tmp_path / "out", overwrite=True, hub=hub)
    assert (tmp_path / "out" / "precious.txt").read_text() == "kept"


def test_only_what_an_export_made_is_replaced(tmp_path: Path, hub: SAEModelHub) -> None:
    name = store(hub, "mine", make("topk", {"k": K}))
    export_sae(name, "saelens", tmp_path / "out", hub=hub)
    with pytest.raises(AlreadyExistsError, match="exists already"):
        export_sae(name, "sparsify", tmp_path / "out", hub=hub)
    written = export_sae(name, "sparsify", tmp_path / "out", overwrite=True, hub=hub)
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")) == [
        MARKER, "layers.2", "layers.2/cfg.json", "layers.2/sae.safetensors",
    ]  # fmt: skip
    assert not any(file.name == MARKER for file in written.files)
    (tmp_path / "out" / "layers.2" / "notes.txt").write_text("mine")
    with pytest.raises(AlreadyExistsError, match=r"no export wrote.*layers\.2/notes\.txt"):
        export_sae(name, "sparsify", tmp_path / "out", overwrite=True, hub=hub)
    assert (tmp_path / "out" / "layers.2" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "out"]


def test_a_source_is_never_its_own_target(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "runs" / "one")
    convert_sae(tmp_path / "runs" / "one", tmp_path / "made", "sparsify", progress=SilentProgress())
    for source, target in (
        ("made", "made"),
        ("runs/one", "runs"),
        ("runs/one", "runs/one/new"),
        ("made", "made/../made"),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match="left alone"):
            convert_sae(tmp_path / source, tmp_path / target, "saelens", overwrite=True, progress=SilentProgress())
        assert sorted(tmp_path.rglob("*")) == before


def test_home_root_and_library_are_no_targets(
    tmp_path: Path, hub: SAEModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = store(hub, "mine", make("topk", {"k": K}))
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "ada"))
    for target in (Path("/"), tmp_path / "people" / "ada", tmp_path / "people", hub.root, hub.root / "new"):
        with pytest.raises(InputError, match="left alone"):
            export_sae(name, "saelens", target, overwrite=True, hub=hub)
    assert hub.load(name).d_sae == F


def test_the_folder_one_is_in(tmp_path: Path, hub: SAEModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled where it is empty, also through a link; never replaced."""
    name = store(hub, "mine", make("topk", {"k": K}))
    (tmp_path / "here").mkdir()
    number = (tmp_path / "here").stat().st_ino
    monkeypatch.chdir(tmp_path / "here")
    written = export_sae(name, "saelens", ".", hub=hub)
    assert written.folder == tmp_path / "here"
    assert (tmp_path / "here").stat().st_ino == number
    assert load_sae(".").d_sae == F
    assert not [path.name for path in Path().iterdir() if path.name.startswith(".") and path.name != MARKER]
    with pytest.raises(AlreadyExistsError, match="folder you are in"):
        export_sae(name, "saelens", ".", overwrite=True, hub=hub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "here")
    export_sae(name, "sparsify", "link", overwrite=True, hub=hub)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "here" / "layers.2" / "cfg.json").is_file()


def test_formats_that_are_read_only_or_unknown(tmp_path: Path, hub: SAEModelHub) -> None:
    name = store(hub, "mine", make("relu"))
    with pytest.raises(ConfigError, match="gemma_scope can be read, not written"):
        export_sae(name, "gemma_scope", tmp_path / "out", hub=hub)
    with pytest.raises(ConfigError, match="no format 'onnx'"):
        export_sae(name, "onnx", tmp_path / "out", hub=hub)
    with pytest.raises(ConfigError, match="asks nothing called k"):
        export_sae(name, "saelens", tmp_path / "out", assume={"k": "3"}, hub=hub)


def test_converted_past_the_library(tmp_path: Path) -> None:
    transcoder_set(tmp_path / "set")
    written = convert_sae(tmp_path / "set", tmp_path / "out", "saelens", progress=SilentProgress())
    assert written.saes == ("layer_0", "layer_1")
    folders = sorted({file.parent for file in written.files})
    originals = [read_candidate(one, Given()).sae for one in detect(tmp_path / "set")]
    for folder, original in zip(folders, originals, strict=True):
        same(load_sae(folder), original)
        config = json.loads((folder / "cfg.json").read_text())
        assert config["metadata"]["neuronmap"]["origin"]["format"] == "circuit_tracer"
        assert config["metadata"]["hook_name"].endswith("mlp.hook_in")
    again = convert_sae(tmp_path / "out", tmp_path / "back", "circuit_tracer", progress=SilentProgress())
    for candidate, original in zip(detect(again.folder), originals, strict=True):
        same(read_candidate(candidate, Given()).sae, original)


def test_converting_a_damaged_file_leaves_nothing(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "run")
    file = tmp_path / "run" / "layers.3" / "sae.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(Exception, match="cut off"):
        convert_sae(tmp_path / "run", tmp_path / "out", "saelens", progress=SilentProgress())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# --- a repository for the hub ----------------------------------------------------------------------------------------


def test_a_repository_has_a_card_and_bundles(tmp_path: Path, hub: SAEModelHub) -> None:
    names = [store(hub, f"sae{layer}", make("topk", {"k": K}, layer), layer) for layer in (2, 5)]
    card = Card("apache-2.0", "My SAEs", "Two of them.")
    written = export_sae(names, "huggingface", tmp_path / "repo", card=card, hub=hub)
    text = (tmp_path / "repo" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "saelens"
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == ["org/tiny"]
    assert "# My SAEs" in text
    assert "Two of them." in text
    assert {path.name for path in (tmp_path / "repo").iterdir()} == {
        MARKER,
        "README.md",
        "layer_2-residual",
        "layer_5-residual",
    }
    found = detect(tmp_path / "repo")
    assert [one.layer for one in found] == [2, 5]
    same(read_candidate(found[1], Given()).sae, hub.load(names[1]))
    assert written.saes == tuple(names)


@pytest.mark.parametrize("licence", ["", "Apache License 2.0"])
def test_a_repository_needs_a_licence(licence: str, tmp_path: Path, hub: SAEModelHub) -> None:
    name = store(hub, "mine", make("relu"))
    with pytest.raises(ConfigError, match="licence"):
        export_sae(name, "huggingface", tmp_path / "repo", card=Card(licence) if licence else None, hub=hub)
    assert not (tmp_path / "repo").exists()


def test_answers_go_to_the_side_that_asks(tmp_path: Path) -> None:
    sparsify_folder(tmp_path / "run", "layers.0.mlp", transcode=True)
    write_json(tmp_path / "run" / "config.json", {"model": "org/tiny"})
    with pytest.raises(InputError, match="rule topk"):  # a top-k, which circuit-tracer's files do not say
        convert_sae(
            tmp_path / "run",
            tmp_path / "out",
            "circuit_tracer",
            assume={"input_hook": "mlp.hook_in"},
            progress=SilentProgress(),
        )
