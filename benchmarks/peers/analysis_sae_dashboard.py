"""Analysis worker of SAEDashboard; started by ``benchmarks/analysis.py`` in the peers' environment.

A step is one feature batch, as its own ``SaeVisRunner.run`` does it from beginning to end: encoding all tokens, correlations,
quantiles, logits, histograms, tables, sequences. Three things are put in its place: activations are handed over in memory (its
model forward and its file cache cost nothing), the model is an object with the unembedding matrix only, and
``fold_W_dec_norm``, which it refuses for top-k SAEs, does nothing: the decoder's rows have unit norm (checked).

``defaults`` are those of ``SaeVisConfig``; ``neuronpedia`` are those of its Neuronpedia runner.

Shapes: C contexts of T tokens, N = C * T, D = width, F = features, V = vocabulary.
"""

import inspect
import os
import random
import sys
import time
import types
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import einops
import numpy as np
import sae_dashboard
import sae_lens
import torch
from sae_dashboard import sae_vis_runner
from sae_dashboard.components import LogitsHistogramData
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.feature_data_generator import FeatureDataGenerator
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sequence_data_generator import SequenceDataGenerator
from sae_dashboard.utils_fns import FeatureStatistics
from transformer_lens.hook_points import HookPoint

from analysis_worker import AnalysisWorker
from speed_worker import serve

HOOK = "blocks.8.hook_resid_post"


class Unembedding:
    """What is left of the language model."""

    def __init__(self, W_U_DV):
        self.W_U = W_U_DV
        self.hook_dict = {HOOK: HookPoint()}
        self.cfg = types.SimpleNamespace(d_vocab=W_U_DV.shape[1], n_heads=9)


class Dashboard:
    """One analysis, feature batch by feature batch, in a random order of batches."""

    def __init__(self, cell, rows_ND):
        inputs = Path(cell["inputs"])
        contexts, context = cell["contexts"], cell["context"]
        self.rows_CTD = rows_ND[: contexts * context].view(contexts, context, -1)
        self.tokens_CT = torch.from_numpy(np.load(inputs / "tokens.npy")[:contexts].astype(np.int64))
        self.sae = sae_lens.SAE.load_from_disk(str(inputs / "saes" / cell["sae"]), device="cpu")
        norms_F = self.sae.W_dec.norm(dim=-1)
        if not torch.allclose(norms_F, torch.ones_like(norms_F), atol=1e-3):
            raise ValueError("decoder rows are not of unit norm")
        self.sae.fold_W_dec_norm = lambda: None
        self.model = Unembedding(torch.from_numpy(np.load(inputs / "unembedding.npy")))
        self.variant, self.features = cell["variant"], cell["features"]
        self.at_a_time = self.config([0]).minibatch_size_features
        starts = list(range(0, self.features, self.at_a_time))
        random.Random(0).shuffle(starts)
        self.starts, self.done = starts, 0
        self.found, self.data, self.now = {}, None, None

    def config(self, features):
        """Its settings for these features."""
        if self.variant == "defaults":
            return SaeVisConfig(hook_point=HOOK, features=features)
        asked = NeuronpediaRunnerConfig(sae_set="", sae_path="", outputs_dir="")
        sequences = SequencesConfig(
            stack_mode="stack-all",
            buffer=None,
            compute_buffer=True,
            n_quantiles=asked.n_quantiles,
            top_acts_group_size=asked.top_acts_group_size,
            quantile_group_size=asked.quantile_group_size,
        )
        parts = ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig(), FeatureTablesConfig(n_rows=3)
        return SaeVisConfig(
            hook_point=HOOK,
            features=features,
            minibatch_size_features=asked.n_features_at_a_time,
            minibatch_size_tokens=asked.n_prompts_in_forward_pass,
            quantile_feature_batch_size=asked.quantile_feature_batch_size,
            feature_centric_layout=SaeVisLayoutConfig(columns=[Column(sequences, *parts)]),
        )

    def prepare(self):
        CURRENT[:] = [self]
        start = self.starts[self.done % len(self.starts)]
        self.now = list(range(start, min(start + self.at_a_time, self.features)))
        self.data = None

    def step(self):
        self.data = sae_vis_runner.SaeVisRunner(self.config(self.now)).run(
            encoder=self.sae, model=self.model, tokens=self.tokens_CT
        )
        self.done += 1
        self.found.update(zip(self.now, self.data.feature_stats.max, strict=True))

    def acts(self, generator, index, minibatch):
        """The activations of its ``index``-th piece of tokens."""
        start = index * generator.cfg.minibatch_size_tokens
        return {HOOK: self.rows_CTD[start : start + len(minibatch)]}

    def describe(self):
        """What it writes for the last batch, as it writes it, and how long that takes."""
        folder = Path(os.environ["ANALYSIS_SCRATCH"])
        file = folder / "dashboard.json"
        started = time.perf_counter()
        if self.variant == "defaults":
            self.data.save_json(file)
        else:
            asked = NeuronpediaRunnerConfig(sae_set="", sae_path="", outputs_dir="", model_id="m", layer=8)
            names = {token: f"t{token}" for token in range(self.model.cfg.d_vocab)}
            file.write_text(NeuronpediaConverter.convert_to_np_json(self.model, self.data, asked, names))
        seconds = time.perf_counter() - started
        size = file.stat().st_size
        file.unlink()
        return {
            "rows": self.tokens_CT.numel(),
            "batches": len(self.starts),
            "batches_done": self.done,
            "features_a_batch": self.at_a_time,
            "write_s_a_batch": seconds,
            "bytes_a_feature": size / len(self.now),
        }

    def maxima(self, features):
        """Largest activation of the features that were seen (all of them if none are asked for)."""
        wanted = features or sorted(self.found)
        return {"features": wanted, "maxima": [self.found[feature] for feature in wanted]}


CURRENT = []


def given_activations(generator, index, minibatch, use_cache=True):
    """In the place of ``FeatureDataGenerator.get_model_acts``."""
    del use_cache
    return CURRENT[0].acts(generator, index, minibatch)


FeatureDataGenerator.get_model_acts = given_activations


def build(cell, rows_ND):
    CURRENT[:] = [Dashboard(cell, rows_ND)]
    return CURRENT[0]


PARTS = (
    ("encode, correlations", FeatureDataGenerator, "get_feature_data"),
    ("quantiles", FeatureStatistics, "create"),
    ("sequences", SequenceDataGenerator, "get_sequences_data"),
    ("logits", LogitsHistogramData, "from_data"),
    ("logits", sae_vis_runner, "get_logits_table_data"),
)


def parts(trainer, product, steps):
    """Seconds of each part of a step, by stopwatches around its functions."""
    spent = dict.fromkeys(("G", "step", *(part for part, _, _ in PARTS)), 0.0)

    def timed(part, original):
        def run(*given, **named):
            started = time.perf_counter()
            try:
                return original(*given, **named)
            finally:
                spent[part] += time.perf_counter() - started

        return run

    undo = []
    for part, holder, name in PARTS:
        original = getattr(holder, name)
        wrapped = timed(part, original)
        undo.append((holder, name, vars(holder).get(name)))
        setattr(holder, name, staticmethod(wrapped) if inspect.ismethod(original) else wrapped)
    whole = sae_vis_runner.einops
    sae_vis_runner.einops = types.SimpleNamespace(einsum=timed("logits", einops.einsum), rearrange=einops.rearrange)
    try:
        for _ in range(steps):
            trainer.prepare()
            spent["G"] += product()
            started = time.perf_counter()
            trainer.step()
            spent["step"] += time.perf_counter() - started
    finally:
        sae_vis_runner.einops = whole
        for holder, name, own in undo:
            if own is None:
                delattr(holder, name)  # it was inherited
            else:
                setattr(holder, name, own)
    spent["rest"] = spent["step"] - sum(spent[part] for part in {part for part, _, _ in PARTS})
    return {"stopwatch": {name: seconds / steps for name, seconds in spent.items()}}


versions = {"sae-dashboard": sae_dashboard.__version__, "sae-lens": sae_lens.__version__}
serve(AnalysisWorker(build, versions, parts))
