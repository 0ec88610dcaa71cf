"""The temporal SAE (Lubana et al. 2025, arXiv 2511.01836): what the context predicts, and what is new.

Shapes: B contexts, T tokens, D = d_in, F = d_sae, H heads, Q = F / bottleneck_factor, width of keys and queries.

    x' = x - b_dec, r = x', predicted = 0, lam = 1 / 4D
    for each attention layer:
        z = relu(lam r @ W_enc)                                        codes of every token
        p = relu(attention from z_t to z_0 .. z_(t-1))                 with a zero code before the first token
        s = (p @ W_dec) . r / (|p @ W_dec| + 1e-6)^2                   how much of r lies along the prediction
        predicted += s p,  r -= s p @ W_dec
    f = top-k of relu(lam r @ W_enc)                                   the novel codes: the features
    xhat = (predicted + f) @ W_dec + b_dec

``encode`` gives the novel codes and ``decode`` is theirs alone; ``reconstruct`` adds what was predicted.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from neuronmap.errors import InputError
from neuronmap.saes.base import Reads
from neuronmap.saes.inference.base import InferenceSAE, keep_largest
from neuronmap.saes.inference.options import TemporalOptions
from neuronmap.saes.options import ArchitectureOptions

__all__ = ["TemporalOptions", "TemporalSAE"]

_EPSILON = 1e-6


class _CodeAttention(nn.Module):
    """Causal attention over codes: names and shapes of SAELens' ``ManualAttention``."""

    def __init__(self, width: int, n_heads: int, bottleneck_factor: int, device: Any, dtype: torch.dtype) -> None:
        super().__init__()
        narrow = width // bottleneck_factor
        self.n_heads = n_heads
        self.k_ctx = nn.Linear(width, narrow, device=device, dtype=dtype)
        self.q_target = nn.Linear(width, narrow, device=device, dtype=dtype)
        self.v_ctx = nn.Linear(width, width, device=device, dtype=dtype)
        self.c_proj = nn.Linear(width, width, device=device, dtype=dtype)

    def forward(self, context_BTF: Tensor, target_BTF: Tensor) -> Tensor:
        """[B, T, F]; position t attends to the context up to its own place, which the caller has shifted by one."""

        def by_head(projected: Tensor) -> Tensor:
            return projected.view(*projected.shape[:-1], self.n_heads, -1).transpose(1, 2)

        mixed_BHTx = scaled_dot_product_attention(
            by_head(self.q_target(target_BTF)),
            by_head(self.k_ctx(context_BTF)),
            by_head(self.v_ctx(context_BTF)),
            is_causal=True,
        )
        projected: Tensor = self.c_proj(mixed_BHTx.transpose(1, 2).flatten(2))
        return projected


class TemporalSAE(InferenceSAE):
    """Codes what is new at each token of a context. Takes whole contexts [B, T, D] only. SAELens calls it ``temporal``.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: :class:`TemporalOptions`; None for the defaults.
        device: where the parameters live.
        dtype: their precision.
    """

    architecture: ClassVar[str] = "temporal"
    Options: ClassVar[type[ArchitectureOptions]] = TemporalOptions
    reads: ClassVar[Reads] = "contexts"

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        chosen = cast(TemporalOptions, options) if options is not None else TemporalOptions()
        shapes: dict[str, tuple[int, ...]] = {"W_dec": (d_sae, d_in), "b_dec": (d_in,)}
        shapes |= {} if chosen.tied else {"untied_W_enc": (d_in, d_sae)}
        super().__init__(d_in, d_sae, chosen, shapes, device=device, dtype=dtype)
        self.attn_layers = nn.ModuleList(
            _CodeAttention(d_sae, chosen.n_heads, chosen.bottleneck_factor, device, dtype)
            for _ in range(chosen.n_attn_layers)
        )
        self._chosen = chosen

    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        """[D, F]; the decoder transposed where they are tied."""
        return self.W_dec.T if self._chosen.tied else cast(Tensor, self.untied_W_enc)

    def normalised(self, x: Tensor) -> Tensor:
        """Also times ``input_scale``."""
        return super().normalised(x) * self._chosen.input_scale

    def decoder_scale(self, x: Tensor) -> Tensor | float:
        """Also over ``input_scale``."""
        return super().decoder_scale(x) / self._chosen.input_scale

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., F] of rows without a context: nothing is predicted."""
        centred = x - self.b_dec if self._chosen.subtract_b_dec else x
        return (centred * self._lam) @ self.W_enc

    def encode(self, x: Tensor) -> Tensor:
        """Novel codes [B, T, F] of whole contexts [B, T, D].

        Raises:
            InputError: for rows without their context.
        """
        return self.encode_with_predictions(x)[0]

    def encode_with_predictions(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Novel and predicted codes, each [B, T, F]."""
        if x_BTD.ndim != 3 or x_BTD.shape[-1] != self.d_in:
            raise InputError(
                f"A temporal SAE reads whole contexts: activations [contexts, tokens, {self.d_in}] in the order of the text "
                f"are needed, got {list(x_BTD.shape)}."
            )
        rest_BTD = self.normalised(x_BTD)
        if self._chosen.subtract_b_dec:
            rest_BTD = rest_BTD - self.b_dec
        predicted_BTF = rest_BTD.new_zeros(*rest_BTD.shape[:2], self.d_sae)
        for layer in self.attn_layers:
            code_BTF = torch.relu((rest_BTD * self._lam) @ self.W_enc)
            before_BTF = torch.cat((torch.zeros_like(code_BTF[:, :1]), code_BTF[:, :-1]), dim=1)
            p_BTF = torch.relu(layer(before_BTF, code_BTF))
            along_BTD = p_BTF @ self.W_dec
            length_BT1 = along_BTD.norm(dim=-1, keepdim=True) + _EPSILON
            share_BT1 = (along_BTD * rest_BTD).sum(dim=-1, keepdim=True) / length_BT1.square()
            predicted_BTF = predicted_BTF + p_BTF * share_BT1
            rest_BTD = rest_BTD - share_BT1 * along_BTD
        novel_BTF = torch.relu((rest_BTD * self._lam) @ self.W_enc)
        if self._chosen.k is not None:
            novel_BTF = keep_largest(novel_BTF, novel_BTF, self._chosen.k)
        return novel_BTF, predicted_BTF

    def decode(self, f: Tensor) -> Tensor:
        """What the novel codes [..., F] alone give, [..., D], on the scale of the input where ``input_norm`` is none."""
        return (f @ self.W_dec + self._output_bias()) / self._chosen.input_scale

    def reconstruct(self, x: Tensor) -> Tensor:
        """[B, T, D], from predicted and novel codes together."""
        novel_BTF, predicted_BTF = self.encode_with_predictions(x)
        return super().complete(self.decode(novel_BTF + predicted_BTF), x)

    def complete(self, xhat: Tensor, x: Tensor) -> Tensor:
        """Adds what the context ``x`` [B, T, D] predicts (encoding it again), and undoes ``input_norm``."""
        predicted_BTF = self.encode_with_predictions(x)[1]
        return super().complete(xhat + predicted_BTF @ self.W_dec / self._chosen.input_scale, x)

    def saelens_config(self) -> dict[str, Any]:
        """SAELens' name for it and its settings."""
        chosen = self._chosen
        scaled = {"normalize_activations": "constant_scalar_rescale"} if chosen.input_scale != 1.0 else {}
        return {
            "architecture": "temporal",
            "n_heads": chosen.n_heads,
            "n_attn_layers": chosen.n_attn_layers,
            "bottleneck_factor": chosen.bottleneck_factor,
            "sae_diff_type": "relu" if chosen.k is None else "topk",
            "kval_topk": chosen.k,
            "tied_weights": chosen.tied,
            "apply_b_dec_to_input": chosen.subtract_b_dec,
            "activation_normalization_factor": chosen.input_scale,
            **scaled,
        }

    def saelens_tensors(self) -> dict[str, Tensor]:
        """The parameters, an encoder of its own as ``W_enc``."""
        return {name.removeprefix("untied_"): tensor for name, tensor in super().saelens_tensors().items()}

    @classmethod
    def from_saelens(cls, config: dict[str, Any], tensors: dict[str, Tensor], options: ArchitectureOptions) -> Self:
        """From the tensors above."""
        del config
        d_sae, d_in = tensors["W_dec"].shape
        sae = cls(d_in, d_sae, options, device=tensors["W_dec"].device, dtype=tensors["W_dec"].dtype)
        sae.load_state_dict({("untied_W_enc" if name == "W_enc" else name): value for name, value in tensors.items()})
        return sae

    @property
    def _lam(self) -> float:
        return 1 / (4 * self.d_in)

    def _output_bias(self) -> Tensor | float:
        chosen = self._chosen
        return self.b_dec if chosen.subtract_b_dec or not chosen.tied else 0.0
