"""Trains one SAE with dictionary_learning on exported rows; run by ``benchmarks/quality.py`` in the peers' environment.

Usage: ``python train_dictionary_learning.py job.json``. The loop is the body of the library's own ``trainSAE`` with
``normalize_activations=True`` (rows divided by the root of their mean square norm, biases scaled back at the end),
without its files, which are pickles. Writes the same three files as ``train_saelens.py``.
"""

import itertools
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from safetensors.torch import save_file

RULES = {"topk": "topk", "batchtopk": "jumprelu", "matryoshka": "jumprelu", "jumprelu": "jumprelu", "relu": "relu"}
WITH_MATRICES = ("jumprelu", "matryoshka")  # whose weights are matrices and not layers


def build(job):
    """The trainer; ``job["knob"]`` is what sets the sparsity of relu (L1 penalty) and jumprelu (target L0)."""
    settings = job["settings"]
    common = {
        "steps": job["steps"],
        "activation_dim": job["d_in"],
        "dict_size": job["d_sae"],
        "layer": 0,
        "lm_name": "exported rows",
        "lr": settings["learning_rate"],
        "warmup_steps": settings["warmup_steps"],
        "decay_start": job["steps"] - settings["decay_steps"],
        "seed": job["seed"],
        "device": job["device"],
    }
    if job["architecture"] in ("topk", "batchtopk"):
        kind = TopKTrainer if job["architecture"] == "topk" else BatchTopKTrainer
        trainer = kind(k=job["k"], threshold_start_step=settings["threshold_start_step"], **common)
    elif job["architecture"] == "matryoshka":
        widths = [0, *settings["level_widths"]]
        shares = [(last - first) / job["d_sae"] for first, last in itertools.pairwise(widths)]
        trainer = MatryoshkaBatchTopKTrainer(
            k=job["k"], group_fractions=shares, threshold_start_step=settings["threshold_start_step"], **common
        )
    elif job["architecture"] == "relu":
        trainer = StandardTrainer(
            l1_penalty=job["knob"], sparsity_warmup_steps=settings["sparsity_warmup_steps"], **common
        )
    else:
        trainer = JumpReluTrainer(
            target_l0=job["knob"],
            sparsity_warmup_steps=settings["sparsity_warmup_steps"],
            **settings["jumprelu"],
            **common,
        )
    trainer.dead_feature_threshold = settings["dead_after_tokens"]
    return trainer


def weights(ae, architecture):
    """Tensors under one set of names, [D, F] encoder and [F, D] decoder."""
    if architecture in WITH_MATRICES:
        named = {"W_enc": ae.W_enc, "b_enc": ae.b_enc, "W_dec": ae.W_dec, "b_dec": ae.b_dec}
    else:
        b_dec = ae.bias if architecture == "relu" else ae.b_dec
        named = {"W_enc": ae.encoder.weight.T, "b_enc": ae.encoder.bias, "W_dec": ae.decoder.weight.T, "b_dec": b_dec}
    if architecture in ("batchtopk", "matryoshka", "jumprelu"):
        named["threshold"] = ae.threshold.expand(ae.dict_size)
    return {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in named.items()}


def main():
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["output"])
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])  # JumpReluTrainer takes a seed and does not use it
    trainer = build(job)
    rows = np.load(job["rows"], mmap_mode="r")
    order = np.load(job["order"], mmap_mode="r")
    norm_factor = job["root_mean_square_norm"]
    trainer.ae.scale_biases(1.0)
    trainer.ae.to(job["device"])
    started = time.perf_counter()
    for step, indices in enumerate(order[: job["steps"]]):
        loss = trainer.update(step, torch.from_numpy(rows[indices]) / norm_factor)
        if step % 50 == 0:
            print(f"  step {step} loss {loss if loss is not None else float('nan'):.4g}", file=sys.stderr, flush=True)
    trainer.ae.scale_biases(norm_factor)
    seconds = time.perf_counter() - started
    save_file(weights(trainer.ae, job["architecture"]), folder / "weights.safetensors")
    probe = torch.from_numpy(np.load(job["heldout"], mmap_mode="r")[: job["check_rows"]])
    with torch.no_grad():
        reconstruction = trainer.ae(probe.to(job["device"]))
    save_file({"reconstruction": reconstruction.cpu().contiguous()}, folder / "check.safetensors")
    result = {
        "rule": RULES[job["architecture"]],
        "k": job["k"],
        "subtract_b_dec": job["architecture"] != "jumprelu",
        "seconds": seconds,
        "versions": {"dictionary_learning": version("dictionary-learning"), "torch": torch.__version__},
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2))


main()
