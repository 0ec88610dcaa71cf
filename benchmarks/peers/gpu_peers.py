"""Training steps of SAELens and eai-sparsify on a GPU; used by ``benchmarks/gpu.py`` in an environment that holds them.

SAELens: the body of ``SAETrainer.fit``'s loop without progress bar and logging, with ``autocast`` (bfloat16), as its config
offers. eai-sparsify: the calls of ``Trainer.fit`` on one batch in their order; its forward has autocast built in, its decoder is
its Triton kernel, and ``micro`` cuts a batch into parts as its ``micro_acc_steps`` does.
"""

import os

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

STEPS = 100_000


class SAELensStep:
    """topk or batchtopk of SAELens."""

    def __init__(self, cell, batches, width, device):
        import sae_lens
        from sae_lens.config import SAETrainerConfig

        kinds = {
            "topk": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig),
            "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig),
        }
        kind, settings = kinds[cell["architecture"]]
        sae = kind(
            settings(d_in=width, d_sae=cell["features"], k=cell["k"], normalize_activations="none", device=str(device))
        )
        config = SAETrainerConfig(
            total_training_samples=STEPS * cell["batch"],
            train_batch_size_samples=cell["batch"],
            lr=3e-4,
            lr_end=3e-5,
            device=str(device),
            autocast=cell["dtype"] == "bfloat16",
        )
        self.version = f"sae-lens {sae_lens.__version__}"
        self._trainer = sae_lens.SAETrainer(cfg=config, sae=sae, data_provider=iter(()))
        self._sae, self._batches = sae, batches
        self._l0 = None

    def step(self):
        self._trainer.maybe_reset_sparsity()
        output = self._trainer.step(self._batches.next())
        self._trainer.n_training_steps += 1
        self._l0 = output.feature_acts, len(output.sae_in)

    def describe(self):
        acts, rows = self._l0
        return {"l0": float((acts > 0).sum()) / rows, "version": self.version}

    def release(self):
        """The last output, which the trainer's loop would drop before the next step."""
        self._l0 = None


class SparsifyStep:
    """topk of eai-sparsify with Adam (its option) or its default optimiser."""

    def __init__(self, cell, batches, width, device):
        import sparsify
        import sparsify.utils
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD
        from transformers import get_linear_schedule_with_warmup

        self.version = f"eai-sparsify {sparsify.__version__}, {sparsify.utils.decoder_impl.__name__}"
        config = sparsify.SaeConfig(num_latents=cell["features"], k=cell["k"])
        self.sae = sparsify.SparseCoder(width, config, str(device), dtype=torch.float32)
        self._batches, self._micro = batches, cell["micro"]
        self.sae.b_dec.data = batches.next().mean(0)
        scale = (cell["features"] / 2**14) ** 0.5
        self._schedulers = []
        if cell["variant"] == "adam":
            self._optimizer = torch.optim.Adam([{"params": self.sae.parameters(), "lr": 2e-4 / scale}])
            self._schedulers = [get_linear_schedule_with_warmup(self._optimizer, 1000, STEPS)]
        else:
            groups = [{"params": self.sae.parameters(), "lr": 5e-3 / scale}]
            self._optimizer = ScheduleFreeWrapper(SignSGD(groups), momentum=0.95)
            self._optimizer.train()
        self._since_fired_F = torch.zeros(cell["features"], dtype=torch.long, device=device)
        self._fired_F = torch.zeros(cell["features"], dtype=torch.bool, device=device)
        self._l0 = None

    def step(self):
        x_BD, sae = self._batches.next(), self.sae
        sae.set_decoder_norm_to_unit_norm()
        variance = (x_BD - x_BD.mean(0)).pow(2).sum()
        for part_BD in x_BD.chunk(self._micro):
            out = sae(x=part_BD, y=part_BD, dead_mask=None, total_variance=variance)
            self._fired_F[out.latent_indices.flatten()] = True
            float(out.fvu.detach())
            (out.fvu + 0.0 * out.auxk_loss + out.multi_topk_fvu / 8).backward()
            self._l0 = (out.latent_acts.detach() > 0).sum() / len(part_BD)
            del out
        sae.remove_gradient_parallel_to_decoder_directions()
        self._optimizer.step()
        self._optimizer.zero_grad()
        for scheduler in self._schedulers:
            scheduler.step()
        with torch.no_grad():
            self._since_fired_F += len(x_BD)
            self._since_fired_F[self._fired_F] = 0
            self._fired_F.zero_()

    def describe(self):
        return {"l0": float(self._l0), "version": self.version}

    def release(self):
        """Nothing is held."""


STEPS_OF = {"saelens": SAELensStep, "sparsify": SparsifyStep}
