"""From foreign tensors to a crosscoder of ours: one code that reads and reconstructs several hooks. Sums run in float64.

Shapes: L hooks, each of width D; F features. pre_F = sum_l x_l @ W_enc_l + b_enc;  xhat_l = f @ W_dec[:, l] + b_dec_l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap.errors import ConfigError, DamagedError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from neuronmap.saes import SparseAutoencoder

__all__ = ["CrossParts"]


@dataclass(frozen=True)
class CrossParts:
    """Weights of a crosscoder, in any precision.

    Attributes:
        W_enc_LDF, b_enc_F, W_dec_FLD, b_dec_LD: as in the equation above.
        threshold_F: of a rule with one.
    """

    W_enc_LDF: Tensor
    b_enc_F: Tensor
    W_dec_FLD: Tensor
    b_dec_LD: Tensor
    threshold_F: Tensor | None = None

    def double(self) -> CrossParts:
        """All tensors in float64."""
        return replace(self, **{name: value.double() for name, value in self.__dict__.items() if value is not None})

    def scaled(self, scales: Sequence[float] | Tensor, means_LD: Tensor | None = None) -> CrossParts:
        """A crosscoder of ``(x_l - mean_l) * scale_l`` made one of raw x_l that gives raw xhat_l."""
        import torch

        parts = self.double()
        scale_L = torch.as_tensor(scales, dtype=torch.float64)
        scale_L11, scale_1L1, scale_L1 = scale_L.view(-1, 1, 1), scale_L.view(1, -1, 1), scale_L.view(-1, 1)
        W_enc = parts.W_enc_LDF * scale_L11
        b_enc, b_dec = parts.b_enc_F, parts.b_dec_LD / scale_L1
        if means_LD is not None:
            means = means_LD.double()
            b_enc = b_enc - torch.einsum("ld,ldf->f", means, W_enc)
            b_dec = b_dec + means
        return replace(parts, W_enc_LDF=W_enc, b_enc_F=b_enc, W_dec_FLD=parts.W_dec_FLD / scale_1L1, b_dec_LD=b_dec)

    def crosscoder(self, file: Path) -> SparseAutoencoder:
        """Ours.

        Raises:
            DamagedError: NaN, infinite values.
            InputError: thresholds below zero.
        """
        from neuronmap.saes import get_architecture

        parts = self.double()
        tensors: dict[str, Any] = {
            "W_enc": parts.W_enc_LDF,
            "b_enc": parts.b_enc_F,
            "W_dec": parts.W_dec_FLD,
            "b_dec": parts.b_dec_LD,
        }
        rule = "relu"
        if parts.threshold_F is not None:
            rule, tensors["threshold"] = "jumprelu", parts.threshold_F
            if bool((parts.threshold_F < 0).any()):
                raise InputError(f"{file}: thresholds are below 0, so features could be negative.")
        bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if bad:
            raise DamagedError(f"{file} holds NaN or infinite values in {', '.join(bad)}.")
        cls = get_architecture("crosscoder")
        try:
            sae = cls.from_saelens(
                {},
                {name: tensor.float().contiguous() for name, tensor in tensors.items()},
                cls.Options.from_dict({"rule": rule}),
            )
        except (ConfigError, RuntimeError) as error:
            raise InputError(f"{file} cannot be a crosscoder: {error}") from error
        return sae.eval().requires_grad_(False)
