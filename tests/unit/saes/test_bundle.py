"""Bundles: written whole, read back exactly, and refused with the reason when something is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap import SparseAutoencoder
from neuronmap.errors import (
    AlreadyExistsError,
    ConfigError,
    DamagedError,
    InputError,
    MismatchError,
    UnwritablePathError,
)
from neuronmap.hashing import digest_file
from neuronmap.saes import (
    BundleMetadata,
    Workspace,
    attach_file,
    get_architecture,
    list_architectures,
    load_sae,
    read_bundle_info,
    save_bundle,
    verify_bundle,
)

D, F = 12, 48
WEIGHTS = "sae_weights.safetensors"


def random_sae(name: str = "relu", seed: int = 0) -> SparseAutoencoder:
    cls = get_architecture(name)
    options = cls.Options.from_dict({"k": 5}) if "k" in cls.Options.model_fields else None
    sae = cls(D, F, options)
    generator = torch.Generator().manual_seed(seed)
    sae.initialise(torch.randn(D, generator=generator), generator)
    with torch.no_grad():
        for tensor in sae.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return sae


def rows(seed: int = 9) -> Tensor:
    return torch.randn(32, D, generator=torch.Generator().manual_seed(seed))


def edit(bundle: Path, change: dict[str, Any]) -> None:
    config = json.loads((bundle / "cfg.json").read_text())
    (bundle / "cfg.json").write_text(json.dumps({**config, **change}))


def rewrite(bundle: Path, **changes: Tensor | None) -> None:
    """Replace tensors (None removes one) and forget the digest."""
    tensors = {**load_file(bundle / WEIGHTS), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, bundle / WEIGHTS)
    config = json.loads((bundle / "cfg.json").read_text())
    config["metadata"].get("neuronmap", {}).pop("weights_digest", None)
    (bundle / "cfg.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", list_architectures())
def test_a_bundle_reads_back_to_the_same_bits(name: str, tmp_path: Path) -> None:
    sae, x = random_sae(name), rows()
    loaded = SparseAutoencoder.load(sae.save(tmp_path / "bundle", BundleMetadata(seed=4)))
    assert type(loaded) is type(sae)
    assert loaded.options == sae.options
    with torch.no_grad():
        assert torch.equal(loaded.encode(x), sae.encode(x))
        assert torch.equal(loaded(x), sae(x))


def test_an_sae_in_double_is_stored_in_single(tmp_path: Path) -> None:
    folder = save_bundle(random_sae().double(), tmp_path / "bundle")
    assert {tensor.dtype for tensor in load_file(folder / WEIGHTS).values()} == {torch.float32}
    assert load_sae(folder).dtype == torch.float32


def test_what_saving_fills_in(tmp_path: Path) -> None:
    folder = save_bundle(random_sae("topk"), tmp_path / "bundle", BundleMetadata(seed=4, architecture="wrong"))
    metadata = read_bundle_info(folder).metadata
    assert metadata is not None
    assert (metadata.architecture, metadata.options["k"], metadata.seed) == ("topk", 5, 4)
    assert metadata.weights_digest == digest_file(folder / WEIGHTS) == verify_bundle(folder)
    assert metadata.created is not None
    assert metadata.created.endswith("+00:00")


def test_the_configuration_is_what_saelens_needs(tmp_path: Path) -> None:
    hook = {"name": "model.layers.3:out", "module_path": "model.layers.3", "side": "out", "width": D}
    metadata = BundleMetadata(model={"name": "org/m"}, hook=hook, corpus={"name": "sotu", "context_length": 64})
    config = json.loads((save_bundle(random_sae("batchtopk"), tmp_path / "b", metadata) / "cfg.json").read_text())
    assert {name: config[name] for name in ("d_in", "d_sae", "dtype", "architecture")} == {
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "architecture": "jumprelu",
    }
    assert config["apply_b_dec_to_input"] is True
    assert (config["normalize_activations"], config["reshape_activations"]) == ("none", "none")
    outer = config["metadata"]
    assert outer["sae_lens_version"] >= "6"
    assert (outer["model_name"], outer["hook_name"]) == ("org/m", "model.layers.3")
    assert outer["model_class_name"] == "AutoModelForCausalLM"
    assert (outer["dataset_path"], outer["context_size"]) == ("sotu", 64)
    assert outer["training_architecture"] == "batchtopk"


def test_an_input_hook_keeps_a_name_that_no_module_has(tmp_path: Path) -> None:
    """SAELens reads module outputs: the bare module path would silently give it other activations."""
    hook = {"name": "model.layers.3:in", "module_path": "model.layers.3", "side": "in", "width": D}
    folder = save_bundle(random_sae(), tmp_path / "b", BundleMetadata(hook=hook))
    assert json.loads((folder / "cfg.json").read_text())["metadata"]["hook_name"] == "model.layers.3:in"


def test_the_card_tells_a_person_what_it_is(tmp_path: Path) -> None:
    metadata = BundleMetadata(model={"name": "org/m"}, hook={"name": "h:out", "layer": 3, "component": "mlp"}, steps=7)
    folder = save_bundle(random_sae("topk"), tmp_path / "b", metadata, metrics={"explained_variance": 0.8123})
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: saelens\ntags:\n- ")
    for text in (
        "org/m",
        "h:out, layer 3, mlp",
        "| explained_variance | 0.8123 |",
        "k = 5",
        "SAE.load_from_disk",
        "7 steps",
    ):
        assert text in card


def test_files_can_be_added_and_the_card_follows_the_metrics(tmp_path: Path) -> None:
    folder = save_bundle(random_sae(), tmp_path / "b", extra_files={"history.parquet": b"PAR1"})
    assert (folder / "history.parquet").read_bytes() == b"PAR1"
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nmine\n")
    for value in (1.0, 2.0):
        attach_file(folder, "metrics.json", {"summary": {"l0": value}, "core": {"x": 3}})
    card = (folder / "README.md").read_text()
    assert "| l0 | 2 |" in card
    assert "| l0 | 1 |" not in card
    assert card.endswith("\nmine\n")
    (tmp_path / "plot.svg").write_text("<svg/>")
    assert attach_file(folder, "analyses/plot.svg", tmp_path / "plot.svg").read_text() == "<svg/>"


@pytest.mark.parametrize("name", ["../x", "/x", ".hidden", "a/../../x", "", "cfg.json", WEIGHTS])
def test_files_stay_inside_the_bundle(tmp_path: Path, name: str) -> None:
    folder = save_bundle(random_sae(), tmp_path / "b")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError):
        attach_file(folder, name, b"x")
    assert sorted(tmp_path.rglob("*")) == before


def test_attaching_needs_a_bundle_and_finite_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an SAE bundle"):
        attach_file(tmp_path, "metrics.json", {})
    with pytest.raises(InputError, match=r"metrics\.json"):
        attach_file(save_bundle(random_sae(), tmp_path / "b"), "metrics.json", {"l0": float("nan")})


def test_an_existing_folder_is_kept_unless_overwriting_is_allowed(tmp_path: Path) -> None:
    folder = save_bundle(random_sae(seed=1), tmp_path / "b", extra_files={"old.txt": b"x"})
    old = digest_file(folder / WEIGHTS)
    with pytest.raises(AlreadyExistsError, match="exists already"):
        save_bundle(random_sae(seed=2), folder)
    assert digest_file(folder / WEIGHTS) == old
    save_bundle(random_sae(seed=2), folder, overwrite=True)
    assert verify_bundle(folder) != old
    assert not (folder / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_only_bundles_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(InputError, match="not an SAE bundle, so it is not overwritten"):
        save_bundle(random_sae(), tmp_path / "letters", overwrite=True)


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="JSON"):
        save_bundle(random_sae(), tmp_path / "b", metrics={"l0": float("inf")})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnwritablePathError, match="file"):
        save_bundle(random_sae(), tmp_path / "file" / "b")


def test_a_failed_overwrite_keeps_the_old_bundle(tmp_path: Path) -> None:
    folder = save_bundle(random_sae(seed=1), tmp_path / "b")
    old = digest_file(folder / WEIGHTS)
    with pytest.raises(InputError):
        save_bundle(random_sae(seed=2), folder, metrics={"l0": float("inf")}, overwrite=True)
    assert verify_bundle(folder) == old
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    sae = random_sae()
    with torch.no_grad():
        sae.b_dec[3] = float("nan")
    with pytest.raises(InputError, match="b_dec hold NaN"):
        save_bundle(sae, tmp_path / "b")


def test_a_hook_of_another_width_is_a_mismatch(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="width 12, but its hook has width 99"):
        save_bundle(random_sae(), tmp_path / "b", BundleMetadata(hook={"width": 99}))


def test_changed_weights_fail_their_digest(tmp_path: Path) -> None:
    folder = save_bundle(random_sae(), tmp_path / "b")
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(DamagedError, match=rf"{WEIGHTS} was changed or damaged"):
        load_sae(folder)
    load_sae(folder, verify=False)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"b_enc": None}, "b_enc is missing"),
        ({"extra": torch.zeros(2)}, "extra does not belong in a standard SAE"),
        ({"W_dec": torch.zeros(D, F)}, r"W_dec has shape \[12, 48\] where \[48, 12\] is needed"),
        ({"b_dec": torch.full((D,), float("inf"))}, "b_dec holds 12 values that are NaN or infinite"),
    ],
)
def test_every_fault_of_the_tensors_is_named(changes: dict[str, Tensor | None], finding: str, tmp_path: Path) -> None:
    folder = save_bundle(random_sae(), tmp_path / "b")
    rewrite(folder, **changes)
    with pytest.raises(DamagedError, match=finding):
        load_sae(folder)


def test_unknown_architectures_list_the_known_ones(tmp_path: Path) -> None:
    folder = save_bundle(random_sae(), tmp_path / "b")
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"]["neuronmap"]["architecture"] = "topkk"
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"No SAE architecture 'topkk'.*relu, gated, topk"):
        load_sae(folder)


def test_options_that_do_not_fit_are_damage(tmp_path: Path) -> None:
    folder = save_bundle(random_sae("topk"), tmp_path / "b")
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"]["neuronmap"]["options"] = {"k": 10_000}
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(DamagedError, match="does not describe a topk SAE"):
        load_sae(folder)


# --- plain SAELens folders (the real package is asked in tests/peers) -----------------------------------------------


def plain(folder: Path, architecture: str = "standard", drop: tuple[str, ...] = (), **config: Any) -> dict[str, Tensor]:
    """A folder as SAELens writes it; gives back its tensors."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_dec": (D,), "b_enc": (F,)}
    if architecture == "jumprelu":
        shapes["threshold"] = (F,)
    if architecture == "gated":
        del shapes["b_enc"]
        shapes |= {"b_gate": (F,), "b_mag": (F,), "r_mag": (F,)}
    tensors = {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if "threshold" in tensors:
        tensors["threshold"].abs_()
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    values = {
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "architecture": architecture,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.1.hook_mlp_out"},
        **config,
    }
    (folder / "cfg.json").write_text(json.dumps({name: value for name, value in values.items() if name not in drop}))
    return tensors


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_plain_folders_keep_their_function(architecture: str, subtract: bool, tmp_path: Path) -> None:
    t = plain(tmp_path / "p", architecture, apply_b_dec_to_input=subtract)
    x = rows()
    c = x - t["b_dec"] if subtract else x
    if architecture == "gated":
        gate, mag = c @ t["W_enc"] + t["b_gate"], c @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]
        expected = (gate > 0) * mag.relu()
    else:
        pre = c @ t["W_enc"] + t["b_enc"]
        expected = pre.relu() * (pre > t["threshold"] if architecture == "jumprelu" else 1)
    sae = load_sae(tmp_path / "p")
    assert torch.allclose(sae.encode(x), expected, atol=1e-5)
    assert torch.allclose(sae(x), expected @ t["W_dec"] + t["b_dec"], atol=1e-5)
    assert sae.architecture == {"standard": "relu"}.get(architecture, architecture)


@pytest.mark.parametrize("subtract", [True, False])
def test_decoder_norms_of_topk_are_folded(subtract: bool, tmp_path: Path) -> None:
    t = plain(tmp_path / "p", "topk", k=4, rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=subtract)
    x, norm = rows(), t["W_dec"].norm(dim=1)
    pre = ((x - t["b_dec"] if subtract else x) @ t["W_enc"] + t["b_enc"]) * norm
    top = pre.topk(4, dim=1)
    expected = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    sae = load_sae(tmp_path / "p")
    assert torch.allclose(sae.encode(x), expected, atol=1e-5)
    assert torch.allclose(sae(x), (expected / norm) @ t["W_dec"] + t["b_dec"], atol=1e-5)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(F))


def test_files_from_before_saelens_6_open(tmp_path: Path) -> None:
    plain(
        tmp_path / "old",
        drop=("architecture", "metadata"),
        hook_point="blocks.1.hook_resid_pre",
        model_name="gpt2-small",
        activation_fn_str="topk",
        activation_fn_kwargs={"k": 3},
        normalize_activations=False,
    )
    sae = load_sae(tmp_path / "old")
    assert sae.architecture == "topk"
    assert int((sae.encode(rows()) > 0).sum(dim=1).max()) <= 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_become_single(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = plain(tmp_path / "p", dtype=str(dtype))
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, tmp_path / "p" / WEIGHTS)
    sae = load_sae(tmp_path / "p")
    assert sae.dtype == torch.float32
    assert torch.equal(sae.W_enc, tensors["W_enc"].to(dtype).float())


def test_one_head_is_no_component(tmp_path: Path) -> None:
    metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.1.attn.hook_z", "model_name": "gpt2"}
    for head, component in ((None, "attention_heads"), (3, None)):
        plain(tmp_path / f"head-{head}", reshape_activations="hook_z", metadata={**metadata, "hook_head_index": head})
        provenance = load_sae(tmp_path / f"head-{head}").provenance
        assert provenance is not None
        assert provenance.metadata.hook == {
            "name": "blocks.1.attn.hook_z",
            "layer": 1,
            "width": D,
            "component": component,
        }


@pytest.mark.parametrize("kind", ["expected_average_only_in", True, None, False])
def test_a_scale_that_is_in_the_weights_already_means_nothing(kind: Any, tmp_path: Path) -> None:
    t = plain(tmp_path / "p", normalize_activations=kind)
    (tmp_path / "p" / "activation_scaler.json").write_text('{"scaling_factor": null}')
    sae = load_sae(tmp_path / "p")
    assert sae.input_norm == "none"
    assert torch.allclose(sae.encode(rows()), ((rows() - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu(), atol=1e-5)


def test_a_scale_beside_the_weights_is_refused(tmp_path: Path) -> None:
    """A checkpoint of a SAELens run: the loader of SAELens ignores the scale, and gives other numbers."""
    plain(tmp_path / "p", normalize_activations="expected_average_only_in")
    (tmp_path / "p" / "activation_scaler.json").write_text('{"scaling_factor": 0.2}')
    with pytest.raises(MismatchError, match=r"its scale lies beside the weights \(activation_scaler.json\)"):
        load_sae(tmp_path / "p")


@pytest.mark.parametrize("kind", ["covariance_whitening", "constant_scalar_rescale", 3, "LayerNorm"])
def test_unknown_normalisation_is_refused(kind: Any, tmp_path: Path) -> None:
    plain(tmp_path / "p", normalize_activations=kind)
    with pytest.raises(MismatchError, match=r"normalize_activations is .*none, layer_norm, constant_norm_rescale"):
        load_sae(tmp_path / "p")


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_normalisation_at_run_time_is_kept(kind: str, tmp_path: Path) -> None:
    """And survives our own bundle; the formula itself is in test_normalisation."""
    plain(tmp_path / "p", normalize_activations=kind)
    sae = load_sae(tmp_path / "p")
    again = load_sae(save_bundle(sae, tmp_path / "b"))
    assert sae.input_norm == again.input_norm == kind
    assert json.loads((tmp_path / "b" / "cfg.json").read_text())["normalize_activations"] == kind
    assert "(at run time)" in (tmp_path / "b" / "README.md").read_text()
    assert torch.equal(again(rows()), sae(rows()))
    assert torch.allclose(sae.encode(2 * rows()), sae.encode(rows()), atol=1e-3)


@pytest.mark.parametrize("architecture", ["groupmax", "crosscoder", 3])
def test_foreign_architectures_without_a_rule_here_are_refused(architecture: Any, tmp_path: Path) -> None:
    plain(tmp_path / "p")
    edit(tmp_path / "p", {"architecture": architecture})
    with pytest.raises(ConfigError, match=r"Supported: standard, topk, jumprelu, .*temporal"):
        load_sae(tmp_path / "p")


@pytest.mark.parametrize("rescale", [True, False])
def test_a_batchtopk_checkpoint_opens_with_its_threshold(rescale: bool, tmp_path: Path) -> None:
    t = plain(tmp_path / "p", "batchtopk", k=3.5, rescale_acts_by_decoder_norm=rescale)
    save_file({**t, "topk_threshold": torch.tensor(0.7, dtype=torch.float64)}, tmp_path / "p" / WEIGHTS)
    norm = t["W_dec"].norm(dim=1) if rescale else torch.ones(F)
    pre = ((rows() - t["b_dec"]) @ t["W_enc"] + t["b_enc"]) * norm
    expected = pre * (pre > 0.7)
    sae = load_sae(tmp_path / "p")
    assert sae.architecture == "jumprelu"
    assert torch.allclose(sae.encode(rows()), expected, atol=1e-5)
    assert torch.allclose(sae(rows()), (expected / norm) @ t["W_dec"] + t["b_dec"], atol=1e-5)


def test_thresholds_that_were_trained_as_logarithms_open(tmp_path: Path) -> None:
    t = plain(tmp_path / "p", "jumprelu")
    save_file({**t, "log_threshold": t["threshold"].log()}, tmp_path / "p" / WEIGHTS)
    with pytest.raises(DamagedError, match="both threshold and log_threshold"):
        load_sae(tmp_path / "p")
    logarithm = t.pop("threshold").log()
    save_file({**t, "log_threshold": logarithm}, tmp_path / "p" / WEIGHTS)
    assert torch.allclose(load_sae(tmp_path / "p").threshold, logarithm.exp())


def test_a_threshold_below_zero_is_one_of_zero(tmp_path: Path) -> None:
    """By every path: without the dense matrix, too, no activation is negative."""
    t = plain(tmp_path / "p", "jumprelu")
    save_file({**t, "threshold": -t["threshold"]}, tmp_path / "p" / WEIGHTS)
    sae, x = load_sae(tmp_path / "p"), rows()
    code = sae.encode_entries(x, Workspace(products="sparse"))
    assert code is not None
    assert float(code.value_N.min()) > 0
    assert torch.allclose(code.dense(code.value_N, torch.empty(len(x), F)), sae.encode(x), atol=1e-6)
    assert torch.allclose(sae.encode(x), ((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu(), atol=1e-5)


def test_other_activation_functions_are_refused(tmp_path: Path) -> None:
    plain(tmp_path / "p", activation_fn="tanh-relu")
    with pytest.raises(ConfigError, match="tanh-relu"):
        load_sae(tmp_path / "p")


@pytest.mark.parametrize("k", [None, 0, "many"])
def test_topk_without_a_k_is_damage(k: Any, tmp_path: Path) -> None:
    plain(tmp_path / "p", "topk", k=k)
    with pytest.raises(DamagedError, match="k"):
        load_sae(tmp_path / "p")


def test_a_leftover_scaling_factor_of_ones_means_nothing(tmp_path: Path) -> None:
    tensors = plain(tmp_path / "p")
    save_file({**tensors, "scaling_factor": torch.ones(F)}, tmp_path / "p" / WEIGHTS)
    load_sae(tmp_path / "p")
    save_file({**tensors, "scaling_factor": torch.full((F,), 2.0)}, tmp_path / "p" / WEIGHTS)
    with pytest.raises(MismatchError, match="scaling_factor"):
        load_sae(tmp_path / "p")


def test_a_bundle_moves_with_its_folder(tmp_path: Path) -> None:
    sae = random_sae()
    shutil.move(save_bundle(sae, tmp_path / "a"), tmp_path / "z")
    assert torch.equal(load_sae(tmp_path / "z").W_enc, sae.W_enc)
