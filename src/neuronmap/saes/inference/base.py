"""What the architectures without training share: parameters of other shapes, rules of activation, refusals.

Shapes: B rows, D = d_in, F = d_sae, ... any leading dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, NoReturn

import torch
from torch import Tensor, nn

from neuronmap.errors import ConfigError
from neuronmap.saes.base import SparseAutoencoder, StepLoss, StepState
from neuronmap.saes.inference.options import ActivationOptions
from neuronmap.saes.options import ArchitectureOptions
from neuronmap.saes.workspace import Workspace

__all__ = ["InferenceSAE", "activate", "keep_largest"]


class InferenceSAE(SparseAutoencoder):
    """An SAE that encodes, decodes and is saved; everything that belongs to training is a :class:`ConfigError`.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: the architecture's options; None for its defaults.
        shapes: of the parameters, by name. They start at zero.
        device: where the parameters live.
        dtype: their precision.
    """

    trainable: ClassVar[bool] = False

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        nn.Module.__init__(self)  # the parameters of SparseAutoencoder have other shapes
        self._set_sizes(d_in, d_sae, options)
        for name, shape in shapes.items():
            # W_enc by feature, as the kernels take it
            turned = name == "W_enc" and len(shape) == 2
            zeros = torch.zeros(shape[::-1] if turned else shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(zeros.T if turned else zeros))

    def initialise(self, mean_D: Tensor, generator: torch.Generator) -> None:
        """Refused."""
        del mean_D, generator
        self._refuse()

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """Refused."""
        del x_BD, state
        self._refuse()

    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """Refused."""
        del x_BD, state, workspace
        self._refuse()

    def calibrate(self, batches: Callable[[], Iterable[Tensor]]) -> dict[str, float]:
        """Refused."""
        del batches
        self._refuse()

    def fold_input_scale(self, scale: float) -> None:
        """Refused: these come with their scale folded in."""
        del scale
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(f"A {self.architecture} can be read and used, but NeuronMap does not train it.")


def activate(pre: Tensor, options: ActivationOptions, threshold_F: Tensor | None) -> Tensor:
    """Activations [..., F] of pre-activations [..., F], by the rule of the options."""
    if options.rule == "topk" and options.k is not None:
        return torch.relu(keep_largest(pre, pre, options.k))
    if options.rule == "jumprelu" and threshold_F is not None:
        return torch.relu(pre) * (pre > threshold_F)
    return torch.relu(pre)


def keep_largest(values: Tensor, order: Tensor, k: int) -> Tensor:
    """``values`` [..., F] where ``order`` [..., F] is among the k largest of its row, zero elsewhere."""
    chosen = torch.topk(order, k, dim=-1, sorted=False).indices
    return torch.zeros_like(values).scatter(-1, chosen, values.gather(-1, chosen))
