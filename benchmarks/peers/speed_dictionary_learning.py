"""Speed worker of dictionary_learning; started by ``benchmarks/speed.py`` in the peers' environment.

A step is the trainer's ``update`` (forward, backward, projection, clipping, Adam, unit norm, dead counters) with the
library's defaults.
"""

import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer

from speed_worker import FROZEN_L0, Batches, NotOffered, Worker, cut_for_l0, rows_for_l0, serve

KINDS = {
    "topk": TopKTrainer,
    "batchtopk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
    "relu": StandardTrainer,
    "jumprelu": JumpReluTrainer,
    "gated": GatedSAETrainer,
}
STEPS = 100_000


class DictionaryLearningTrainer:
    """One cell."""

    def __init__(self, cell, rows_ND):
        architecture = cell["architecture"]
        fields = {
            "steps": STEPS,
            "activation_dim": rows_ND.shape[1],
            "dict_size": cell["features"],
            "layer": 0,
            "lm_name": "cached rows",
            "device": "cpu",
            "seed": 0,
        }
        if cell["k"]:
            fields["k"] = cell["k"]
        if architecture == "matryoshka":
            edges = [0, *cell["widths"]]
            fields["group_fractions"] = [(b - a) / cell["features"] for a, b in pairwise(edges)]
        if cell["start"] != "usual":
            fields["lr"] = 0.0
        self.trainer = KINDS[architecture](**fields)
        if cell["start"] != "usual":
            self.set_sparsity(cell, rows_ND)
        self.batches = Batches(rows_ND, cell["batch"])
        self.batch, self.steps = None, 0

    @torch.no_grad()
    def set_sparsity(self, cell, rows_ND):
        """Half of the features active (dense), or FROZEN_L0 of them (sparse)."""
        ae, sparse, x_BD = self.trainer.ae, cell["start"] == "sparse", rows_for_l0(rows_ND, cell["features"])
        if cell["architecture"] == "jumprelu":
            ae.threshold.fill_(cut_for_l0(x_BD @ ae.W_enc + ae.b_enc, FROZEN_L0) if sparse else 0.0)
        elif sparse:
            gated = cell["architecture"] == "gated"
            pre_BF = ae.encoder(x_BD - (ae.decoder_bias if gated else ae.bias))
            bias = ae.gate_bias if gated else ae.encoder.bias
            bias.sub_(cut_for_l0(pre_BF + bias if gated else pre_BF, FROZEN_L0))

    def prepare(self):
        self.batch = self.batches.next()

    def step(self):
        self.trainer.update(self.steps, self.batch)
        self.steps += 1

    @torch.no_grad()
    def describe(self):
        ae = self.trainer.ae
        threshold_rule = {"use_threshold": False} if hasattr(ae, "k") else {}
        f_BF = ae.encode(self.batch, **threshold_rule)
        return {"l0": float((f_BF > 0).sum()) / len(self.batch)}


def build(cell, rows_ND):
    if cell["architecture"] not in KINDS:
        raise NotOffered(f"dictionary_learning has no {cell['architecture']}")
    return DictionaryLearningTrainer(cell, rows_ND)


serve(Worker(build, {"dictionary-learning": version("dictionary-learning")}))
