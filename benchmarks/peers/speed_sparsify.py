"""Speed worker of eai-sparsify; started by ``benchmarks/speed.py`` in the peers' environment.

Its trainer runs the language model inside the loop, so a step here is the calls of ``Trainer.fit`` on one batch, in
their order: unit norm, variance, forward, firing mask, backward, projection, optimiser, schedule, dead counters.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sparsify
import torch
from schedulefree import ScheduleFreeWrapper
from sparsify.sign_sgd import SignSGD
from transformers import get_linear_schedule_with_warmup

from speed_worker import Batches, NotOffered, Worker, serve

STEPS = 100_000


class SparsifyTrainer:
    """One cell; ``variant`` is the optimiser: ``signum`` (its default) or ``adam``."""

    def __init__(self, cell, rows_ND):
        config = sparsify.SaeConfig(num_latents=cell["features"], k=cell["k"])
        self.sae = sparsify.SparseCoder(rows_ND.shape[1], config, "cpu", dtype=torch.float32)
        self.sae.b_dec.data = rows_ND[: cell["batch"]].mean(0)
        scale = (cell["features"] / 2**14) ** 0.5
        self.schedulers = []
        if cell["variant"] == "adam":
            self.optimizer = torch.optim.Adam([{"params": self.sae.parameters(), "lr": 2e-4 / scale}])
            self.schedulers = [get_linear_schedule_with_warmup(self.optimizer, 1000, STEPS)]
        else:
            groups = [{"params": self.sae.parameters(), "lr": 5e-3 / scale}]
            self.optimizer = ScheduleFreeWrapper(SignSGD(groups), momentum=0.95)
            self.optimizer.train()
        self.since_fired_F = torch.zeros(cell["features"], dtype=torch.long)
        self.fired_F = torch.zeros(cell["features"], dtype=torch.bool)
        self.batches = Batches(rows_ND, cell["batch"])
        self.batch = self.output = None

    def prepare(self):
        self.batch = self.batches.next()

    def step(self):
        x_BD, sae = self.batch, self.sae
        sae.set_decoder_norm_to_unit_norm()
        variance = (x_BD - x_BD.mean(0)).pow(2).sum()
        self.output = out = sae(x=x_BD, y=x_BD, dead_mask=None, total_variance=variance)
        self.fired_F[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + 0.0 * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        for scheduler in self.schedulers:
            scheduler.step()
        with torch.no_grad():
            self.since_fired_F += len(x_BD)
            self.since_fired_F[self.fired_F] = 0
            self.fired_F.zero_()

    def describe(self):
        return {"l0": float((self.output.latent_acts > 0).sum()) / len(self.batch)}


def build(cell, rows_ND):
    if cell["architecture"] != "topk":
        raise NotOffered("eai-sparsify has topk only")
    return SparsifyTrainer(cell, rows_ND)


serve(Worker(build, {"eai-sparsify": sparsify.__version__}))
