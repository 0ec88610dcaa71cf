"""What a batch that several processes share needs besides its gradients: what is refused, and how the parts become the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.errors import ConfigError, MismatchError
from neuronmap.saes import SparseAutoencoder, StepLoss, get_architecture
from neuronmap.saes.ranks import Ranks
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData
from neuronmap.training.parallel.team import Team

__all__ = ["combine", "require_alone", "require_same_data", "require_splittable"]


def require_alone(team: Team, what: str) -> None:
    """Refuse work that several processes would each do from beginning to end.

    Raises:
        ConfigError: in a team of more than one.
    """
    if team.count > 1:
        raise ConfigError(
            f"{what} runs in one process, but torchrun started {team.count}.",
            hint="Start it without torchrun; `neuronmap sae train` is what torchrun can split.",
        )


def require_splittable(config: SAEConfig, team: Team) -> None:
    """Refuse what a team cannot do yet.

    Raises:
        ConfigError: with what, and what to set instead.
    """
    if team.count == 1:
        return
    if config.batch_rows % team.count:
        raise ConfigError(
            f"A batch of {config.batch_rows:,} activations (batch_size = {config.batch_size} contexts x context_length = "
            f"{config.context_length}) cannot be shared equally by {team.count} processes.",
            hint=f"Set batch_size to a multiple of {team.count}.",
        )
    if config.stream:
        raise ConfigError(
            "stream = true does not work in several processes: each would run the language model over all of the text.",
            hint="Leave stream out: activations are then stored once, by process 0, and read by all.",
        )
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"device = {config.device!r} names one device for {team.count} processes.",
            hint="Set device = 'auto': each process takes a GPU of its own, or all take the CPU.",
        )
    devices = torch.cuda.device_count()
    if config.device != "cpu" and 0 < devices < team.beside + 1:
        raise ConfigError(
            f"{team.beside + 1} processes were started on a machine with {devices} GPU{'s' if devices > 1 else ''}.",
            hint=f"Start at most {devices} (torchrun --nproc-per-node {devices}), or set device = 'cpu'.",
        )
    if not get_architecture(config.resolved_architecture).splits_batches:
        raise ConfigError(
            f"The architecture {config.resolved_architecture} cannot be trained by several processes: it does not say that its loss can "
            "be taken in parts.",
            hint="Train it without torchrun, or set splits_batches in its class.",
        )


def require_same_data(data: TrainingData, team: Team) -> None:
    """Refuse members that were given different rows.

    Raises:
        MismatchError: on all of them.
    """
    if team.count == 1:
        return
    digests = team.gather((data.rows.digest, data.num_rows))
    strangers = [rank for rank, found in enumerate(digests) if found != digests[0]]
    if strangers:
        raise MismatchError(
            f"Process 0 has {digests[0][1]:,} rows of digest {digests[0][0]}, process {strangers[0]} has "
            f"{digests[strangers[0]][1]:,} of digest {digests[strangers[0]][0]}.",
            hint="All processes take the same source, and NEURONMAP_HOME on one file system.",
        )


def combine(loss: StepLoss, sae: SparseAutoencoder, ranks: Ranks) -> None:
    """Turn the loss and the gradients of a part of the batch into those of the whole, in place.

    Parts are equal, so that means over rows become the mean of means; firings are added up; of the smallest kept activations counts
    the smallest.
    """
    if ranks.count == 1:
        return
    small: list[Tensor] = []  # what goes between processes at once: a small message takes as long as a smaller one
    for parameter in sae.parameters():
        if parameter.grad is not None and parameter.ndim > 1:
            ranks.mean_(parameter.grad)
        elif parameter.grad is not None:
            small.append(parameter.grad)
    figures = torch.stack((loss.total, *loss.parts.values()))
    small += [figures, *(part for name, part in loss.extra.items() if name == "level_mse")]
    fired_F = loss.fired_F.double()  # exact up to 2^53
    least = [part for part in (loss.threshold, loss.extra.get("first_threshold")) if part is not None]
    least_RT = fired_F.new_zeros(ranks.count, len(least))  # each rank fills its row, the others add 0
    for place, part in enumerate(least):
        least_RT[ranks.rank, place] = part
    packed = ranks.sum_(torch.cat([fired_F, least_RT.view(-1), *(part.view(-1).double() for part in small)]))
    loss.fired_F.copy_(packed[: len(fired_F)])
    at = len(fired_F) + least_RT.numel()
    least_RT = packed[len(fired_F) : at].view_as(least_RT)
    least_RT = torch.where(least_RT > 0, least_RT, torch.inf)  # 0 of a rank that kept none
    for part, smallest in zip(least, least_RT.amin(dim=0), strict=True):
        part.copy_(torch.where(torch.isinf(smallest), 0.0, smallest))
    for part in small:
        part.copy_(packed[at : at + part.numel()].view_as(part).div_(ranks.count))
        at += part.numel()
    loss.total, *parts = figures.unbind()
    loss.parts = dict(zip(loss.parts, parts, strict=True))
