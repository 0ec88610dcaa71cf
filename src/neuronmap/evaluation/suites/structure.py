"""What the decoder looks like: does a small SAE explain its rows, and how many rows are nearly the same direction?

Meta-structure (Bussmann, Leask et al.): a BatchTopK SAE with a quarter of the features and k = 4, trained on the unit decoder rows. Rows
that share parts are explained better than directions without them; what those give is measured beside it, on random directions and on
rows drawn with the same mean and covariance (what is above the latter is not in the spectrum).

Shapes: F features, D = d_in.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuronmap.errors import MismatchError
from neuronmap.evaluation.figures import weights_of
from neuronmap.evaluation.metrics import Spread
from neuronmap.evaluation.suites.coding import pieces
from neuronmap.evaluation.suites.record import Redundancy, StructureSuite
from neuronmap.progress import Progress, SilentProgress
from neuronmap.saes.density import dead_density_bound
from neuronmap.training import SAEConfig, SAETrainer

__all__ = ["meta_explained", "nearest", "redundancy_of", "structure_suite", "unit_decoder"]

META_K = 4
_META_ROWS = 1024
_COMPARED = 8192
"""Rows that are compared with all others; of a wider decoder a sample is."""


def unit_decoder(sae: Any) -> Tensor:
    """Decoder rows of unit length, float32 [F, D] on the CPU; rows of zeros stay.

    Raises:
        MismatchError: the SAE has no decoder matrix of one hook.
    """
    decoder = getattr(sae, "W_dec", None)
    if not isinstance(decoder, Tensor) or decoder.ndim != 2:
        raise MismatchError(
            "This suite compares decoder rows, and this SAE has no decoder matrix W_dec [features, width] of one hook."
        )
    rows_FD = decoder.detach().float().cpu()
    return _unit(rows_FD)


def structure_suite(
    sae: Any, *, fired_F: Tensor | None, tokens: int, meta_steps: int, seed: int, progress: Progress
) -> StructureSuite:
    """Meta-SAE, redundancy, dead features.

    Args:
        sae: an SAE with ``W_dec``.
        fired_F: on how many of ``tokens`` tokens each feature fired; None without a language model.
        tokens: see there.
        meta_steps: steps of each meta-SAE.
        seed: of initialisation, order and random directions.
        progress: where the bar goes.

    Raises:
        MismatchError: see :func:`unit_decoder`.
    """
    rows_FD = unit_decoder(sae)
    generator = torch.Generator().manual_seed(seed)
    compared = {
        "sae": rows_FD,
        "random": _unit(torch.randn(rows_FD.shape, generator=generator)),
        "matched": matched_rows(rows_FD, generator),
    }
    width = max(META_K, rows_FD.shape[0] // 4)
    explained: dict[str, float | None] = {}
    with progress.task("Meta-SAEs", len(compared), "SAEs") as bar:
        for name, part_FD in compared.items():
            explained[name] = meta_explained(part_FD, width, META_K, meta_steps, seed)
            bar.advance(1)
    return StructureSuite(
        meta_width=width,
        meta_k=META_K,
        meta_steps=meta_steps,
        meta_explained=explained,
        redundancy={name: redundancy_of(_nearest_other(compared[name], seed)) for name in ("sae", "random")},
        encoder_decoder_cosine=weights_of(sae).encoder_decoder_cosine,
        dead=None if fired_F is None else int((fired_F == 0).sum()),
        dead_tokens=tokens,
        dead_density_bound=None if fired_F is None else dead_density_bound(tokens),
    )


def meta_explained(rows_FD: Tensor, width: int, k: int, steps: int, seed: int) -> float | None:
    """Share of the variance of some rows that a BatchTopK SAE trained on them explains; None where they do not vary."""
    variance = float((rows_FD - rows_FD.mean(0)).double().square().sum())
    if variance < 1e-12 * max(1, len(rows_FD)):
        return None
    batch = min(_META_ROWS, max(2, len(rows_FD) // 2 * 2))
    with tempfile.TemporaryDirectory() as folder:
        config = SAEConfig(
            input_dim=rows_FD.shape[1],
            hidden_dim=width,
            architecture="batchtopk",
            k=min(k, width),
            context_length=2,
            batch_size=batch // 2,
            num_epochs=max(1.0, steps * batch / len(rows_FD)),
            max_steps=steps,
            eval_every_steps=steps,
            checkpoint_every_steps=steps,
            device="cpu",
            seed=seed,
        )
        trainer = SAETrainer(config, progress=SilentProgress(), run_folder=Path(folder) / "meta")
        meta = trainer.train(rows_FD, heldout=rows_FD).sae
        with torch.inference_mode():
            missed = sum(
                float((part_nD - meta.reconstruct(part_nD)).double().square().sum())
                for part_nD in pieces(rows_FD, 4096)
            )
    return 1.0 - missed / variance


def nearest(first_AD: Tensor, second_BD: Tensor) -> Tensor:
    """Largest cosine of each unit row with any of the second, [A]."""
    return torch.cat([(part_aD @ second_BD.T).amax(1) for part_aD in pieces(first_AD, 1024)])


def redundancy_of(cosine_A: Tensor) -> Redundancy:
    """The record of largest cosines."""
    values_A = cosine_A.double()
    low, median, high = values_A.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
    return Redundancy(
        max_cosine=Spread(mean=float(values_A.mean()), low=low, median=median, high=high),
        above_07=float((values_A > 0.7).double().mean()),
        above_09=float((values_A > 0.9).double().mean()),
        rows=len(values_A),
    )


def _nearest_other(rows_FD: Tensor, seed: int) -> Tensor:
    """Largest cosine of each row (or of a sample of them) with any other row."""
    F = len(rows_FD)
    chosen = torch.arange(F)
    if F > _COMPARED:
        chosen = torch.randperm(F, generator=torch.Generator().manual_seed(seed))[:_COMPARED].sort().values
    found = []
    for part_a in pieces(chosen, 1024):
        cosine_aF = rows_FD[part_a] @ rows_FD.T
        cosine_aF[torch.arange(len(part_a)), part_a] = -1.0  # not with itself
        found.append(cosine_aF.amax(1))
    return torch.cat(found)


def matched_rows(rows_FD: Tensor, generator: torch.Generator) -> Tensor:
    """As many normal rows of the same mean and covariance, made unit."""
    mean_D = rows_FD.mean(0)
    covariance_DD = (rows_FD - mean_D).double().T @ (rows_FD - mean_D).double() / len(rows_FD)
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    root_DD = vectors_DD * values_D.clamp_min(0).sqrt()
    drawn_FD = torch.randn(rows_FD.shape, generator=generator, dtype=torch.float64) @ root_DD.T
    return _unit(drawn_FD.float() + mean_D)


def _unit(rows_FD: Tensor) -> Tensor:
    unit_FD: Tensor = rows_FD / rows_FD.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit_FD
