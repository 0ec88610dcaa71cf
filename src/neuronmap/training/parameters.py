"""The parameter step: scale the gradient, project, Adam, unit decoder rows, in two passes over memory instead of seven.

Shapes: D = d_in, F = d_sae, of this process; R processes hold the same features.

The first pass reads the gradients and gives their norm; the second reads and writes everything once. The decoder's gradient is
projected off its own rows, and the rows are brought back to unit norm, inside the second pass while they are in the cache.

Of R processes each keeps the moments of F / R features of the matrices, updates those and gives them to the others (ZeRO, arXiv 1910.02054,
stage 1). Vectors, of which there are a few thousandths as many numbers, are updated by all.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, Workspace
from neuronmap.saes.kernels.choice import backend
from neuronmap.saes.kernels.dense import gradient_of
from neuronmap.saes.kernels.protocol import AdamStep, Kernels
from neuronmap.saes.slices import feature_axis
from neuronmap.training.parallel.team import Team

__all__ = ["ParameterStep"]

_NO_GRADIENT = 1e-12
"""A gradient below it is not made larger: it is zero but for rounding."""


class ParameterStep:
    """Adam (arXiv 1412.6980) over all parameters of an SAE, with its moments.

    Args:
        sae: the SAE.
        epsilon: Adam's.
        clip_norm: largest norm of the whole gradient, or ``unit`` to bring it to 1 in each step; None to leave it as it is.
        workspace: which backend runs.
        rounds: whether to keep a bfloat16 copy of W_enc, for products in that precision. Parameters, gradients and moments stay as
            they are; the copy is written in the pass that updates W_enc.
        team: the processes that train together; this one alone when left out.

    Attributes:
        moments: running mean and mean square of the gradient, by parameter name; in the parameter's memory layout. Of ``shares``.
        shares: first and one past the last of the features that this process updates, by the name of each matrix of which it does not
            update all.
        rounded_W_enc: the copy [D, F], or None.
        steps: updates made.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        epsilon: float,
        clip_norm: float | Literal["unit"] | None,
        workspace: Workspace,
        *,
        rounds: bool = False,
        team: Team | None = None,
    ) -> None:
        self._sae, self._epsilon, self._clip_norm, self._workspace = sae, epsilon, clip_norm, workspace
        self._team = team or Team()
        self._fuses_rows = type(sae).project_decoder_gradient is SparseAutoencoder.project_decoder_gradient
        self._axes = {name: feature_axis(sae, parameter) for name, parameter in sae.named_parameters()}
        self.shares: dict[str, tuple[int, int]] = {}
        if self._team.rows.count > 1 and self._fuses_rows:  # a projection of its own needs the whole gradient
            share = self._team.rows.share_of(sae.d_sae)
            self.shares = {name: share for name, one in sae.named_parameters() if self.by_feature(one) is not None}
        self.moments = {
            name: (torch.zeros_like(self._own(name, parameter)), torch.zeros_like(self._own(name, parameter)))
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
        if self._team.count > 1 and self._fuses_rows:
            return self._norm_of_all(gradients)
        if self._fuses_rows:
            return self._kernels.gradient_energy(sae.W_dec, W_dec_gradient, list(gradients.values())).sqrt()
        norms = [torch.linalg.vector_norm(gradient) for gradient in (W_dec_gradient, *gradients.values())]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return norm

    def _norm_of_all(self, gradients: dict[str, Tensor]) -> Tensor:
        """The same of what lies on all processes; each number counts once."""
        sae, team = self._sae, self._team
        counted = []
        for name in gradients:
            lies_by_feature = self._axes[name] is not None
            if name in self.shares or team.leads or (lies_by_feature and team.rows.rank == 0):
                counted.append(self._own(name, gradients[name]))
        W_dec_FD, gradient_FD = self._own("W_dec", sae.W_dec.detach()), self._own("W_dec", gradient_of(sae.W_dec))
        if W_dec_FD.numel():
            energy = self._kernels.gradient_energy(W_dec_FD, gradient_FD, counted).double()
        else:  # fewer features than processes
            energy = torch.zeros((), dtype=torch.float64, device=sae.device)
            for gradient in counted:
                energy += torch.linalg.vector_norm(gradient).double().square()
        return team.sum_(energy).sqrt()

    @torch.no_grad()
    def apply(self, rate: float, norm: Tensor | None) -> None:
        """Update every parameter once.

        Args:
            rate: learning rate.
            norm: what :meth:`gradient_norm` gave, if the gradient is to be scaled by it.
        """
        self.steps += 1
        beta1, beta2 = self._sae.adam_betas
        step = AdamStep(rate, beta1, beta2, self._epsilon, self.steps)
        scale = self._scale(norm)
        for name, parameter in self._sae.named_parameters():
            if parameter.grad is None:  # not part of this step's loss
                continue
            rows = self._fuses_rows and name == "W_dec"
            rounded = self.rounded_W_enc if name == "W_enc" else None
            if name not in self.shares:
                self._kernels.adam(parameter, parameter.grad, self.moments[name], step, scale, rows, rounded)
                continue
            own, gradient = self._own(name, parameter), self._own(name, parameter.grad)
            if own.numel():  # fewer features than processes
                self._kernels.adam(own, gradient, self.moments[name], step, scale, rows)
            self._spread(parameter)
            if rounded is not None:
                rounded.copy_(parameter)

    def _scale(self, norm: Tensor | None) -> Tensor:
        """0-d, what the gradient is multiplied by."""
        if norm is None or self._clip_norm is None:
            return torch.ones((), device=self._sae.device)
        if self._clip_norm == "unit":
            return norm.clamp(min=_NO_GRADIENT).reciprocal().to(torch.float32)
        return (self._clip_norm / (norm + 1e-6)).clamp(max=1.0).to(torch.float32)

    def by_feature(self, tensor: Tensor) -> Tensor | None:
        """A parameter that is a matrix, or its gradient, as a contiguous matrix [F, D]; None for others."""
        if tensor.ndim != 2:
            return None
        for matrix in (tensor, tensor.T):
            if len(matrix) == self._sae.d_sae and matrix.is_contiguous():
                return matrix.detach()
        return None

    def _own(self, name: str, tensor: Tensor) -> Tensor:
        """The part of a parameter, or of its gradient, that this process updates."""
        if name not in self.shares:
            return tensor
        start, stop = self.shares[name]
        return tensor.narrow(self._axes[name] or 0, start, stop - start)

    def _spread(self, parameter: Tensor) -> None:
        """Give what each process has updated of a matrix to all."""
        matrix = self.by_feature(parameter)
        if matrix is not None:
            self._team.rows.spread_shares_(matrix)

    def forget(self, name: str, axis: int, index: Tensor) -> None:
        """Zero the moments of some features of a parameter (they have been re-initialised)."""
        if name in self.shares:
            start, stop = self.shares[name]
            index = index[(index >= start) & (index < stop)] - start
        for moment in self.moments[name]:
            moment.index_fill_(axis, index, 0.0)

    def reorder(self, name: str, axis: int, order_F: Tensor) -> None:
        """Put the moments of a parameter's features in another order."""
        for moment in self.moments[name]:
            whole, wanted = moment, order_F
            if name in self.shares:
                start, stop = self.shares[name]
                whole = torch.empty_like(self._sae.get_parameter(name))
                self._own(name, whole).copy_(moment)
                self._spread(whole)
                wanted = order_F[start:stop]
            moment.copy_(whole.index_select(axis, wanted))

    def state(self) -> dict[str, Tensor]:
        """Moments for a checkpoint; of ``shares``."""
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
