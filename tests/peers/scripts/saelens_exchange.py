"""Run by the peers' own interpreter (see ``test_saelens.py``); needs sae-lens, knows nothing of NeuronMap.

    saelens_exchange.py FOLDER

Reads  FOLDER/ours/<name>/      bundles that NeuronMap wrote, and FOLDER/rows.safetensors (``x`` [B, D])
       FOLDER/ours-only/<name>/ bundles of architectures that SAELens does not have
Writes FOLDER/ours-read/<name>.safetensors   encode, decode and forward as SAELens computes them
       FOLDER/ours-read/<name>.json          architecture and metadata as SAELens sees them
       FOLDER/ours-again/<name>/             the bundle as SAELens saves it again
       FOLDER/ours-only.json                 what SAELens says of each
       FOLDER/theirs/<name>/                 SAEs that SAELens made, with FOLDER/theirs/<name>.safetensors as above
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.abstopk_sae import AbsTopKTrainingSAE, AbsTopKTrainingSAEConfig
from sae_lens.saes.matching_pursuit_sae import MatchingPursuitTrainingSAE, MatchingPursuitTrainingSAEConfig
from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig
from sae_lens.saes.transcoder import (
    JumpReLUSkipTranscoder,
    JumpReLUSkipTranscoderConfig,
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
    SkipTranscoder,
    SkipTranscoderConfig,
    Transcoder,
    TranscoderConfig,
)
from safetensors.torch import load_file, save_file

STANDARD = (StandardTrainingSAE, StandardTrainingSAEConfig)
GATED = (GatedTrainingSAE, GatedTrainingSAEConfig)
TOPK = (TopKTrainingSAE, TopKTrainingSAEConfig)
BATCHTOPK = (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig)
MATRYOSHKA = (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig)
JUMPRELU = (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig)
ABSTOPK = (AbsTopKTrainingSAE, AbsTopKTrainingSAEConfig)
PURSUIT = (MatchingPursuitTrainingSAE, MatchingPursuitTrainingSAEConfig)
TEMPORAL = (TemporalSAE, TemporalSAEConfig)

OUTPUT = {"d_out": 20, "apply_b_dec_to_input": False}
ATTENTION = {"n_heads": 2, "bottleneck_factor": 4, "kval_topk": 5}
UNCENTRED = {"apply_b_dec_to_input": False}
LAYER_NORM = {"normalize_activations": "layer_norm"}
RESCALED = {"normalize_activations": "constant_norm_rescale"}

SAVED = {
    "standard": (*STANDARD, {}),
    "standard-b_dec-not-subtracted": (*STANDARD, UNCENTRED),
    "gated": (*GATED, {}),
    "gated-b_dec-not-subtracted": (*GATED, UNCENTRED),
    "topk-rescaled": (*TOPK, {"k": 6, "rescale_acts_by_decoder_norm": True}),
    "topk": (*TOPK, {"k": 6, "rescale_acts_by_decoder_norm": False}),
    "batchtopk": (*BATCHTOPK, {"k": 6}),
    "batchtopk-not-rescaled": (*BATCHTOPK, {"k": 6, "rescale_acts_by_decoder_norm": False}),
    "matryoshka_batchtopk": (*MATRYOSHKA, {"k": 6, "matryoshka_widths": [16, 32]}),
    "jumprelu": (*JUMPRELU, {}),
    # normalised at run time
    "standard-layer_norm": (*STANDARD, LAYER_NORM),
    "standard-layer_norm-b_dec-not-subtracted": (*STANDARD, {**LAYER_NORM, **UNCENTRED}),
    "standard-constant_norm_rescale": (*STANDARD, RESCALED),
    "standard-expected_average": (*STANDARD, {"normalize_activations": "expected_average_only_in"}),
    "topk-layer_norm": (*TOPK, {"k": 6, **LAYER_NORM}),
    "gated-layer_norm": (*GATED, LAYER_NORM),
    "jumprelu-constant_norm_rescale": (*JUMPRELU, RESCALED),
    # other precisions
    "standard-bfloat16": (*STANDARD, {"dtype": "bfloat16"}),
    "jumprelu-float16": (*JUMPRELU, {"dtype": "float16"}),
    "topk-float64": (*TOPK, {"k": 6, "dtype": "float64"}),
    # not trained by NeuronMap
    "transcoder": (Transcoder, TranscoderConfig, OUTPUT),
    "transcoder-layer_norm": (Transcoder, TranscoderConfig, {**OUTPUT, **LAYER_NORM}),
    "skip_transcoder": (SkipTranscoder, SkipTranscoderConfig, OUTPUT),
    "skip_transcoder-layer_norm": (SkipTranscoder, SkipTranscoderConfig, {**OUTPUT, **LAYER_NORM}),
    "jumprelu_transcoder": (JumpReLUTranscoder, JumpReLUTranscoderConfig, OUTPUT),
    "jumprelu_skip_transcoder": (JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig, OUTPUT),
    "abstopk": (*ABSTOPK, {"k": 6, "rescale_acts_by_decoder_norm": False}),
    "abstopk-rescaled": (*ABSTOPK, {"k": 6, "rescale_acts_by_decoder_norm": True}),
    "abstopk-b_dec-not-subtracted": (*ABSTOPK, {"k": 6, **UNCENTRED}),
    "matching_pursuit": (*PURSUIT, {"residual_threshold": 0.5}),
    "matching_pursuit-all-iterations": (*PURSUIT, {"residual_threshold": 0.0, "stop_on_duplicate_support": False,
                                                   "max_iterations": 5}),
    "matching_pursuit-b_dec-not-subtracted": (*PURSUIT, {"max_iterations": 7, **UNCENTRED}),
    "temporal": (*TEMPORAL, ATTENTION),
    "temporal-two-layers": (*TEMPORAL, {**ATTENTION, "n_attn_layers": 2}),
    "temporal-untied": (*TEMPORAL, {**ATTENTION, "tied_weights": False}),
    "temporal-untied-b_dec-not-subtracted": (*TEMPORAL, {**ATTENTION, "tied_weights": False, **UNCENTRED}),
    "temporal-b_dec-not-subtracted": (*TEMPORAL, {**ATTENTION, **UNCENTRED}),
    "temporal-relu": (*TEMPORAL, {**ATTENTION, "sae_diff_type": "relu"}),
    "temporal-layer_norm": (*TEMPORAL, {**ATTENTION, **LAYER_NORM}),
    "temporal-scaled": (*TEMPORAL, {**ATTENTION, "normalize_activations": "constant_scalar_rescale",
                                    "activation_normalization_factor": 0.4}),
    # heads come apart in TransformerLens
    "standard-hook_z": (*STANDARD, {"reshape_activations": "hook_z"}),
}  # fmt: skip


@torch.no_grad()
def write_answers(sae, x, file):
    if sae.cfg.architecture() == "temporal":
        x = x.reshape(8, -1, x.shape[1])
    if sae.cfg.reshape_activations == "hook_z":
        x = x.reshape(len(x), 4, -1)
    features = sae.encode(x)
    answers = {"encoded": features, "decoded": sae.decode(features).flatten(features.ndim - 1)}
    answers["forward"] = sae(x).flatten(features.ndim - 1)
    save_file({name: tensor.contiguous() for name, tensor in answers.items()}, file)


def read_ours(folder, x):
    (folder / "ours-read").mkdir()
    for bundle in sorted((folder / "ours").iterdir()):
        sae = SAE.load_from_disk(bundle)
        write_answers(sae, x, folder / "ours-read" / f"{bundle.name}.safetensors")
        seen = {"architecture": sae.cfg.architecture(), "metadata": sae.cfg.metadata.to_dict()}
        (folder / "ours-read" / f"{bundle.name}.json").write_text(json.dumps(seen))
        sae.save_model(folder / "ours-again" / bundle.name)
    said = {}
    for bundle in sorted((folder / "ours-only").iterdir()):
        try:
            said[bundle.name] = f"opened as {type(SAE.load_from_disk(bundle)).__name__}"
        except (KeyError, ValueError) as error:
            said[bundle.name] = repr(error)
    (folder / "ours-only.json").write_text(json.dumps(said))


@torch.no_grad()
def write_theirs(folder, x, d_sae):
    generator = torch.Generator().manual_seed(11)
    for name, (cls, config, options) in SAVED.items():
        hook = "blocks.8.attn.hook_z" if "hook_z" in name else "blocks.8.hook_resid_pre"
        with warnings.catch_warnings():  # of its own defaults
            warnings.simplefilter("ignore")
            sae = cls(config(d_in=x.shape[1], d_sae=d_sae, **options))
        for parameter in sae.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.4)
        if "threshold" in dict(sae.named_parameters()):
            sae.threshold.abs_()
        sae.cfg.metadata.model_name = "gpt2"
        sae.cfg.metadata.hook_name = hook
        if "transcoder" in name:
            sae.cfg.metadata.hook_name_out = "blocks.8.hook_mlp_out"
        finished = folder / "theirs" / name
        (sae.save_inference_model if hasattr(sae, "save_inference_model") else sae.save_model)(finished)
        # What SAELens' users get back, which is not always the training rule (batchtopk is saved as jumprelu).
        answers = folder / "theirs" / f"{name}.safetensors"
        write_answers(SAE.load_from_disk(finished, dtype="float32"), x, answers)
        if name in (
            "batchtopk",
            "batchtopk-not-rescaled",
            "matryoshka_batchtopk",
        ):  # its checkpoints SAELens cannot open
            sae.save_model(folder / "theirs" / f"{name}-checkpoint")
            save_file(load_file(answers), folder / "theirs" / f"{name}-checkpoint.safetensors")


def write_old(folder, x):
    """Folders as SAELens wrote them before version 6, which SAELens 6 still opens."""
    for name, source, changes, tensors in (
        ("old-standard", "standard", {"activation_fn_str": "relu"}, {"scaling_factor": torch.ones(48)}),
        ("old-topk", "topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}}, {}),
        ("old-boolean-norm", "standard", {"normalize_activations": True}, {}),
        ("old-norm-is-null", "standard", {"normalize_activations": None}, {}),
        ("old-layer_norm", "standard-layer_norm", {"normalize_activations": "layer_norm"}, {}),
        ("old-jumprelu", "jumprelu", {"architecture": "jumprelu"}, {}),
    ):
        old = folder / "theirs" / name
        old.mkdir()
        config = {"d_in": x.shape[1], "d_sae": 48, "dtype": "torch.float32", "device": "cpu", "model_name": "gpt2"}
        config |= {"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "hook_point_head_index": None}
        config |= {"normalize_activations": False, "finetuning_scaling_factor": False, **changes}
        (old / "cfg.json").write_text(json.dumps(config))
        weights = load_file(folder / "theirs" / source / "sae_weights.safetensors")
        save_file({**weights, **tensors}, old / "sae_weights.safetensors")
        write_answers(SAE.load_from_disk(old), x, folder / "theirs" / f"{name}.safetensors")


def write_logarithms(folder, x):
    """A checkpoint from when JumpReLU thresholds were trained as logarithms; SAELens opens it for training."""
    source, old = folder / "theirs" / "jumprelu", folder / "theirs" / "jumprelu-log_threshold"
    old.mkdir()
    (old / "cfg.json").write_text((source / "cfg.json").read_text())
    weights = load_file(source / "sae_weights.safetensors")
    weights["log_threshold"] = weights.pop("threshold").log()
    save_file(weights, old / "sae_weights.safetensors")
    write_answers(JumpReLUTrainingSAE.load_from_disk(old), x, folder / "theirs" / f"{old.name}.safetensors")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rows = load_file(folder / "rows.safetensors")["x"]
    read_ours(folder, rows)
    write_theirs(folder, rows, 48)
    write_old(folder, rows)
    write_logarithms(folder, rows)
