"""The contract of every SAE architecture, and what they all share.

Shapes: B rows of a batch, D = d_in (width of the activation), F = d_sae (number of features), ... any leading dims.

    pre_F = (x_D - b_dec_D) @ W_enc_DF + b_enc_F        encoder
    f_F   = the architecture's rule applied to pre_F    feature activations, sparse, non-negative
    xhat  = f_F @ W_dec_FD + b_dec_D                    decoder, rows of W_dec of unit norm

An SAE from elsewhere may normalise each row first (``input_norm``). Its ``encode`` takes raw rows all the same, but its
``decode`` cannot know the row's mean and length: it gives the normalised reconstruction, which ``complete(decode(f), x)``
takes back to the scale of ``x``. ``reconstruct(x)`` does all three and is right for every SAE.

One file an architecture. It states its inference rule (``encode``), its training loss as a readable equation
(``training_loss``, plain autograd: the reference) and the same loss with hand-written gradients over
preallocated buffers (``loss_and_gradients``: what the trainer runs). ``check_sae`` proves the two equal in float64.

Scale: the trainer multiplies inputs by one scalar so that E|x|^2 = 1; losses are sums over D and means over B, so
they read as shares of the input's energy, and ``sparsity_penalty`` has the same meaning on every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from neuronmap.errors import ConfigError
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.normalisation import normalise, output_scale, undo_normalisation
from neuronmap.saes.options import ArchitectureOptions
from neuronmap.saes.slices import FeatureSlice, drawn_rows
from neuronmap.saes.workspace import Workspace

if TYPE_CHECKING:
    from neuronmap.saes.provenance import Provenance

__all__ = ["ArchitectureOptions", "SparseAutoencoder", "StepLoss", "StepState"]

Revival = Literal["auxk", "resample", "none"]
Reads = Literal["rows", "contexts", "hooks"]


@dataclass(frozen=True, slots=True)
class StepState:
    """What a training step needs to know about the run.

    Attributes:
        step: optimiser step, from 0.
        sparsity_scale: warm-up factor of the sparsity term, 0 to 1.
        k: active features per row at this step, for architectures that have a k (it may be annealed); None = the option's k.
        dead_F: bool [F], features that have not fired for the dead window; None when none is dead (AuxK is then free).
        dead_M: int64 [M], the same as a list, ascending, where it is known: a step then need not ask the device for it.
        active_share: L0 / F of the step before, from which architectures without a k guess whether this one is sparse; None
            when there was none.
        unit_rows: whether the parameter step has left the decoder's rows at unit norm, so that ``after_step`` need not.
        rounded_W_enc: bfloat16 copy of W_enc [D, F] that the encoder's product is to be taken with; None for W_enc itself.
    """

    step: int = 0
    sparsity_scale: float = 1.0
    k: int | None = None
    dead_F: Tensor | None = None
    dead_M: Tensor | None = None
    active_share: float | None = None
    unit_rows: bool = False
    rounded_W_enc: Tensor | None = None


@dataclass(slots=True)
class StepLoss:
    """What a training step gives back. All tensors are detached except ``total`` from ``training_loss``.

    Attributes:
        total: 0-d, the value that is minimised.
        parts: 0-d tensors by name: always ``mse`` (mean_b |x - xhat|^2); ``sparsity`` (before its coefficient),
            ``aux`` where they exist.
        fired_F: int64 [F], number of rows in which each feature was active.
        threshold: 0-d, smallest kept activation of the batch, for architectures that calibrate a threshold.
    """

    total: Tensor
    parts: dict[str, Tensor]
    fired_F: Tensor
    threshold: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


class SparseAutoencoder(nn.Module):
    """Base class. Subclasses set the class attributes, create their own parameters, and fill in the rule and the loss.

    Args:
        d_in: width of the activation, D.
        d_sae: number of features, F.
        options: the architecture's options; None for its defaults.
        device: where the parameters live.
        dtype: float32 for training; float64 is for tests.

    Raises:
        ConfigError: for widths below 1 or options that do not fit the width.
    """

    architecture: ClassVar[str]
    """Name in configs, files and on pages."""
    Options: ClassVar[type[ArchitectureOptions]] = ArchitectureOptions
    revival: ClassVar[Revival] = "none"
    """How dead features are brought back: by an auxiliary loss, or by re-initialising them."""
    adam_betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    rate_factor: ClassVar[float] = 1.0
    """Default learning rate of this architecture over the general rule."""
    sparsity_warmup: ClassVar[float] = 0.1
    """Share of the steps over which the sparsity term rises (jumprelu's target falls), where the configuration has none."""
    clip_norm: ClassVar[float | Literal["unit"]] = 1.0
    """Largest norm of the whole gradient where the configuration has none; ``unit``: each step's is brought to 1."""
    calibrated: ClassVar[bool] = False
    """Whether the inference threshold has to be fitted after training (``calibrate``)."""

    splits_batches: ClassVar[bool] = False
    """Whether several processes may share a batch: its loss is a mean over rows but for what it asks ``Workspace.ranks``."""
    splits_features: ClassVar[bool] = False
    """Whether several processes may share its features: what its step sums over features it sums over ``Workspace.features``."""
    trainable: ClassVar[bool] = True
    """Whether NeuronMap trains it. Others can be read, run and saved only (``neuronmap.saes.inference``)."""
    reads: ClassVar[Reads] = "rows"
    """What ``encode`` takes: rows [..., D], each for itself; whole contexts [B, T, D]; or rows of L hooks [..., L, D]."""
    reconstructs_input: ClassVar[bool] = True
    """Whether the reconstruction is one of the input. That of a transcoder is one of another hook's activation."""
    signed: ClassVar[bool] = False
    """Whether feature activations may be negative."""

    cuts_pre_activations: ClassVar[bool] = True
    """Whether ``StepLoss.threshold``, where there is one, cuts ``pre_activations(x)``; not so where the encoder looks twice."""

    input_norm: str = "none"
    """How each row is normalised before the encoder: a rule of :mod:`neuronmap.saes.normalisation`. Stored in the bundle."""
    provenance: Provenance | None = None
    """Where it comes from; set by the trainer and by ``load_sae``, None for one that was put together by hand."""
    slice: FeatureSlice | None = None
    """Which of all features these are, where processes share them; ``d_sae`` is then how many are here. None for a whole SAE."""

    W_enc: nn.Parameter
    """[D, F]; in memory [F, D]"""
    W_dec: nn.Parameter
    """[F, D], rows of unit norm"""
    b_dec: nn.Parameter
    """[D]"""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        options: ArchitectureOptions | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self._set_sizes(d_in, d_sae, options)
        # Stored by feature, as W_dec is: a feature's column is then contiguous for its gradient and its update.
        self.W_enc = nn.Parameter(torch.zeros(d_sae, d_in, device=device, dtype=dtype).T)
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in, device=device, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(d_in, device=device, dtype=dtype))

    def _set_sizes(self, d_in: int, d_sae: int, options: ArchitectureOptions | None) -> None:
        """Keep what was asked for, if it makes sense."""
        if d_in < 1 or d_sae < 1:
            raise ConfigError(f"An SAE needs d_in >= 1 and d_sae >= 1, got d_in={d_in} and d_sae={d_sae}.")
        self.d_in, self.d_sae = d_in, d_sae
        self.options = options if options is not None else self.Options()
        self.options.check_width(d_in, d_sae)

    @property
    def whole_d_sae(self) -> int:
        """F, with the features that other processes hold."""
        return self.d_sae if self.slice is None else self.slice.whole

    @property
    def device(self) -> torch.device:
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_dec.dtype

    # --- inference -----------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations [..., F] of raw activations [..., D]: dense, fresh and writable; one row never depends on another."""
        raise NotImplementedError

    def decode(self, f: Tensor) -> Tensor:
        """Reconstruction [..., D] of feature activations [..., F], on the scale of the input where ``input_norm`` is none."""
        return f @ self.W_dec + self.b_dec

    def complete(self, xhat: Tensor, x: Tensor) -> Tensor:
        """What :meth:`decode` (or :meth:`decode_entries`) gives, with all that needs the rows ``x`` themselves.

        Here that is undoing ``input_norm``; nothing, and no copy, where it is none.
        """
        return undo_normalisation(xhat, x, self.input_norm)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The reconstruction [..., D] of activations [..., D], on their scale: ``complete(decode(encode(x)), x)``."""
        return self.complete(self.decode(self.encode(x)), x)

    def forward(self, x: Tensor) -> Tensor:
        """:meth:`reconstruct`."""
        return self.reconstruct(x)

    def normalised(self, x: Tensor) -> Tensor:
        """Rows as the encoder sees them; every ``encode`` and ``encode_entries`` starts with it, training never does."""
        return normalise(x, self.input_norm)

    def decoder_scale(self, x: Tensor) -> Tensor | float:
        """What a decoder row counts for in the reconstruction of ``x`` [..., D]: [..., 1], or 1.0 without ``input_norm``.

        A feature of activation f adds f * decoder_scale(x) * W_dec_j to it.
        """
        return output_scale(x, self.input_norm)

    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode | None:
        """What :meth:`encode` keeps, without the [B, F] matrix.

        Args:
            x_BD: activations, in the SAE's precision.
            workspace: scratch space, and which kernels run.

        Returns:
            Every active entry, perhaps with others of value 0 among them; None where so many are active that :meth:`encode` is
            quicker, and for architectures without such a form. Sums are taken in another order than in ``encode``, so an entry
            within rounding of its threshold may be in one and not in the other.
        """
        del x_BD, workspace
        return None

    def decode_entries(self, code: SparseCode) -> Tensor:
        """``decode`` of a code, [B, D]."""
        xhat_BD = torch.nn.functional.embedding_bag(
            code.feature_N.long(), self.W_dec, code.offset_R, mode="sum", per_sample_weights=code.value_N,
            include_last_offset=True,
        )  # fmt: skip
        return xhat_BD.add_(self.b_dec)

    def pre_activations(self, x: Tensor) -> Tensor:
        """[..., F]: (x - b_dec) @ W_enc + b_enc. Architectures without ``b_enc`` override what they need."""
        b_enc: Tensor = self.b_enc  # type: ignore[assignment]
        return (x - self.b_dec) @ self.W_enc + b_enc

    # --- training ------------------------------------------------------------------------------------------------

    def initialise(self, mean_D: Tensor, generator: torch.Generator) -> None:
        """Decoder rows uniform on the unit sphere, encoder along the decoder's rows, b_dec = mean of the data, other biases zero.

        The encoder's columns have the length that :meth:`encoder_start` says.

        Args:
            mean_D: [D] mean of the scaled training rows.
            generator: the run's seeded CPU generator; nothing else is random.
        """
        with torch.no_grad():
            rows_FD = drawn_rows(self.slice or FeatureSlice(0, self.d_sae, self.d_sae), self.d_in, generator)
            rows_FD /= rows_FD.norm(dim=1, keepdim=True).clamp_min(1e-12)
            self.W_dec.copy_(rows_FD)
            self.W_enc.copy_(rows_FD.T * self.encoder_start())
            self.b_dec.copy_(mean_D)

    def encoder_start(self) -> float:
        """Length of the encoder's columns before training; what is best was measured (docs/experiments.md)."""
        return 1.0

    def training_loss(self, x_BD: Tensor, state: StepState) -> StepLoss:
        """The loss as an equation, differentiable by autograd: the reference that the fast path must equal."""
        raise NotImplementedError

    def loss_and_gradients(self, x_BD: Tensor, state: StepState, workspace: Workspace) -> StepLoss:
        """Overwrite ``.grad`` of every parameter with the gradient of the loss, and return the loss, detached.

        This default runs autograd on :meth:`training_loss`; every built-in architecture overrides it with
        hand-written gradients over the buffers of ``workspace``. Gradient tensors are kept between steps.
        """
        del workspace
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        with torch.enable_grad():
            loss = self.training_loss(x_BD, state)
            loss.total.backward()  # type: ignore[no-untyped-call]
        loss.total = loss.total.detach()
        loss.parts = {name: part.detach() for name, part in loss.parts.items()}
        return loss

    def project_decoder_gradient(self) -> None:
        """Remove from the decoder's gradient the part along each row, which the unit norm would undo anyway."""
        if self.W_dec.grad is not None:
            with torch.no_grad():
                along_F1 = torch.linalg.vecdot(self.W_dec.grad, self.W_dec).unsqueeze(1)
                self.W_dec.grad.addcmul_(along_F1, self.W_dec, value=-1.0)

    def after_step(self, loss: StepLoss, state: StepState) -> None:
        """Restore what the optimiser step may have broken: unit decoder rows here; thresholds in subclasses (call super)."""
        del loss
        if state.unit_rows:
            return
        with torch.no_grad():
            self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True).clamp_min_(1e-12))

    def calibrate(self, batches: Callable[[], Iterable[Tensor]]) -> dict[str, float]:
        """Fit what inference needs and training does not (a threshold), from scaled rows [B, D]; batches() may be called again.

        Returns:
            Figures for the metadata (``threshold``, ``l0``); empty for architectures that need nothing.
        """
        del batches
        return {}

    # --- folding and files ---------------------------------------------------------------------------------------

    def fold_input_scale(self, scale: float) -> None:
        """Turn an SAE trained on ``scale * x`` into one for raw ``x``, decoder rows still of unit norm.

        All rules here are positively homogeneous, so pre-activations, biases and thresholds divide by ``scale`` and
        the weight matrices stay: f_raw = f / scale, xhat_raw = xhat / scale.

        Raises:
            ConfigError: for one with an ``input_norm``, which takes the scale of a row away itself.
        """
        if self.input_norm != "none":
            raise ConfigError(
                f"An SAE whose input_norm is {self.input_norm!r} has no input scale to fold: every row is normalised."
            )
        with torch.no_grad():
            for bias in self.scaled_tensors():
                bias.div_(scale)

    def scaled_tensors(self) -> list[Tensor]:
        """Tensors in units of the activation (b_dec, b_enc, thresholds), which folding divides by the input scale."""
        raise NotImplementedError

    def saelens_config(self) -> dict[str, Any]:
        """``architecture`` and extra keys of SAELens 6's ``cfg.json`` for the inference form."""
        raise NotImplementedError

    def saelens_tensors(self) -> dict[str, Tensor]:
        """Tensors of ``sae_weights.safetensors`` under SAELens 6's names, for the inference form.

        Here the parameters as they are; architectures whose names or inference form differ override both this and
        :meth:`from_saelens`.
        """
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @classmethod
    def from_saelens(cls, config: dict[str, Any], tensors: dict[str, Tensor], options: ArchitectureOptions) -> Self:
        """The inverse of the two above (their checks on shapes and keys are done by ``neuronmap.saes.bundle``)."""
        del config
        W_enc_DF = tensors["W_enc"]
        d_in, d_sae = W_enc_DF.shape
        sae = cls(d_in, d_sae, options, device=W_enc_DF.device, dtype=W_enc_DF.dtype)
        sae.load_state_dict(tensors)
        return sae

    def save(self, folder: str | Path, metadata: Any) -> Path:
        """Write a bundle (``cfg.json`` + ``sae_weights.safetensors``); see :func:`neuronmap.saes.bundle.save_bundle`."""
        from neuronmap.saes.bundle import save_bundle

        return save_bundle(self, Path(folder), metadata)

    @classmethod
    def load(cls, folder: str | Path, *, device: torch.device | str = "cpu", verify: bool = True) -> SparseAutoencoder:
        """Read a bundle of any architecture; see :func:`neuronmap.saes.bundle.load_sae`."""
        from neuronmap.saes.bundle import load_sae

        return load_sae(Path(folder), device=device, verify=verify)
