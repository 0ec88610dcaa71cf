"""What a batch that several processes share needs besides its gradients: what is refused, and how the parts become the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.errors import ConfigError, MismatchError
from neuronmap.saes import SparseAutoencoder, StepLoss, get_architecture
from neuronmap.saes.slices import FeatureSlice, feature_axis
from neuronmap.training.config import SAEConfig
from neuronmap.training.data import TrainingData
from neuronmap.training.parallel.team import Group, Team
from neuronmap.training.parameters import ParameterStep

__all__ = ["combine", "require_alone", "require_equal_parts", "require_same_data", "require_splittable", "slice_of"]


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


def require_splittable(config: SAEConfig, team: Team, *, ranks_asked: bool = True) -> None:
    """Refuse what a team cannot do yet.

    Args:
        config: the training.
        team: those that are to do it.
        ranks_asked: whether ``feature_ranks`` was asked for now; one process goes on with a run that several began.

    Raises:
        ConfigError: with what, and what to set instead.
    """
    if team.count == 1:
        if ranks_asked and config.feature_ranks > 1:
            ranks = config.feature_ranks
            raise ConfigError(
                f"feature_ranks = {ranks}, but there is one process.",
                hint=f"Start with torchrun --nproc-per-node {ranks} -m neuronmap sae train ..., or leave feature_ranks out.",
            )
        return
    if team.count % config.feature_ranks:
        raise ConfigError(
            f"{team.count} processes cannot be laid out with feature_ranks = {config.feature_ranks} of them to each copy of the SAE.",
            hint=f"Set feature_ranks to a divisor of {team.count}, or start a multiple of {config.feature_ranks} processes.",
        )
    if config.batch_size is not None:
        require_equal_parts(config, team)
    _require_sliceable(config)
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


def require_equal_parts(config: SAEConfig, team: Team) -> None:
    """Refuse a batch, whose size is known by now, that the processes cannot share equally.

    Raises:
        ConfigError: with what to set instead.
    """
    rows = team.count // config.feature_ranks
    if team.count > 1 and config.batch_rows % rows:
        raise ConfigError(
            f"A batch of {config.batch_rows:,} activations (batch_size = {config.batch_size} contexts x context_length = "
            f"{config.context_length}) cannot be shared equally by {rows} processes.",
            hint=f"Set batch_size to a multiple of {rows}.",
        )


def _require_sliceable(config: SAEConfig) -> None:
    if config.feature_ranks == 1:
        return
    name = config.resolved_architecture
    if not get_architecture(name).splits_features:
        raise ConfigError(
            f"The features of {name} cannot be shared by several processes: its class does not say with splits_features that they can.",
            hint="Set feature_ranks = 1: each process then holds the whole SAE and takes a share of each batch.",
        )
    if config.hidden_dim is not None and config.hidden_dim % config.feature_ranks:
        raise ConfigError(
            f"hidden_dim = {config.hidden_dim:,} features cannot be shared equally by feature_ranks = {config.feature_ranks} processes.",
            hint=f"Set hidden_dim to a multiple of {config.feature_ranks}.",
        )
    if config.architecture_options.get("sort_features", False):
        raise ConfigError(
            "sort_features = true moves features between levels, which processes that share them cannot do.",
            hint="Leave sort_features out, or set feature_ranks = 1.",
        )


def slice_of(team: Team, d_sae: int) -> FeatureSlice | None:
    """Which of the features this process holds; None for all of them.

    Raises:
        ConfigError: where they cannot be shared equally.
    """
    ranks = team.features
    if ranks.count == 1:
        return None
    if d_sae % ranks.count:
        raise ConfigError(
            f"{d_sae:,} features cannot be shared equally by {ranks.count} processes.",
            hint=f"Set hidden_dim to a multiple of {ranks.count}.",
        )
    width = d_sae // ranks.count
    return FeatureSlice(ranks.rank * width, (ranks.rank + 1) * width, d_sae)


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


def combine(loss: StepLoss, sae: SparseAutoencoder, team: Team, parameters: ParameterStep) -> None:
    """Turn the loss and the gradients of a part of the batch into those of the whole, in place.

    Parts are equal, so that means over rows become the mean of means; firings are added up; of the smallest kept activations counts
    the smallest. Of the matrices that ``parameters.shares`` names, only this process's share of the gradient is right afterwards.
    """
    if team.count == 1:
        return
    rows, everyone = team.rows, team
    by_feature: list[Tensor] = []  # what goes between processes at once: a small message takes as long as a smaller one
    common: list[Tensor] = []
    for name, parameter in sae.named_parameters():
        if parameter.grad is None:
            continue
        matrix = parameters.by_feature(parameter.grad) if name in parameters.shares else None
        if matrix is not None:
            rows.mean_of_share_(matrix)
        elif parameter.ndim > 1:
            rows.mean_(parameter.grad)
        else:
            (common if feature_axis(sae, parameter) is None else by_feature).append(parameter.grad)
    figures = torch.stack((loss.total, *loss.parts.values()))
    common += [figures, *(part for name, part in loss.extra.items() if name == "level_mse")]
    least = [part for part in (loss.threshold, loss.extra.get("first_threshold")) if part is not None]
    least_WT = torch.zeros(everyone.count, len(least), dtype=torch.float64, device=sae.device)
    for place, part in enumerate(least):  # each rank fills its row, the others add 0
        least_WT[everyone.rank, place] = part
    # Doubles: firings are exact up to 2^53.
    of_all = [(least_WT, 1), *((part, everyone.count) for part in common)]
    of_rows = [(loss.fired_F, 1), *((part, rows.count) for part in by_feature)]
    if rows.count == everyone.count:
        _sum_together(everyone, of_all + of_rows)
    else:
        _sum_together(everyone, of_all)
        _sum_together(rows, of_rows)
    least_WT = torch.where(least_WT > 0, least_WT, torch.inf)  # 0 of a rank that kept none
    for part, smallest in zip(least, least_WT.amin(dim=0), strict=True):
        part.copy_(torch.where(torch.isinf(smallest), 0.0, smallest))
    loss.total, *parts = figures.unbind()
    loss.parts = dict(zip(loss.parts, parts, strict=True))


def _sum_together(group: Group, tensors: list[tuple[Tensor, int]]) -> None:
    """Replace each tensor by its sum over the members, over a number, in one message."""
    if group.count == 1:
        return
    packed = group.sum_(torch.cat([tensor.reshape(-1).double() for tensor, _ in tensors]))
    at = 0
    for tensor, over in tensors:
        tensor.copy_(packed[at : at + tensor.numel()].view_as(tensor).div_(over))
        at += tensor.numel()
