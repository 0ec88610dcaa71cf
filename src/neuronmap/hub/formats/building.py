"""From foreign tensors to an SAE of ours with the same encode and decode. Sums run in float64.

Shapes: D = d_in, O = d_out, F = d_sae.

    pre_F = (x_D - centre_D) @ W_enc_DF + b_enc_F        what libraries write, with some centre or none
    pre_F = (x_D - b_dec_D)  @ W_enc_DF + b'_enc_F       our one rule, b' = b_enc + (b_dec - centre) @ W_enc

Transcoders subtract nothing: b' = b_enc - centre @ W_enc.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap.errors import ConfigError, DamagedError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from neuronmap.saes import SparseAutoencoder

__all__ = ["Parts", "unfolded"]


@dataclass(frozen=True)
class Parts:
    """Weights of an SAE or a transcoder, in any precision, before folding.

    Attributes:
        W_enc_DF, b_enc_F, W_dec_FO, b_dec_O: as in the equation above.
        centre_D: what is subtracted from the input; None for nothing.
        threshold_F: of a JumpReLU; one number for all is allowed.
        k: of a top-k.
        gate: ``b_gate``, ``b_mag``, ``r_mag`` of a gated SAE, each [F], in place of ``b_enc_F``.
        skip_OD: linear skip connection, added as x @ skip.T.
    """

    W_enc_DF: Tensor
    W_dec_FO: Tensor
    b_dec_O: Tensor
    b_enc_F: Tensor | None = None
    centre_D: Tensor | None = None
    threshold_F: Tensor | None = None
    k: int | None = None
    gate: dict[str, Tensor] | None = None
    skip_OD: Tensor | None = None

    def double(self) -> Parts:
        """All tensors in float64."""
        changed: dict[str, Any] = {
            name: value.double() for name, value in self.__dict__.items() if hasattr(value, "double")
        }
        if self.gate is not None:
            changed["gate"] = {name: value.double() for name, value in self.gate.items()}
        return replace(self, **changed)

    def with_unit_rows(self) -> Parts:
        """Decoder rows of length 1, their lengths moved into the encoder: f becomes f |W_dec|, the reconstruction stays."""
        parts = self.double()
        norm_F = parts.W_dec_FO.norm(dim=1).clamp_min(1e-30)
        scaled: dict[str, Any] = {
            "W_enc_DF": parts.W_enc_DF * norm_F,
            "W_dec_FO": parts.W_dec_FO / norm_F.unsqueeze(1),
        }
        if parts.b_enc_F is not None:
            scaled["b_enc_F"] = parts.b_enc_F * norm_F
        if parts.threshold_F is not None:
            scaled["threshold_F"] = parts.threshold_F * norm_F
        return replace(parts, **scaled)

    def scaled(self, scale_in: float, scale_out: float) -> Parts:
        """An SAE of ``scale_in * x`` that gives ``scale_out * y``, made one of raw x that gives raw y; features on the scale of y.

        f_raw = f / scale_out, so that decoder rows keep their length: encoder and threshold divide by ``scale_out``.
        """
        parts = self.double()
        changed: dict[str, Any] = {
            "W_enc_DF": parts.W_enc_DF * (scale_in / scale_out),
            "b_dec_O": parts.b_dec_O / scale_out,
        }
        if parts.b_enc_F is not None:
            changed["b_enc_F"] = parts.b_enc_F / scale_out
        if parts.threshold_F is not None:
            changed["threshold_F"] = parts.threshold_F / scale_out
        if parts.centre_D is not None:
            changed["centre_D"] = parts.centre_D / scale_in
        if parts.skip_OD is not None:
            changed["skip_OD"] = parts.skip_OD * (scale_in / scale_out)
        return replace(parts, **changed)

    def autoencoder(self, file: Path, architecture: str, options: dict[str, Any] | None = None) -> SparseAutoencoder:
        """An SAE that reconstructs its input.

        Args:
            file: for messages.
            architecture: one of ours.
            options: of the architecture.

        Raises:
            DamagedError: NaN, infinite values.
            InputError: it cannot be one: thresholds below zero, a k above the number of features, a skip connection.
        """
        from neuronmap.saes import get_architecture

        parts = self.double()
        self._check(file, parts)
        if parts.skip_OD is not None:
            raise InputError(f"{file}: an SAE with a skip connection copies its input; NeuronMap has none for those.")
        offset_D = parts.b_dec_O if parts.centre_D is None else parts.b_dec_O - parts.centre_D
        tensors: dict[str, Any] = {"W_enc": parts.W_enc_DF, "W_dec": parts.W_dec_FO, "b_dec": parts.b_dec_O}
        if parts.gate is not None:
            shift_F = offset_D @ parts.W_enc_DF
            tensors |= {
                "b_gate": parts.gate["b_gate"] + shift_F,
                "b_mag": parts.gate["b_mag"] + shift_F * parts.gate["r_mag"].exp(),
                "r_mag": parts.gate["r_mag"],
            }
        else:
            tensors["b_enc"] = _encoder_bias(parts, file) + offset_D @ parts.W_enc_DF
        if parts.threshold_F is not None:
            tensors["threshold"] = _thresholds(parts, file)
        tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
        cls = get_architecture(architecture)
        chosen = dict(options or {}) | ({} if parts.k is None else {"k": parts.k})
        try:
            sae = cls.from_saelens({}, tensors, cls.Options.from_dict(chosen))
        except (ConfigError, KeyError, RuntimeError) as error:
            raise InputError(f"{file} cannot be a {architecture} SAE: {error}") from error
        return sae.eval().requires_grad_(False)

    def transcoder(self, file: Path) -> SparseAutoencoder:
        """A transcoder: it reads one hook and predicts another. ReLU, JumpReLU or top-k, as the parts have it.

        Raises:
            DamagedError, InputError: as :meth:`autoencoder`.
        """
        from neuronmap.saes import get_architecture

        parts = self.double()
        self._check(file, parts)
        bias_F = _encoder_bias(parts, file)
        if parts.centre_D is not None:
            bias_F = bias_F - parts.centre_D @ parts.W_enc_DF
        tensors = {"W_enc": parts.W_enc_DF, "b_enc": bias_F, "W_dec": parts.W_dec_FO, "b_dec": parts.b_dec_O}
        options: dict[str, Any] = {"rule": "relu"}
        if parts.threshold_F is not None:
            options["rule"], tensors["threshold"] = "jumprelu", _thresholds(parts, file)
        elif parts.k is not None:
            options = {"rule": "topk", "k": parts.k}
        if parts.skip_OD is not None:
            tensors["W_skip"] = parts.skip_OD
        tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
        cls = get_architecture("transcoder")
        try:
            sae = cls.from_saelens({}, tensors, cls.Options.from_dict(options))
        except (ConfigError, RuntimeError) as error:
            raise InputError(f"{file} cannot be a transcoder: {error}") from error
        return sae.eval().requires_grad_(False)

    @staticmethod
    def _check(file: Path, parts: Parts) -> None:
        tensors = {name: value for name, value in parts.__dict__.items() if hasattr(value, "isfinite")} | (
            parts.gate or {}
        )
        bad = [
            f"{name} ({int((~value.isfinite()).sum()):,})"
            for name, value in tensors.items()
            if not value.isfinite().all()
        ]
        if bad:
            raise DamagedError(f"{file} holds NaN or infinite values in {', '.join(bad)}.")


def unfolded(sae: SparseAutoencoder) -> Parts:
    """The parts of an SAE of ours, under its own rule (centre b_dec for SAEs, none for transcoders), to be written elsewhere."""
    tensors = {name: tensor.detach().cpu() for name, tensor in sae.saelens_tensors().items()}
    gated = "b_gate" in tensors
    k = getattr(sae.options, "k", None) if "threshold" not in tensors else None
    return Parts(
        W_enc_DF=tensors["W_enc"],
        W_dec_FO=tensors["W_dec"],
        b_dec_O=tensors["b_dec"],
        b_enc_F=tensors.get("b_enc"),
        centre_D=tensors["b_dec"] if sae.reconstructs_input else None,
        threshold_F=tensors.get("threshold"),
        k=k,
        gate={name: tensors[name] for name in ("b_gate", "b_mag", "r_mag")} if gated else None,
        skip_OD=tensors.get("W_skip"),
    ).double()


def _encoder_bias(parts: Parts, file: Path) -> Tensor:
    if parts.b_enc_F is None:
        raise DamagedError(f"{file} has no encoder bias.")
    return parts.b_enc_F


def _thresholds(parts: Parts, file: Path) -> Tensor:
    import torch

    threshold = torch.as_tensor(parts.threshold_F, dtype=torch.float64)
    threshold_F = threshold.expand(parts.W_enc_DF.shape[1]).clone()
    below = int((threshold_F < 0).sum())
    if below:
        raise InputError(
            f"{file}: {below:,} thresholds are below 0 (the least {float(threshold_F.min()):g}), so features could be negative.",
            hint="A threshold of a JumpReLU is 0 or more; is the file of another kind?",
        )
    return threshold_F
