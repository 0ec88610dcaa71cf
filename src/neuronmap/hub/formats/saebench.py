"""An SAE as SAEBench's evaluations want it. SAEBench is not needed here, and not imported.

Shapes: D = d_in, F = d_sae. What its evaluations touch, found in their code:

    encode(x), decode(f), forward(x)   x [B, D] or [B, L, D]; dense, fresh, writable
    W_enc [D, F], W_dec [F, D]         parameters (``.data`` is read); rows of W_dec of unit norm
    b_enc [F] (gated: b_mag), b_dec [D]
    device, dtype, to(device=, dtype=)
    cfg                                a mutable dataclass with ``to_dict``: model_name, hook_name, hook_layer, ...
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

from neuronmap.errors import InputError
from neuronmap.saes.metadata import BundleMetadata

if TYPE_CHECKING:
    from neuronmap.saes import SparseAutoencoder

__all__ = ["SAEBenchConfig", "SAEBenchSAE", "to_saebench"]

_LENS = {"residual": "hook_resid_post", "residual_pre": "hook_resid_pre", "mlp": "hook_mlp_out", "attention": "hook_attn_out",
         "mlp_hidden": "mlp.hook_post", "attention_heads": "attn.hook_z"}  # fmt: skip


@dataclass
class SAEBenchConfig:
    """What SAEBench calls ``CustomSAEConfig``; it sets fields of it."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    architecture: str
    dtype: str = "float32"
    context_size: int = 128
    hook_head_index: int | None = None
    prepend_bos: bool = True
    normalize_activations: str = "none"
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[Any, ...] = (None,)
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "seqpos_slice": list(self.seqpos_slice)}


class SAEBenchSAE(nn.Module):
    """The adapter. It shares no memory with the SAE it was made from: decoder rows are made unit in it, f scaled with them.

    Args:
        sae: the SAE; one that reads rows and reconstructs its input.
        cfg: as SAEBench wants it.
    """

    def __init__(self, sae: SparseAutoencoder, cfg: SAEBenchConfig) -> None:
        super().__init__()
        self._sae = [sae]  # in a list, so that its parameters are not counted among those below
        self.cfg = cfg
        tensors = {name: tensor.detach().clone() for name, tensor in sae.saelens_tensors().items()}
        self._norm_F = tensors["W_dec"].norm(dim=1).clamp_min(1e-12)
        self.W_enc = nn.Parameter(tensors["W_enc"] * self._norm_F)
        self.W_dec = nn.Parameter(tensors["W_dec"] / self._norm_F.unsqueeze(1))
        self.b_dec = nn.Parameter(tensors["b_dec"])
        bias = "b_mag" if "b_mag" in tensors else "b_enc"
        if bias in tensors:
            self.register_parameter(bias, nn.Parameter(tensors[bias] * self._norm_F))
        self.device, self.dtype = self.W_dec.device, self.W_dec.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations [..., F], dense and fresh."""
        sae = self._sae[0]
        f = sae.encode(x.to(device=sae.device, dtype=sae.dtype))
        scaled: Tensor = f * self._norm_F.to(f)
        return scaled.to(device=self.device, dtype=self.dtype)

    def decode(self, f: Tensor) -> Tensor:
        """Reconstruction [..., D] on the scale of raw activations."""
        xhat: Tensor = f.to(self.W_dec) @ self.W_dec + self.b_dec
        return xhat

    def forward(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move; ``device`` and ``dtype`` follow."""
        super().to(*args, **kwargs)
        self.device, self.dtype = self.W_dec.device, self.W_dec.dtype
        return self


def to_saebench(sae: SparseAutoencoder, metadata: BundleMetadata | None = None) -> SAEBenchSAE:
    """An SAE for SAEBench: ``run_eval(..., selected_saes=[("my-sae", to_saebench(sae))])``.

    Args:
        sae: ReLU, top-k, JumpReLU, gated, ...: it reads rows of one hook and reconstructs them.
        metadata: model and hook; that of the SAE's bundle when left out.

    Raises:
        InputError: it reads more than rows, predicts another hook, or normalises each row, which ``decode`` alone cannot undo.

    Example:
        >>> adapter = to_saebench(hub.load("demo"))               # doctest: +SKIP
        >>> adapter.cfg.hook_name                                 # doctest: +SKIP
        'blocks.15.hook_resid_post'
    """
    if sae.reads != "rows" or not sae.reconstructs_input or sae.signed:
        raise InputError(
            f"SAEBench evaluates SAEs of one hook with non-negative features; this is a {sae.architecture}."
        )
    if sae.input_norm != "none":
        raise InputError(
            f"SAEBench decodes features without their rows, which an SAE with input_norm {sae.input_norm} cannot."
        )
    known = metadata or (sae.provenance.metadata if sae.provenance is not None else BundleMetadata())
    hook, model, corpus = known.hook or {}, known.model or {}, known.corpus or {}
    layer, component = hook.get("layer"), hook.get("component")
    lens = (
        f"blocks.{layer}.{_LENS[component]}"
        if component in _LENS and layer is not None
        else str(hook.get("name") or "")
    )
    cfg = SAEBenchConfig(
        model_name=str(model.get("name") or ""),
        d_in=sae.d_in,
        d_sae=sae.d_sae,
        hook_layer=int(layer) if layer is not None else 0,
        hook_name=lens,
        architecture=sae.architecture,
        context_size=int(corpus.get("context_length") or 128),
    )
    return SAEBenchSAE(sae, cfg).requires_grad_(False)
