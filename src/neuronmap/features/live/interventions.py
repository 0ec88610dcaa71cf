"""Changing features inside a running model: what is changed, where, and the control that a random direction gives.

An intervention moves the activation by what it does to the SAE's code and leaves everything that the SAE does not explain as it is:

    x' = x + s sum_j (f'_j - f_j) W_dec_j

where s is 1, or what the SAE's ``input_norm`` multiplies its reconstruction of this x by,
so an intervention that changes nothing gives x itself, bit for bit. Masked positions (see
:mod:`neuronmap.features.live.attached`) are left alone.

The control replaces the decoder rows W_j of the features by as many directions R_j at random, orthogonal to all of them and with the
same lengths and angles among themselves: every position is then moved by exactly the same distance, in a direction that means nothing.

Shapes: B contexts, T tokens, N rows, D = d_in, F = d_sae, J features that are changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neuronmap.errors import ConfigError, InputError
from neuronmap.features.live.attached import AttachedSAE
from neuronmap.features.live.naming import FeatureNames
from neuronmap.models import replaced
from neuronmap.saes.uses import require_use

__all__ = ["Intervention", "Site", "applied", "random_directions", "sites"]

Kind = Literal["clamp", "scale", "add", "remove"]
Unit = Literal["activation", "max"]
Where = Literal["all", "prompt", "generated"] | tuple[int, ...]


@dataclass(frozen=True)
class Intervention:
    """One change to one feature.

    Attributes:
        feature: its number.
        kind: ``clamp`` sets its activation to ``value``, ``scale`` multiplies it by ``value``, ``add`` adds ``value`` to it (its
            decoder direction times the value, also where it is silent), ``remove`` sets it to 0 (ablation).
        value: see above; not used by ``remove``.
        unit: what ``value`` of ``clamp`` and ``add`` is in: ``activation``, or ``max``, the feature's largest activation in the
            feature store.
        positions: ``all``, only the ``prompt``, only what is ``generated``, or places counted from 0.
        sae: the name of the SAE, where there are several.
    """

    feature: int
    kind: Kind
    value: float = 0.0
    unit: Unit = "activation"
    positions: Where = "all"
    sae: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("clamp", "scale", "add", "remove"):
            raise ConfigError(f"kind = {self.kind!r}: allowed are clamp, scale, add and remove.")
        if self.unit not in ("activation", "max"):
            raise ConfigError(f"unit = {self.unit!r}: allowed are activation and max.")
        if isinstance(self.positions, str) and self.positions not in ("all", "prompt", "generated"):
            raise ConfigError(f"positions = {self.positions!r}: allowed are all, prompt, generated, or numbers.")
        if not (self.value == self.value and abs(self.value) != float("inf")):
            raise ConfigError(f"value = {self.value}: it must be a finite number.")

    @classmethod
    def clamp(cls, feature: int, value: float, **where: object) -> Intervention:
        """Set the feature to a value wherever it applies."""
        return cls(feature, "clamp", value, **where)  # type: ignore[arg-type]

    @classmethod
    def scale(cls, feature: int, factor: float, **where: object) -> Intervention:
        """Multiply the feature where it fires."""
        return cls(feature, "scale", factor, **where)  # type: ignore[arg-type]

    @classmethod
    def add(cls, feature: int, strength: float, **where: object) -> Intervention:
        """Add the feature's direction times a strength, whether it fires or not."""
        return cls(feature, "add", strength, **where)  # type: ignore[arg-type]

    @classmethod
    def remove(cls, feature: int, **where: object) -> Intervention:
        """Ablate the feature."""
        return cls(feature, "remove", **where)  # type: ignore[arg-type]

    def __str__(self) -> str:
        unit = " x max" if self.unit == "max" and self.kind in ("clamp", "add") else ""
        what = {
            "clamp": f"= {self.value:g}{unit}",
            "scale": f"x {self.value:g}",
            "add": f"{self.value:+g}{unit}",
            "remove": "removed",
        }[self.kind]
        where = "" if self.positions == "all" else f" ({self.positions})"
        return f"{f'{self.sae} ' if self.sae else ''}#{self.feature} {what}{where}"

    def touches(self, position_T: Tensor, prompt_length: int) -> Tensor:
        """bool [T], which positions it applies to."""
        if self.positions == "all":
            return torch.ones_like(position_T, dtype=torch.bool)
        if self.positions == "prompt":
            return position_T < prompt_length
        if self.positions == "generated":
            return position_T >= prompt_length
        chosen = torch.tensor(self.positions, dtype=position_T.dtype, device=position_T.device)
        return torch.isin(position_T, chosen)


class Site:
    """The interventions at one SAE, and the state of the forward pass that they apply in.

    Args:
        attached: the SAE at its place.
        interventions: what is changed.
        names: maxima, for the unit ``max``.
        control: seed of the random directions that take the features' place; None for the features themselves.

    Raises:
        InputError: unknown features, or a maximum that is not known.
        MismatchError: an SAE that does not reconstruct what it reads.
    """

    def __init__(
        self,
        attached: AttachedSAE,
        interventions: Sequence[Intervention],
        names: FeatureNames,
        control: int | None = None,
    ) -> None:
        require_use(attached.sae, "intervention", "Steering")
        self.attached = attached
        self.interventions = list(interventions)
        self.features = attached.check_features(
            list(dict.fromkeys(intervention.feature for intervention in interventions))
        )
        self._column = {feature: place for place, feature in enumerate(self.features)}
        rows_JD = attached.sae.W_dec.detach()[self.features].float()
        self.directions_JD = rows_JD if control is None else random_directions(rows_JD, control)
        self._values = [
            intervention.value * (names.require_maximum(intervention.feature) if self._in_maxima(intervention) else 1.0)
            for intervention in self.interventions
        ]
        self._needs_code = any(intervention.kind != "add" for intervention in self.interventions)
        self._masked_BT = torch.zeros(0, 0, dtype=torch.uint8)
        self._first, self._prompt_length = 0, 0

    @staticmethod
    def _in_maxima(intervention: Intervention) -> bool:
        return intervention.unit == "max" and intervention.kind in ("clamp", "add")

    def begin(self, masked_BT: Tensor, first: int, prompt_length: int) -> None:
        """Say what the next forward pass is over: which positions are masked, and the place of its first token."""
        self._masked_BT, self._first, self._prompt_length = masked_BT, first, prompt_length

    @torch.no_grad()
    def __call__(self, x_BTD: Tensor) -> Tensor:
        """The activation after the interventions; the same tensor if nothing is changed."""
        here = self.attached
        B, T, _ = x_BTD.shape
        if self._masked_BT.shape != (B, T):
            raise InputError(
                f"The forward pass is over [{B}, {T}] tokens, but was announced as {list(self._masked_BT.shape)}."
            )
        masked_BT = self._masked_BT.to(x_BTD.device)
        if here.outlier_norm is not None:  # against the context's own median, a pass over one token could not judge
            masked_BT = here.add_outliers(masked_BT, torch.linalg.vector_norm(x_BTD, dim=-1, dtype=torch.float32))
        position_T = torch.arange(self._first, self._first + T, device=x_BTD.device)
        touched = [i.touches(position_T, self._prompt_length).expand(B, T) for i in self.interventions]
        rows_BT = (masked_BT == 0) & torch.stack(touched).any(0)
        if not bool(rows_BT.any()):
            return x_BTD
        x_ND = x_BTD[rows_BT].to(here.sae.device, torch.float32)
        move_NJ = self._moves(x_ND, [touched_BT[rows_BT].to(x_ND.device) for touched_BT in touched])
        moved_N = (move_NJ != 0).any(1)
        if not bool(moved_N.any()):
            return x_BTD
        steered_BTD = x_BTD.clone()
        steered_ND = x_ND + (move_NJ * here.sae.decoder_scale(x_ND)) @ self.directions_JD.to(x_ND.device)
        # Rows that nothing moves keep their bits: adding 0 would lose the sign of -0.0 and round half-precision twice.
        steered_ND = torch.where(moved_N.unsqueeze(1), steered_ND, x_ND)
        steered_BTD[rows_BT] = steered_ND.to(x_BTD)
        return steered_BTD

    def _moves(self, x_ND: Tensor, touched: Sequence[Tensor]) -> Tensor:
        """f' - f of the changed features, [N, J]; interventions on one feature act one after the other."""
        before_NJ = torch.zeros(len(x_ND), len(self.features), device=x_ND.device)
        if self._needs_code:
            for part in self.attached.chunks(len(x_ND)):
                before_NJ[part] = self.attached.encode(x_ND[part])[:, self.features].float()
        after_NJ = before_NJ.clone()
        for intervention, value, touched_N in zip(self.interventions, self._values, touched, strict=True):
            place = self._column[intervention.feature]
            now_N = after_NJ[:, place]
            new_N = {
                "clamp": torch.full_like(now_N, value),
                "scale": now_N * value,
                "add": now_N + value,
                "remove": torch.zeros_like(now_N),
            }[intervention.kind]
            after_NJ[:, place] = torch.where(touched_N, new_N, now_N)
        return after_NJ - before_NJ


def random_directions(rows_JD: Tensor, seed: int) -> Tensor:
    """Directions [J, D] at random with the lengths and angles of ``rows_JD`` among themselves, orthogonal to all of those.

    With rows = L Q, Q orthonormal, they are L Q' for random orthonormal rows Q' outside the span of Q. Where D is below 2 J there is no
    room outside, and Q' is random in the whole space.

    Args:
        rows_JD: the directions to stand in for; linearly independent.
        seed: of the random numbers.

    Raises:
        InputError: more directions than dimensions.
    """
    J, D = rows_JD.shape
    if J > D:
        raise InputError(f"A control for {J} features at once needs at least {J} dimensions; the activation has {D}.")
    rows_64 = rows_JD.double().cpu()
    basis_DJ, lengths_JJ = torch.linalg.qr(rows_64.T)
    generator = torch.Generator().manual_seed(seed)
    noise_DJ = torch.randn(D, J, generator=generator, dtype=torch.float64)
    if 2 * J <= D:
        for _ in range(2):  # twice: what rounding leaves of the first time
            noise_DJ -= basis_DJ @ (basis_DJ.T @ noise_DJ)
    random_DJ, _ = torch.linalg.qr(noise_DJ)
    directions_JD: Tensor = (random_DJ @ lengths_JJ).T.to(rows_JD)
    return directions_JD


def sites(
    saes: Mapping[str, AttachedSAE],
    interventions: Sequence[Intervention],
    names: Mapping[str, FeatureNames],
    control: int | None = None,
) -> list[Site]:
    """The interventions dealt out to their SAEs.

    Args:
        saes: the SAEs by name.
        interventions: what is changed; those that name no SAE go to the only one.
        names: maxima by SAE.
        control: seed of random directions in the features' place.

    Raises:
        ConfigError: no interventions, or one that names no SAE although there are several, or an unknown one.
    """
    if not interventions:
        raise ConfigError("There is no intervention.", hint="For example: Intervention.add(feature, 4.0)")
    dealt: dict[str, list[Intervention]] = {}
    for intervention in interventions:
        if not isinstance(intervention, Intervention):
            raise ConfigError(f"An Intervention is needed, got {type(intervention).__name__}.")
        name = intervention.sae
        if name is None and len(saes) == 1:
            name = next(iter(saes))
        if name is None or name not in saes:
            said = "names no SAE" if name is None else f"names the SAE '{name}'"
            raise ConfigError(
                f"The intervention on feature {intervention.feature} {said}; there are: {', '.join(saes)}."
            )
        dealt.setdefault(name, []).append(intervention)
    return [
        Site(saes[name], given, names[name], None if control is None else control + 7919 * place)
        for place, (name, given) in enumerate(dealt.items())
    ]


@contextmanager
def applied(chosen: Sequence[Site]) -> Iterator[None]:
    """Within the block the model runs with the interventions; :meth:`Site.begin` announces each forward pass."""
    with ExitStack() as stack:
        for site in chosen:
            stack.enter_context(replaced(site.attached.model, site.attached.hook, site))
        yield
