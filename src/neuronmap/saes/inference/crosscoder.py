"""The crosscoder (Lindsey et al. 2024, transformer-circuits.pub/2024/crosscoders).

Shapes: L hooks (layers, or the same layer of several models), each of width D = d_in; F = d_sae.

    pre_F   = sum_l x_l @ W_enc_l + b_enc_F             x [..., L, D], W_enc [L, D, F]
    f_F     = relu | topk | jumprelu of pre             jumprelu: BatchTopK's threshold too, in every feature's place
    xhat_l  = f_F @ W_dec[:, l] + b_dec_l               W_dec [F, L, D], b_dec [L, D]

``input_norm`` acts on each hook's row for itself. SAELens has no crosscoders: ``cfg.json`` names the architecture
``crosscoder``, which only NeuronMap reads.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from neuronmap.errors import ConfigError, InputError
from neuronmap.saes.base import Reads
from neuronmap.saes.inference.base import InferenceSAE, activate
from neuronmap.saes.inference.options import CrosscoderOptions
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.options import ArchitectureOptions

__all__ = ["CrosscoderOptions", "CrosscoderSAE"]


class CrosscoderSAE(InferenceSAE):
    """Reads the activations of several hooks at once and reconstructs all of them from one code.

    A subclass of :class:`SparseAutoencoder` for its files, rule and interface, with a hook dimension in x, xhat and
    the weights; what works on rows [N, D] refuses it (:func:`neuronmap.saes.uses.require_use`).

    Args:
        layers: how many hooks, L.
        d_in: width of each, D.
        d_sae: number of features, F.
        options: :class:`CrosscoderOptions`; None for the defaults.
        device: where the parameters live.
        dtype: their precision.

    Attributes:
        layers: L.
    """

    architecture: ClassVar[str] = "crosscoder"
    Options: ClassVar[type[ArchitectureOptions]] = CrosscoderOptions
    reads: ClassVar[Reads] = "hooks"

    b_enc: nn.Parameter
    """[F]"""
    threshold: nn.Parameter | None
    """[F], for jumprelu"""

    def __init__(
        self,
        layers: int,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if layers < 1:
            raise ConfigError(f"A crosscoder needs layers >= 1, got {layers}.")
        rule = cast(CrosscoderOptions, options).rule if options is not None else "relu"
        shapes: dict[str, tuple[int, ...]] = {
            "W_enc": (layers, d_in, d_sae),
            "b_enc": (d_sae,),
            "W_dec": (d_sae, layers, d_in),
            "b_dec": (layers, d_in),
        }
        shapes |= {"threshold": (d_sae,)} if rule == "jumprelu" else {}
        super().__init__(d_in, d_sae, options, shapes, device=device, dtype=dtype)
        self.layers = layers
        if rule != "jumprelu":
            self.register_parameter("threshold", None)

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., F] of x [..., L, D]."""
        return x.flatten(-2) @ self.W_enc.flatten(0, 1) + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        """The rule at the top of this file, for x [..., L, D].

        Raises:
            InputError: if the last two dimensions are not L and D.
        """
        if x.ndim < 2 or tuple(x.shape[-2:]) != (self.layers, self.d_in):
            raise InputError(
                f"This crosscoder reads {self.layers} hooks of width {self.d_in}: activations [..., {self.layers}, "
                f"{self.d_in}] are needed, got {list(x.shape)}."
            )
        return activate(self.pre_activations(self.normalised(x)), cast(CrosscoderOptions, self.options), self.threshold)

    def decode(self, f: Tensor) -> Tensor:
        """Reconstructions [..., L, D] of feature activations [..., F]."""
        return (f @ self.W_dec.flatten(1)).view(*f.shape[:-1], self.layers, self.d_in) + self.b_dec

    def decode_entries(self, code: SparseCode) -> Tensor:
        """``decode`` of a code, [B, L, D]."""
        flat_BX = torch.nn.functional.embedding_bag(
            code.feature_N.long(), self.W_dec.flatten(1), code.offset_R, mode="sum", per_sample_weights=code.value_N,
            include_last_offset=True,
        )  # fmt: skip
        return flat_BX.view(-1, self.layers, self.d_in).add_(self.b_dec)

    def saelens_config(self) -> dict[str, Any]:
        """A name that SAELens does not have, L, rule and k."""
        return {
            "architecture": "crosscoder",
            "layers": self.layers,
            **self.options.to_dict(),
            "apply_b_dec_to_input": False,
        }

    @classmethod
    def from_saelens(cls, config: dict[str, Any], tensors: dict[str, Tensor], options: ArchitectureOptions) -> Self:
        """From the tensors above."""
        del config
        W_enc_LDF = tensors["W_enc"]
        layers, d_in, d_sae = W_enc_LDF.shape
        sae = cls(layers, d_in, d_sae, options, device=W_enc_LDF.device, dtype=W_enc_LDF.dtype)
        sae.load_state_dict(tensors)
        return sae
