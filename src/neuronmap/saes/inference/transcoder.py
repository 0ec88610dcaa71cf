"""The transcoder (Dunefsky et al. 2024, arXiv 2406.11944; skip: Paulo et al. 2025, arXiv 2501.18823).

Shapes: D = d_in, width of the hook that is read; O = d_out, width of the hook that is reconstructed; F = d_sae.

    pre_F = x_D @ W_enc_DF + b_enc_F                    b_dec, which belongs to the other hook, is not subtracted
    f_F   = relu | topk | jumprelu of pre
    y_O   = f_F @ W_dec_FO + b_dec_O  (+ x_D @ W_skip_OD.T)

Where ``input_norm`` is set, it acts on what the encoder sees only: the skip connection takes x as it is, and nothing is
undone, since the output is on the scale of the other hook (both as in SAELens).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from neuronmap.errors import ConfigError
from neuronmap.saes.inference.base import InferenceSAE, activate
from neuronmap.saes.inference.options import TranscoderOptions
from neuronmap.saes.kernels.choice import backend, is_sparse
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.kernels.entries import above_floor
from neuronmap.saes.kernels.protocol import Encoder
from neuronmap.saes.options import ArchitectureOptions
from neuronmap.saes.workspace import Workspace

__all__ = ["TranscoderOptions", "TranscoderSAE", "saelens_name"]


class TranscoderSAE(InferenceSAE):
    """Reads the activation of one hook and reconstructs that of another.

    ``decode`` gives the output without the skip connection, which needs x; ``reconstruct`` gives all of it.

    Args:
        d_in: width of the hook that is read, D.
        d_sae: number of features, F.
        options: :class:`TranscoderOptions`; None for the defaults.
        d_out: width of the hook that is reconstructed, O; None for d_in.
        skip: whether there is a linear path from input to output.
        device: where the parameters live.
        dtype: their precision.

    Attributes:
        d_out: O.
        skip: as given.
    """

    architecture: ClassVar[str] = "transcoder"
    Options: ClassVar[type[ArchitectureOptions]] = TranscoderOptions
    reconstructs_input: ClassVar[bool] = False

    b_enc: nn.Parameter
    """[F]"""
    threshold: nn.Parameter | None
    """[F], for jumprelu"""
    W_skip: nn.Parameter | None
    """[O, D], applied as x @ W_skip.T"""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        d_out: int | None = None,
        skip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        d_out = d_in if d_out is None else d_out
        if d_out < 1:
            raise ConfigError(f"A transcoder needs d_out >= 1, got {d_out}.")
        rule = cast(TranscoderOptions, options).rule if options is not None else "relu"
        shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_out), "b_dec": (d_out,)}
        shapes |= {"threshold": (d_sae,)} if rule == "jumprelu" else {}
        shapes |= {"W_skip": (d_out, d_in)} if skip else {}
        super().__init__(d_in, d_sae, options, shapes, device=device, dtype=dtype)
        self.d_out, self.skip = d_out, skip
        for name in {"threshold", "W_skip"} - shapes.keys():
            self.register_parameter(name, None)

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., F]: x @ W_enc + b_enc."""
        return x @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        """The rule at the top of this file."""
        return activate(self.pre_activations(self.normalised(x)), cast(TranscoderOptions, self.options), self.threshold)

    @torch.no_grad()
    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """The active ones of them, without the others."""
        chosen, x_BD = cast(TranscoderOptions, self.options), self.normalised(x_BD)
        if chosen.k is None:
            floor_F = None if self.threshold is None else self.threshold.clamp_min(0.0)
            return above_floor((x_BD, x_BD.new_zeros(self.d_in), self.W_enc), self.b_enc, floor_F, workspace)
        kernels = backend(workspace, self.W_enc)
        if not is_sparse(workspace, kernels, chosen.k / self.d_sae):
            return None
        return kernels.encode_top_k(Encoder(x_BD.contiguous(), self.W_enc, self.b_enc), chosen.k).code.trimmed()

    def complete(self, xhat: Tensor, x: Tensor) -> Tensor:
        """The output with the skip connection from ``x``; without one, as it is."""
        return xhat if self.W_skip is None else xhat + x @ self.W_skip.T

    def decoder_scale(self, x: Tensor) -> Tensor | float:
        """1: the output has its own scale."""
        del x
        return 1.0

    def saelens_config(self) -> dict[str, Any]:
        """One of SAELens' four transcoders. It has none with a top-k rule; such a name is ours."""
        chosen = cast(TranscoderOptions, self.options)
        return {
            "architecture": saelens_name(chosen.rule, self.skip),
            "d_out": self.d_out,
            **({"k": chosen.k} if chosen.k is not None else {}),
            "apply_b_dec_to_input": False,
        }

    @classmethod
    def from_saelens(cls, config: dict[str, Any], tensors: dict[str, Tensor], options: ArchitectureOptions) -> Self:
        """From the tensors above; ``W_skip`` says whether there is a skip connection."""
        del config
        W_enc_DF, W_dec_FO = tensors["W_enc"], tensors["W_dec"]
        d_in, d_sae = W_enc_DF.shape
        sae = cls(
            d_in,
            d_sae,
            options,
            d_out=W_dec_FO.shape[1],
            skip="W_skip" in tensors,
            device=W_enc_DF.device,
            dtype=W_enc_DF.dtype,
        )
        sae.load_state_dict(tensors)
        return sae


def saelens_name(rule: str, skip: bool) -> str:
    """The architecture in ``cfg.json``: ``transcoder``, ``jumprelu_skip_transcoder``, ..."""
    return ("" if rule == "relu" else f"{rule}_") + ("skip_" if skip else "") + "transcoder"
