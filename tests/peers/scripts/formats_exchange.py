"""Run by the peers' own interpreter (see ``test_formats.py``); needs sae-lens, dictionary-learning, eai-sparsify and sae-dashboard.

    formats_exchange.py FOLDER

Reads  FOLDER/rows.safetensors                 ``x`` [B, D]
       FOLDER/ours/<format>/<name>/            what NeuronMap exported
Writes FOLDER/theirs/<format>/<name>/          files that the packages themselves wrote, or that are laid out as their loaders want
       FOLDER/answers/<format>-<name>.safetensors        what the package makes of its own file: encoded, decoded
       FOLDER/answers/ours-<format>-<name>.safetensors   what it makes of ours
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder
from sparsify.config import SparseCoderConfig

F, K = 48, 6
GENERATOR = torch.Generator().manual_seed(5)


def noise(*shape, scale=0.3):
    return scale * torch.randn(*shape, generator=GENERATOR)


def answer(folder, name, encoded, decoded):
    save_file(
        {"encoded": encoded.detach().float().contiguous(), "decoded": decoded.detach().float().contiguous()},
        folder / "answers" / f"{name}.safetensors",
    )


# --- dictionary_learning ---------------------------------------------------------------------------------------------


@torch.no_grad()
def dictionary_learning(folder, x):
    d = x.shape[1]
    made = {
        "AutoEncoder": AutoEncoder(d, F),
        "AutoEncoderNew": AutoEncoderNew(d, F),
        "GatedAutoEncoder": GatedAutoEncoder(d, F),
        "AutoEncoderTopK": AutoEncoderTopK(d, F, K),
        "BatchTopKSAE": BatchTopKSAE(d, F, K),
        "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(d, F, K, [8, 16, 24]),
        "JumpReluAutoEncoder": JumpReluAutoEncoder(d, F),
    }
    for name, sae in made.items():
        for parameter in sae.parameters():
            parameter.add_(noise(*parameter.shape))
        if name == "JumpReluAutoEncoder":
            sae.threshold.abs_()
        elif hasattr(sae, "threshold"):
            sae.threshold.fill_(0.4)
        place = folder / "theirs" / "dictionary_learning" / name
        place.mkdir(parents=True)
        torch.save({key: value.cpu() for key, value in sae.state_dict().items()}, place / "ae.pt")
        trainer = {"dict_class": name, "activation_dim": d, "dict_size": F, "k": K, "layer": 8, "lm_name": "openai-community/gpt2",
                   "submodule_name": "resid_post_layer_8", "seed": 3}  # fmt: skip
        config = {"trainer": trainer, "buffer": {"d_submodule": d, "io": "out", "ctx_len": 128}}
        (place / "config.json").write_text(json.dumps(config))
        again, _ = load_dictionary(str(place), "cpu")
        encoded = again.encode(x)
        decoded = again(x)
        if name == "AutoEncoderNew":
            decoded, encoded = again(x, output_features=True)
        answer(folder, f"dictionary_learning-{name}", encoded, decoded)
    for place in sorted((folder / "ours" / "dictionary_learning").iterdir()):
        again, _ = load_dictionary(str(place), "cpu")
        answer(folder, f"ours-dictionary_learning-{place.name}", again.encode(x), again(x))


# --- sparsify --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sparse_answer(folder, name, coder, x):
    found = coder.encode(x)
    encoded = torch.zeros(len(x), coder.num_latents).scatter_(1, found.top_indices, found.top_acts)
    answer(folder, name, encoded, coder(x).sae_out)


@torch.no_grad()
def sparsify(folder, x):
    d = x.shape[1]
    settings = {
        "sae": {"num_latents": F},
        "expansion": {"num_latents": 0, "expansion_factor": 2},
        "transcoder": {"num_latents": F, "transcode": True},
        "skip_transcoder": {"num_latents": F, "transcode": True, "skip_connection": True},
        "free_norm": {"num_latents": F, "normalize_decoder": False},
    }
    for name, options in settings.items():
        coder = SparseCoder(d, SparseCoderConfig(k=K, **options))
        for parameter in coder.parameters():
            parameter.add_(noise(*parameter.shape))
        run = folder / "theirs" / "sparsify" / name
        coder.save_to_disk(run / "layers.3.mlp")
        (run / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m", "sae": coder.cfg.to_dict()}))
        sparse_answer(folder, f"sparsify-{name}", SparseCoder.load_from_disk(run / "layers.3.mlp"), x)
    for place in sorted((folder / "ours" / "sparsify").iterdir()):
        inner = next(path for path in place.iterdir() if path.is_dir())
        sparse_answer(folder, f"ours-sparsify-{place.name}", SparseCoder.load_from_disk(inner), x)


# --- by way of SAELens' loaders --------------------------------------------------------------------------------------


def build(config, tensors):
    cls, config_cls = get_sae_class(config["architecture"])
    sae = cls(config_cls.from_dict(config))
    sae.process_state_dict_for_loading(tensors)
    sae.load_state_dict(tensors)
    return sae


@torch.no_grad()
def saelens_answer(folder, name, loaded, x):
    config, tensors = loaded[:2]
    sae = build(loaders.handle_config_defaulting(config), {key: value.contiguous() for key, value in tensors.items()})
    encoded = sae.encode(x)
    answer(folder, name, encoded, sae(x))


def local_hub(root):
    """Make SAELens' loaders take files from a folder in place of the hub."""

    def download(repo_id, filename, subfolder=None, **_):
        path = root / repo_id / (subfolder or "") / filename
        if not path.exists():
            raise loaders.EntryNotFoundError("no such file", response=None)
        return str(path)

    def shapes(repo_id, filename):
        with safe_open(root / repo_id / filename, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    loaders.hf_hub_download = download
    loaders.get_safetensors_tensor_shapes = shapes


@torch.no_grad()
def scopes(folder, x):
    d, root = x.shape[1], folder / "theirs" / "hub"
    local_hub(root)

    def jumprelu(prefix="W"):
        return {f"{prefix}_enc": noise(d, F), f"{prefix}_dec": noise(F, d), "b_enc": noise(F), "b_dec": noise(d),
                "threshold": noise(F).abs()}  # fmt: skip

    for name, repo, inside in (
        ("gemma_scope-res", "google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_71"),
        ("gemma_scope-embedding", "google/gemma-scope-2b-pt-res", "embedding/width_4k/average_l0_6"),
        ("gemma_scope-transcoders", "google/gemma-scope-2b-pt-transcoders", "layer_3/width_16k/average_l0_20"),
    ):
        place = root / repo / inside
        place.mkdir(parents=True)
        np.savez(place / "params.npz", **{key: value.numpy() for key, value in jumprelu().items()})
        load = (
            loaders.gemma_2_transcoder_huggingface_loader
            if "transcoders" in repo
            else loaders.gemma_2_sae_huggingface_loader
        )
        sizes = {"d_in": d, "d_sae": F} | ({"d_out": d} if "transcoders" in repo else {})
        saelens_answer(folder, name, load(repo, inside, cfg_overrides=sizes), x)

    repo = "google/gemma-scope-2-1b-pt"
    for name, inside, extra in (
        ("gemma_scope_2-res", "resid_post/layer_7_width_16k_l0_medium", {}),
        (
            "gemma_scope_2-transcoder",
            "transcoder_all/layer_7_width_16k_l0_small_affine",
            {"affine_skip_connection": noise(d, d)},
        ),
    ):
        place = root / repo / inside
        place.mkdir(parents=True)
        save_file({**jumprelu("w"), **extra}, place / "params.safetensors")
        transcoder = bool(extra)
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "affine_connection": transcoder,
                  "hf_hook_point_in": "model.layers.7.output"}  # fmt: skip
        if transcoder:
            config |= {"hf_hook_point_in": "model.layers.7.pre_feedforward_layernorm.output",
                       "hf_hook_point_out": "model.layers.7.post_feedforward_layernorm.output"}  # fmt: skip
        (place / "config.json").write_text(json.dumps(config))
        saelens_answer(folder, name, loaders.gemma_3_sae_huggingface_loader(repo, inside), x)

    repo = "mwhanna/qwen3-0.6b-transcoders"
    place = root / repo
    place.mkdir(parents=True)
    for layer in range(2):
        save_file({"W_enc": noise(F, d), "W_dec": noise(F, d), "b_enc": noise(F), "b_dec": noise(d)},
                  place / f"layer_{layer}.safetensors")  # fmt: skip
    config = {"model_kind": "transcoder_set", "model_name": "Qwen/Qwen3-0.6B", "feature_input_hook": "mlp.hook_in",
              "feature_output_hook": "mlp.hook_out", "scan": "qwen3"}  # fmt: skip
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    values = {key: {"value": value} for key, value in {"d_model": d, "d_feature": F, "batch_size": 64}.items()}
    (place / "wandb-config.yaml").write_text(yaml.safe_dump(values))
    saelens_answer(
        folder, "circuit_tracer-layer_1", loaders.mwhanna_transcoder_huggingface_loader(repo, "layer_1.safetensors"), x
    )


@torch.no_grad()
def saelens(folder, x):
    d = x.shape[1]
    for name in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"):
        cls, config_cls = get_sae_class(name)
        sae = cls(config_cls(d_in=d, d_sae=F, d_out=d, apply_b_dec_to_input=False))
        for parameter in sae.parameters():
            parameter.add_(noise(*parameter.shape))
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
        sae.cfg.metadata.model_name = "gpt2-small"
        sae.cfg.metadata.hook_name = "blocks.8.hook_mlp_in"
        sae.cfg.metadata.hook_name_out = "blocks.8.hook_mlp_out"
        sae.save_model(folder / "theirs" / "saelens" / name)
        answer(folder, f"saelens-{name}", sae.encode(x), sae(x))
    for place in sorted((folder / "ours" / "saelens").iterdir()):
        sae = SAE.load_from_disk(place)
        answer(folder, f"ours-saelens-{place.name}", sae.encode(x), sae(x))


def dashboards(folder):
    activation = {"bin_min": -1, "bin_max": 2.5, "bin_contains": -1, "tokens": ["a", " b"], "values": [0.0, 2.5],
                  "qualifying_token_index": 1}  # fmt: skip
    feature = {"feature_index": 7, "frac_nonzero": 0.25, "pos_str": [" x"], "pos_values": [1.5], "neg_str": [" y"],
               "neg_values": [-1.0], "activations": [activation]}  # fmt: skip
    batch = NeuronpediaDashboardBatch(model_id="gpt2-small", layer=8, sae_set="res-jb", features=[feature])
    place = folder / "theirs" / "sae_dashboard"
    place.mkdir(parents=True)
    (place / "batch-0.json").write_text(json.dumps(batch.to_dict()))
    (place / "skipped_indexes.json").write_text(
        json.dumps({"model_id": "gpt2-small", "layer": "8", "skipped_indexes": []})
    )


def main(folder):
    x = load_file(folder / "rows.safetensors")["x"]
    torch.manual_seed(0)
    (folder / "answers").mkdir()
    dictionary_learning(folder, x)
    sparsify(folder, x)
    saelens(folder, x)
    scopes(folder, x)
    dashboards(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
