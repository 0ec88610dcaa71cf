"""Run by the peers' own interpreter (see ``test_saelens.py``); needs sae-lens, knows nothing of NeuronMap.

    saelens_exchange.py FOLDER

Reads  FOLDER/ours/<name>/      bundles that NeuronMap wrote, and FOLDER/rows.safetensors (``x`` [B, D])
Writes FOLDER/ours-read/<name>.safetensors   encode and decode as SAELens computes them
       FOLDER/ours-read/<name>.json          architecture and metadata as SAELens sees them
       FOLDER/ours-again/<name>/             the bundle as SAELens saves it again
       FOLDER/theirs/<name>/                 SAEs that SAELens made, with FOLDER/theirs/<name>.safetensors as above
"""

import json
import sys
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
from safetensors.torch import load_file, save_file

SAVED = {
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig, {}),
    "standard-b_dec-not-subtracted": (StandardTrainingSAE, StandardTrainingSAEConfig, {"apply_b_dec_to_input": False}),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig, {}),
    "gated-b_dec-not-subtracted": (GatedTrainingSAE, GatedTrainingSAEConfig, {"apply_b_dec_to_input": False}),
    "topk-rescaled": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": 6, "rescale_acts_by_decoder_norm": True}),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": 6, "rescale_acts_by_decoder_norm": False}),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": 6}),
    "batchtopk-not-rescaled": (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        {"k": 6, "rescale_acts_by_decoder_norm": False},
    ),
    "matryoshka_batchtopk": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": 6, "matryoshka_widths": [16, 32]},
    ),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, {}),
}


@torch.no_grad()
def write_answers(sae, x, file):
    features = sae.encode(x)
    save_file({"encoded": features.contiguous(), "decoded": sae.decode(features).contiguous()}, file)


def read_ours(folder, x):
    (folder / "ours-read").mkdir()
    for bundle in sorted((folder / "ours").iterdir()):
        sae = SAE.load_from_disk(bundle)
        write_answers(sae, x, folder / "ours-read" / f"{bundle.name}.safetensors")
        seen = {"architecture": sae.cfg.architecture(), "metadata": sae.cfg.metadata.to_dict()}
        (folder / "ours-read" / f"{bundle.name}.json").write_text(json.dumps(seen))
        sae.save_model(folder / "ours-again" / bundle.name)


@torch.no_grad()
def write_theirs(folder, x, d_sae):
    generator = torch.Generator().manual_seed(11)
    for name, (cls, config, options) in SAVED.items():
        sae = cls(config(d_in=x.shape[1], d_sae=d_sae, **options))
        for parameter in sae.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.4)
        if "threshold" in dict(sae.named_parameters()):
            sae.threshold.abs_()
        sae.cfg.metadata.model_name = "gpt2"
        sae.cfg.metadata.hook_name = "blocks.8.hook_resid_pre"
        sae.save_inference_model(folder / "theirs" / name)
        # What SAELens' users get back, which is not always the training rule (batchtopk is saved as jumprelu).
        write_answers(SAE.load_from_disk(folder / "theirs" / name), x, folder / "theirs" / f"{name}.safetensors")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rows = load_file(folder / "rows.safetensors")["x"]
    read_ours(folder, rows)
    write_theirs(folder, rows, 48)
