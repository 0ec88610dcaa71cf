"""Trains one SAE with SAELens on exported rows; run by ``benchmarks/quality.py`` in the peers' environment.

Usage: ``python train_saelens.py job.json``. The job names the rows (``.npy``, raw activations), the order of the
batches, the architecture and every setting; see ``benchmarks/quality_cells.py`` for where each comes from. Writes
``weights.safetensors`` (the inference form that SAELens itself saves, for raw activations), ``check.safetensors``
(what SAELens' own reloaded SAE makes of some held-out rows) and ``result.json``.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import sae_lens
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from safetensors.torch import load_file, save_file

RULES = {"topk": "topk", "batchtopk": "jumprelu", "matryoshka": "jumprelu", "jumprelu": "jumprelu", "relu": "relu"}


def build(job):
    """The training SAE; ``job["knob"]`` is what sets the sparsity of relu and jumprelu."""
    common = {
        "d_in": job["d_in"],
        "d_sae": job["d_sae"],
        "normalize_activations": "expected_average_only_in",
        "device": job["device"],
    }
    settings = job["settings"]
    if job["architecture"] == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(k=job["k"], **common))
    if job["architecture"] == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=job["k"], **common))
    if job["architecture"] == "matryoshka":
        widths = settings["level_widths"]
        return MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(k=job["k"], matryoshka_widths=widths, **common)
        )
    if job["architecture"] == "relu":
        config = StandardTrainingSAEConfig(
            l1_coefficient=job["knob"], l1_warm_up_steps=settings["sparsity_warmup_steps"], **common
        )
        return StandardTrainingSAE(config)
    config = JumpReLUTrainingSAEConfig(
        l0_coefficient=job["knob"], l0_warm_up_steps=settings["sparsity_warmup_steps"], **settings["jumprelu"], **common
    )
    return JumpReLUTrainingSAE(config)


def batches(job):
    """Batches for the estimate of the input scale first, then the training batches in the given order, for ever."""
    rows = np.load(job["rows"], mmap_mode="r")
    order = np.load(job["order"], mmap_mode="r")
    for step in range(job["settings"]["norm_batches"]):
        yield torch.from_numpy(rows[np.sort(order[step % len(order)])])
    while True:
        for indices in order:
            yield torch.from_numpy(rows[indices])


class Reporting(SAETrainer):
    """Says now and then how far it is."""

    def step(self, batch):
        output = super().step(batch)
        if self.n_training_steps % 50 == 0:
            print(f"  step {self.n_training_steps} loss {float(output.loss):.4g}", file=sys.stderr, flush=True)
        return output


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    settings, folder = job["settings"], Path(job["output"])
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])  # SAELens seeds nothing itself
    sae = build(job)
    config = SAETrainerConfig(
        total_training_samples=job["steps"] * job["batch_rows"],
        train_batch_size_samples=job["batch_rows"],
        lr=settings["learning_rate"],
        lr_end=settings["learning_rate"] / 10,  # not used by the constant schedule, but None is refused
        lr_scheduler_name="constant",
        lr_warm_up_steps=settings["warmup_steps"],
        lr_decay_steps=settings["decay_steps"],
        dead_feature_window=settings["dead_window_steps"],
        n_batches_for_norm_estimate=settings["norm_batches"],
        device=job["device"],
    )
    sae.to(job["device"])
    started = time.perf_counter()
    Reporting(cfg=config, sae=sae, data_provider=batches(job)).fit()
    seconds = time.perf_counter() - started
    sae.save_inference_model(str(folder / "saved"))
    tensors = load_file(folder / "saved" / "sae_weights.safetensors")
    saved = json.loads((folder / "saved" / "cfg.json").read_text())
    if saved["normalize_activations"] != "none":
        raise SystemExit(f"SAELens did not fold the input scale: {saved['normalize_activations']}")
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, folder / "weights.safetensors")
    reloaded = SAE.load_from_disk(str(folder / "saved"))
    probe = torch.from_numpy(np.load(job["heldout"], mmap_mode="r")[: job["check_rows"]])
    with torch.no_grad():
        reconstruction = reloaded.decode(reloaded.encode(probe))
    save_file({"reconstruction": reconstruction.contiguous()}, folder / "check.safetensors")
    result = {
        "rule": RULES[job["architecture"]],
        "k": job["k"],
        "subtract_b_dec": bool(saved["apply_b_dec_to_input"]),
        "seconds": seconds,
        "versions": {"sae_lens": sae_lens.__version__, "torch": torch.__version__},
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2))


main()
