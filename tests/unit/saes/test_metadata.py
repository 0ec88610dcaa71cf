"""A bundle can be described without torch, and what is wrong with it is said in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neuronmap.errors import ConfigError, DamagedError, InputError
from neuronmap.saes import BundleMetadata, read_bundle_info, save_bundle
from neuronmap.saes.metadata import read_weights_header, summary_numbers
from neuronmap.saes.relu import ReLUSAE

MODEL = {"name": "org/tiny", "revision": "abc", "model_digest": "sha256:" + "1" * 64, "hidden_size": 6}
HOOK = {
    "name": "model.layers.2:out",
    "layer": 2,
    "component": "residual",
    "module_path": "model.layers.2",
    "side": "out",
    "width": 6,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    metadata = BundleMetadata(model=MODEL, hook=HOOK, tags=("a", "b"), seed=3, tokens_seen=1000, steps=10)
    return save_bundle(
        ReLUSAE(6, 20), tmp_path / "bundle", metadata, metrics={"summary": {"l0": 3.5}, "core": {"l0": [1]}}
    )


def edit(bundle: Path, **changes: Any) -> None:
    """Change top-level keys of cfg.json; None removes one."""
    config = json.loads((bundle / "cfg.json").read_text())
    config.update(changes)
    (bundle / "cfg.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def test_info_tells_everything_without_the_weights(bundle: Path) -> None:
    info = read_bundle_info(bundle)
    assert (info.kind, info.architecture, info.d_in, info.d_sae, info.k) == ("neuronmap", "relu", 6, 20, None)
    assert info.metadata is not None
    assert (info.metadata.model, info.metadata.hook, info.metadata.tags) == (MODEL, HOOK, ("a", "b"))
    assert info.metadata.options == {"sparsity_penalty": 0.06}
    assert info.tensors["W_enc"] == ("F32", (6, 20))
    assert info.metrics == {"l0": 3.5}


def test_reading_a_bundle_loads_no_torch(bundle: Path) -> None:
    script = (
        "import sys; from neuronmap.saes import read_bundle_info; "
        f"read_bundle_info({str(bundle)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_metadata_survives_json(bundle: Path) -> None:
    metadata = read_bundle_info(bundle).metadata
    assert metadata is not None
    assert BundleMetadata.from_dict(json.loads(json.dumps(metadata.to_dict()))) == metadata


@pytest.mark.parametrize(
    "values", [{"weights_digest": "md5:1"}, {"input_scale": 0.0}, {"steps": -1}, {"colour": "red"}, {"tags": "word"}]
)
def test_impossible_metadata_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        BundleMetadata.from_dict(values)


def test_a_missing_folder_and_a_file_are_not_bundles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_bundle_info(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"):
        read_bundle_info(tmp_path / "file")


def test_a_folder_of_something_else_says_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"neither cfg.json nor sae_weights.safetensors \(found: notes.txt\)"):
        read_bundle_info(tmp_path)


@pytest.mark.parametrize("name", ["ae.pt", "weights.pth", "pytorch_model.bin", "sae.PKL"])
def test_pickle_files_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=f"{name}.*Pickle files can run any program"):
        read_bundle_info(tmp_path)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_half_a_bundle_names_the_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(DamagedError, match=f"incomplete: {name} is missing"):
        read_bundle_info(bundle)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_weights_that_were_cut_off_are_found_by_their_length(bundle: Path, size: int) -> None:
    file = bundle / "sae_weights.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:size])
    with pytest.raises(DamagedError, match="cut off"):
        read_bundle_info(bundle)


@pytest.mark.parametrize("header", [b"[]", b"not json", b'{"a": 3}', b'{"a": {"dtype": "F32"}}', b"\xff\xfe"])
def test_a_header_that_makes_no_sense_is_damage(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DamagedError, match="header"):
        read_weights_header(file)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "\x00"])
def test_a_configuration_that_is_not_json_is_damage(bundle: Path, text: str) -> None:
    (bundle / "cfg.json").write_text(text)
    with pytest.raises(DamagedError, match=r"cfg\.json"):
        read_bundle_info(bundle)


@pytest.mark.parametrize("value", [None, 0, -3, 1.5, "12", True])
def test_widths_must_be_whole_numbers(bundle: Path, value: Any) -> None:
    edit(bundle, d_sae=value)
    with pytest.raises(DamagedError, match="d_sae must be a whole number"):
        read_bundle_info(bundle)


def test_a_newer_format_is_refused_with_both_versions(bundle: Path) -> None:
    edit(bundle, metadata={"neuronmap": {"format_version": 9, "neuronmap_version": "7.0"}})
    with pytest.raises(DamagedError, match=r"format version 9; this NeuronMap reads 1") as raised:
        read_bundle_info(bundle)
    assert "NeuronMap 7.0" in raised.value.hint


@pytest.mark.parametrize(
    ("block", "finding"),
    [
        ("text", "is a str"),
        ({"format_version": 1}, "names no architecture"),
        ({"format_version": 1, "architecture": "relu", "colour": 1}, "colour"),
    ],
)
def test_a_broken_metadata_block_is_damage(bundle: Path, block: Any, finding: str) -> None:
    edit(bundle, metadata={"neuronmap": block})
    with pytest.raises(DamagedError, match=finding):
        read_bundle_info(bundle)


def test_figures_are_the_summary_or_every_finite_number() -> None:
    assert summary_numbers({"summary": {"l0": 3, "text": "x"}, "core": {"l0": 9}}) == {"l0": 3}
    nested = {"a": 1.5, "b": {"c": 2, "d": float("nan"), "e": True}, "f": [1, 2], "g": None}
    assert summary_numbers(nested) == {"a": 1.5, "b.c": 2}
    assert summary_numbers(None) == {}
