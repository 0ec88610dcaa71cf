"""The parameter step: clip, project, Adam, unit decoder rows, in two passes over memory instead of seven.

Shapes: D = d_in, F = d_sae.

The first pass reads the gradients and gives their norm; the second reads and writes everything once. The decoder's gradient is
projected off its own rows, and the rows are brought back to unit norm, inside the second pass while they are in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuronmap.saes import SparseAutoencoder, Workspace
from neuronmap.saes.kernels.choice import backend
from neuronmap.saes.kernels.dense import gradient_of
from neuronmap.saes.kernels.protocol import AdamStep, Kernels

__all__ = ["ParameterStep", "feature_axis"]


class ParameterStep:
    """Adam (arXiv 1412.6980) over all parameters of an SAE, with its moments.

    Args:
        sae: the SAE.
        epsilon: Adam's.
        clip_norm: largest norm of the whole gradient; None for no limit.
        workspace: which backend runs.
        rounds: whether to keep a bfloat16 copy of W_enc, for products in that precision. Parameters, gradients and moments stay as
            they are; the copy is written in the pass that updates W_enc.

    Attributes:
        moments: running mean and mean square of the gradient, by parameter name; in the parameter's memory layout.
        rounded_W_enc: the copy [D, F], or None.
        steps: updates made.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        epsilon: float,
        clip_norm: float | None,
        workspace: Workspace,
        *,
        rounds: bool = False,
    ) -> None:
        self._sae, self._epsilon, self._clip_norm, self._workspace = sae, epsilon, clip_norm, workspace
        self._fuses_rows = type(sae).project_decoder_gradient is SparseAutoencoder.project_decoder_gradient
        self.moments = {
            name: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for name, parameter in sae.named_parameters()
        }
        self.rounded_W_enc = sae.W_enc.detach().to(torch.bfloat16) if rounds else None
        self.steps = 0

    @property
    def leaves_unit_rows(self) -> bool:
        """Whether decoder rows have unit norm after :meth:`apply`; an SAE with a projection of its own does that itself."""
        return self._fuses_rows

    @torch.no_grad()
    def gradient_norm(self) -> Tensor:
        """0-d, norm of the gradient of all parameters together, the decoder's without the part along its rows."""
        sae = self._sae
        if not self._fuses_rows:
            sae.project_decoder_gradient()
        gradients = {name: p.grad for name, p in sae.named_parameters() if p.grad is not None and name != "W_dec"}
        W_dec_gradient = gradient_of(sae.W_dec)
        if self._fuses_rows:
            return self._kernels.gradient_energy(sae.W_dec, W_dec_gradient, list(gradients.values())).sqrt()
        norms = [torch.linalg.vector_norm(gradient) for gradient in (W_dec_gradient, *gradients.values())]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return norm

    @torch.no_grad()
    def apply(self, rate: float, norm: Tensor | None) -> None:
        """Update every parameter once.

        Args:
            rate: learning rate.
            norm: what :meth:`gradient_norm` gave, if the gradient is to be clipped.
        """
        self.steps += 1
        beta1, beta2 = self._sae.adam_betas
        step = AdamStep(rate, beta1, beta2, self._epsilon, self.steps)
        scale = torch.ones((), device=self._sae.device)
        if norm is not None and self._clip_norm is not None:
            scale = (self._clip_norm / (norm + 1e-6)).clamp(max=1.0).to(torch.float32)
        for name, parameter in self._sae.named_parameters():
            if parameter.grad is None:  # not part of this step's loss
                continue
            rows = self._fuses_rows and name == "W_dec"
            rounded = self.rounded_W_enc if name == "W_enc" else None
            self._kernels.adam(parameter, parameter.grad, self.moments[name], step, scale, rows, rounded)

    def forget(self, name: str, axis: int, index: Tensor) -> None:
        """Zero the moments of some features of a parameter (they have been re-initialised)."""
        for moment in self.moments[name]:
            moment.index_fill_(axis, index, 0.0)

    def state(self) -> dict[str, Tensor]:
        """Moments for a checkpoint."""
        tensors = {}
        for name, (first, second) in self.moments.items():
            tensors[f"{name}.first"], tensors[f"{name}.second"] = first, second
        return tensors

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Take up what :meth:`state` gave; the SAE's own weights have been taken up before."""
        for name, (first, second) in self.moments.items():
            first.copy_(tensors[f"{name}.first"])
            second.copy_(tensors[f"{name}.second"])
        self.steps = steps
        if self.rounded_W_enc is not None:
            self.rounded_W_enc.copy_(self._sae.W_enc.detach())

    @property
    def _kernels(self) -> Kernels:
        return backend(self._workspace, self._sae.W_enc)


def feature_axis(sae: SparseAutoencoder, parameter: nn.Parameter) -> int | None:
    """Axis of a parameter along which its features lie; None for b_dec and for what has none."""
    if parameter is sae.W_enc:
        return 1
    if parameter is sae.W_dec:
        return 0
    if parameter is sae.b_dec:
        return None
    return next((axis for axis, size in enumerate(parameter.shape) if size == sae.d_sae), None)
