"""Settings of the architectures that are read and not trained, without torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from neuronmap.errors import ConfigError
from neuronmap.saes.options import ArchitectureOptions

__all__ = [
    "INFERENCE_ONLY",
    "AbsTopKOptions",
    "ActivationOptions",
    "CrosscoderOptions",
    "MatchingPursuitOptions",
    "TemporalOptions",
    "TranscoderOptions",
]


class ActivationOptions(ArchitectureOptions):
    """Which rule turns pre-activations into activations, where an architecture allows several."""

    rule: Literal["relu", "topk", "jumprelu"] = "relu"
    """relu; topk: the k largest of a row, then relu; jumprelu: what exceeds its feature's threshold (BatchTopK's inference
    rule too)."""
    k: int | None = Field(default=None, ge=1)
    """topk: active features per row."""

    @model_validator(mode="after")
    def _k_for_topk(self) -> Self:
        """Refuse a k that would be ignored, and a topk without one."""
        if (self.rule == "topk") != (self.k is not None):
            raise ConfigError(
                f"{type(self).__name__}.k = {self.k} with rule = '{self.rule}': topk needs a k, the other rules have none."
            )
        return self

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Refuse a k above d_sae."""
        del d_in
        if self.k is not None and self.k > d_sae:
            raise ConfigError(f"{type(self).__name__}.k = {self.k}: there are only d_sae = {d_sae} features.")


class TranscoderOptions(ActivationOptions):
    """Settings of :class:`TranscoderSAE`."""


class CrosscoderOptions(ActivationOptions):
    """Settings of :class:`CrosscoderSAE`."""


class AbsTopKOptions(ArchitectureOptions):
    """Settings of :class:`AbsTopKSAE`."""

    k: int = Field(default=32, ge=1)
    """Active features per row."""

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Refuse a k above d_sae."""
        del d_in
        if self.k > d_sae:
            raise ConfigError(f"AbsTopKOptions.k = {self.k}: there are only d_sae = {d_sae} features.")


class MatchingPursuitOptions(ArchitectureOptions):
    """Settings of :class:`MatchingPursuitSAE`."""

    residual_threshold: float = Field(default=0.01, ge=0)
    """A row is done when what is left of it is shorter than this, in units of the activation; 0 turns it off."""
    max_iterations: int | None = Field(default=None, ge=1)
    """Features picked at most, repeats counted; None for d_in."""
    stop_on_duplicate_support: bool = True
    """A row is done when a step picks a feature that it has already."""


class TemporalOptions(ArchitectureOptions):
    """Settings of :class:`TemporalSAE`."""

    n_heads: int = Field(default=8, ge=1)
    """Attention heads."""
    n_attn_layers: int = Field(default=1, ge=0)
    """Attention layers, each of which predicts what the ones before left over."""
    bottleneck_factor: int = Field(default=64, ge=1)
    """d_sae over the width of keys and queries."""
    k: int | None = Field(default=None, ge=1)
    """Novel features per token; None keeps all that are positive."""
    tied: bool = True
    """The encoder is the decoder transposed."""
    subtract_b_dec: bool = True
    """The encoder sees x - b_dec. A tied one without has no b_dec at the end either."""
    input_scale: float = Field(default=1.0, gt=0)
    """Inputs are multiplied by it, reconstructions divided."""

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Refuse heads that do not divide the widths, and a k above d_sae."""
        del d_in
        if self.n_attn_layers and d_sae % (self.bottleneck_factor * self.n_heads):
            raise ConfigError(
                f"TemporalOptions: bottleneck_factor x n_heads = {self.bottleneck_factor * self.n_heads} does not divide "
                f"d_sae = {d_sae}."
            )
        if self.k is not None and self.k > d_sae:
            raise ConfigError(f"TemporalOptions.k = {self.k}: there are only d_sae = {d_sae} features.")


INFERENCE_ONLY: dict[str, type[ArchitectureOptions]] = {
    "transcoder": TranscoderOptions,
    "crosscoder": CrosscoderOptions,
    "abstopk": AbsTopKOptions,
    "matching_pursuit": MatchingPursuitOptions,
    "temporal": TemporalOptions,
}
"""Settings of each architecture that can be read but not trained, by its name."""
