"""Settings of the built-in architectures, without torch: configurations, forms and ``--help`` are made from them.

Each architecture's own file says what its settings do to the step.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Literal, Self

from pydantic import Field, model_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError

__all__ = [
    "BUILT_IN",
    "ArchitectureOptions",
    "BatchTopKOptions",
    "GatedOptions",
    "JumpReLUOptions",
    "ListaOptions",
    "MatryoshkaOptions",
    "ReLUOptions",
    "TopKOptions",
]


class ArchitectureOptions(FrozenConfig):
    """Settings that belong to one architecture; subclass it beside the architecture."""

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Raise :class:`~neuronmap.errors.ConfigError` for options that do not fit this width."""


class ReLUOptions(ArchitectureOptions):
    """Settings of :class:`ReLUSAE`."""

    sparsity_penalty: float = Field(default=0.06, gt=0)
    """Weight of the L1 term; inputs have unit energy, so 0.01 to 0.06 is the usual range."""


class GatedOptions(ArchitectureOptions):
    """Settings of :class:`GatedSAE`."""

    sparsity_penalty: float = Field(default=0.06, gt=0)
    """Weight of the L1 term on the gate; inputs have unit energy, so 0.01 to 0.06 is the usual range."""


class TopKOptions(ArchitectureOptions):
    """Settings of the top-k family."""

    k: int = Field(default=32, ge=1)
    """Active features per row (for batch rules: on average)."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of the AuxK loss, which revives dead features; 0 switches it off."""
    aux_k: int | None = Field(default=None, ge=1)
    """Dead features a row may use in AuxK; None means half of d_in."""

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Refuse a k or aux_k above d_sae."""
        del d_in
        for name, value in (("k", self.k), ("aux_k", self.aux_k)):
            if value is not None and value > d_sae:
                raise ConfigError(
                    f"{type(self).__name__}.{name} = {value}: there are only d_sae = {d_sae} features.",
                    hint=f"Lower {name} or raise d_sae.",
                )


class BatchTopKOptions(TopKOptions):
    """Settings of :class:`BatchTopKSAE`."""


class MatryoshkaOptions(BatchTopKOptions):
    """Settings of :class:`MatryoshkaSAE`."""

    group_fractions: tuple[float, ...] = Field(default=(1 / 16, 1 / 8, 1 / 4, 9 / 16), min_length=1)
    """Share of the features that each level adds; they sum to 1 and give whole numbers of features. A first level
    far below 1/16 makes its features hedge (arXiv 2505.11756)."""
    detach_levels: bool = False
    """Whether an inner level's error reaches only the features that the level adds, while the last level's reaches all."""
    sort_features: bool = False
    """Whether features change places while training, so that those that fire most often are the first levels'."""

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if min(self.group_fractions) <= 0 or not math.isclose(sum(self.group_fractions), 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"MatryoshkaOptions.group_fractions = {self.group_fractions} (sum {sum(self.group_fractions):g}): "
                "fractions must be positive and sum to 1."
            )
        return self

    def level_widths(self, d_sae: int) -> tuple[int, ...]:
        """Features up to each level, ascending; the last is d_sae."""
        return tuple(accumulate(round(fraction * d_sae) for fraction in self.group_fractions))

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Also refuse a d_sae that the fractions do not divide into whole numbers."""
        super().check_width(d_in, d_sae)
        groups = [fraction * d_sae for fraction in self.group_fractions]
        if any(round(group) < 1 or abs(group - round(group)) > 1e-3 for group in groups):
            shown = ", ".join(f"{group:g}" for group in groups)
            raise ConfigError(
                f"MatryoshkaOptions.group_fractions = {self.group_fractions} split d_sae = {d_sae} into groups of "
                f"{shown} features; each must be a whole number of at least 1.",
                hint="With the default fractions, choose a d_sae that is a multiple of 16.",
            )


class ListaOptions(MatryoshkaOptions):
    """Settings of :class:`ListaSAE`."""

    detach_levels: bool = True
    """Whether an inner level's error reaches only the features that the level adds, while the last level's reaches all."""
    sort_features: bool = True
    """Whether features change places while training, so that those that fire most often are the first levels'."""
    refinement_step: float = Field(default=0.3, ge=0, le=1)
    """Share of what the first code leaves over that is added to the input before the second; 0 is plain BatchTopK."""


class JumpReLUOptions(ArchitectureOptions):
    """Settings of :class:`JumpReLUSAE`. Lengths are on the scale of inputs with E|x|^2 = 1."""

    sparsity_form: Literal["step", "tanh"] = "step"
    """Penalise the number of active features (step) or a smooth saturating version (tanh)."""
    target_l0: float | None = Field(default=None, gt=0)
    """step: active features per row to steer to; 64, or an eighth of the features if less, when sparsity_penalty is left out too."""
    target_weight: float = Field(default=5.0, gt=0)
    """step: weight of (L0 / target_l0 - 1)^2. L0 settles above the target by a share inversely proportional to it."""
    target_anneal_factor: float | None = Field(default=None, ge=1)
    """step: the target falls over the sparsity warm-up from so many times itself, at full weight; 4 when left out, 1 raises the weight
    instead."""
    sparsity_penalty: float | None = Field(default=None, gt=0)
    """step: charge for each active feature, in place of a target. tanh: weight of the tanh term, 0.0005 when left out."""
    bandwidth: float | None = Field(default=None, gt=0)
    """Width of the window around the threshold in which its gradient acts; 0.25 (tanh: 2) / sqrt(d_in) when left out."""
    initial_l0: float | None = Field(default=None, gt=0)
    """Active features per row before the first step, about; when left out target_anneal_factor times the target (twice, if that is
    1), 128 without a target, and for tanh half of all."""
    tanh_scale: float = Field(default=4.0, gt=0)
    """tanh: slope of the tanh at zero, in units of sqrt(d_in)."""
    dead_penalty: float | None = Field(default=None, ge=0)
    """Weight of the term that pulls dead features back; 0.0001 (tanh: 3e-6 / sqrt(d_in)) when left out, 0 turns it off."""

    @model_validator(mode="after")
    def _one_sparsity_term(self) -> Self:
        """Refuse settings of which one would be ignored."""
        if self.target_l0 is not None and self.sparsity_form == "tanh":
            raise ConfigError(
                f"JumpReLUOptions.target_l0 = {self.target_l0} does not apply to sparsity_form = 'tanh', which is set by "
                "sparsity_penalty.",
                hint="Leave target_l0 out, or use sparsity_form = 'step'.",
            )
        if self.target_l0 is not None and self.sparsity_penalty is not None:
            raise ConfigError(
                f"JumpReLUOptions.target_l0 = {self.target_l0} and sparsity_penalty = {self.sparsity_penalty} exclude "
                "each other: steer to a number of active features, or charge for each.",
                hint="Leave one of them out; target_weight says how firmly the target is held.",
            )
        steered = self.sparsity_form == "step" and self.sparsity_penalty is None
        if (self.target_anneal_factor or 1.0) > 1 and not steered:
            raise ConfigError(
                f"JumpReLUOptions.target_anneal_factor = {self.target_anneal_factor} needs a target to fall to, and there is none.",
                hint="Use sparsity_form = 'step' without a sparsity_penalty, or leave the factor out.",
            )
        return self

    def check_width(self, d_in: int, d_sae: int) -> None:
        """Refuse a target that the SAE is too narrow for."""
        del d_in
        for name in ("target_l0", "initial_l0"):
            value = getattr(self, name)
            if value is not None and value > d_sae:
                raise ConfigError(f"JumpReLUOptions.{name} = {value} is more than the {d_sae} features there are.")


BUILT_IN: dict[str, type[ArchitectureOptions]] = {
    "relu": ReLUOptions,
    "gated": GatedOptions,
    "topk": TopKOptions,
    "batchtopk": BatchTopKOptions,
    "jumprelu": JumpReLUOptions,
    "matryoshka": MatryoshkaOptions,
    "lista": ListaOptions,
}
"""Settings of each built-in architecture, by its name."""
