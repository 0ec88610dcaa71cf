"""Speed worker of SAELens; started by ``benchmarks/speed.py`` in the peers' environment.

A step is the body of ``SAETrainer.fit``'s loop without progress bar and logging: sparsity window, ``step`` (forward,
firing statistics, backward, clipping, Adam, schedules). Library defaults; activations are not rescaled.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sae_lens
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    SAETrainer,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)

from speed_worker import FROZEN_L0, Batches, NotOffered, Worker, cut_for_l0, rows_for_l0, serve

KINDS = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "matryoshka": (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
    "relu": (StandardTrainingSAE, StandardTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig),
}
STEPS = 100_000


class SAELensTrainer:
    """One cell."""

    def __init__(self, cell, rows_ND):
        kind, settings = KINDS[cell["architecture"]]
        fields = {"d_in": rows_ND.shape[1], "d_sae": cell["features"], "normalize_activations": "none"}
        if cell["k"]:
            fields["k"] = cell["k"]
        if cell["architecture"] == "matryoshka":
            fields["matryoshka_widths"] = cell["widths"]
        sae = kind(settings(**fields))
        frozen = cell["start"] != "usual"
        if frozen:
            self.set_sparsity(sae, cell, rows_ND)
        config = SAETrainerConfig(
            total_training_samples=STEPS * cell["batch"],
            train_batch_size_samples=cell["batch"],
            lr=0.0 if frozen else 3e-4,
            lr_end=0.0 if frozen else 3e-5,
            device="cpu",
        )
        self.batches = Batches(rows_ND, cell["batch"])
        self.trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))
        self.batch = self.output = None

    @torch.no_grad()
    def set_sparsity(self, sae, cell, rows_ND):
        """Half of the features active (dense), or FROZEN_L0 of them (sparse)."""
        x_BD = rows_for_l0(rows_ND, cell["features"])
        pre_BF = (x_BD - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc
        cut = cut_for_l0(pre_BF, FROZEN_L0) if cell["start"] == "sparse" else 0.0
        if cell["architecture"] == "jumprelu":
            sae.threshold.fill_(cut)
        elif cell["architecture"] == "gated":
            sae.b_gate.sub_(cut)
        else:
            sae.b_enc.sub_(cut)

    def prepare(self):
        self.batch = self.batches.next()

    def step(self):
        self.trainer.maybe_reset_sparsity()
        self.output = self.trainer.step(self.batch)
        self.trainer.n_training_steps += 1

    def describe(self):
        return {"l0": float((self.output.feature_acts > 0).sum()) / len(self.batch)}


def build(cell, rows_ND):
    if cell["architecture"] not in KINDS:
        raise NotOffered(f"SAELens has no {cell['architecture']}")
    return SAELensTrainer(cell, rows_ND)


serve(Worker(build, {"sae-lens": sae_lens.__version__}))
