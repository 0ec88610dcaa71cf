"""``SAEConfig``: everything that decides what a training run does. Defaults follow the field's best practice
where sources agree (see docs/explanation/training.md for each one's origin).

This module does not import torch: ``neuronmap sae train --help`` is made from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError

__all__ = ["OPTION_FIELDS", "SAEConfig"]

_MOST_ROWS, _LEAST_ROWS, _USUAL_STEPS = 4096, 512, 1024
"""The rule for ``batch_size``: short runs gain by more steps, down to 512 rows in each (docs/experiments.md)."""

OPTION_FIELDS = (
    "k",
    "sparsity_penalty",
    "target_l0",
    "sparsity_form",
    "bandwidth",
    "group_fractions",
    "aux_coefficient",
    "aux_k",
)
"""Fields that are handed to the architecture's own options when given."""

DEFAULT_K = 64
"""In the range of L0 (50 to 150) where most quality measures agree (SAEBench, arXiv 2503.09532)."""


class SAEConfig(FrozenConfig):
    """Configuration of one SAE training run.

    Raises:
        ConfigError: for unknown keys, values out of range and combinations that cannot work; each message names
            the field, the value and what is allowed.
    """

    # --- what is looked at ---
    model_name: str | None = None
    """Language model: hub id, local folder, GGUF file, or a sample name such as smollm2-135m. Not needed for training
    on stored activations."""
    revision: str | None = None
    """Revision (branch, tag or commit) of a hub model."""
    layer: int | None = Field(default=None, ge=0)
    """Block whose activations are used, counted from 0. Leave out when component is an explicit module path."""
    component: str = "residual"
    """mlp, attention, residual (block output), residual_pre, mlp_hidden, attention_heads, or a module path with :in or :out."""
    input_dim: int | None = Field(default=None, ge=1)
    """Width of the activation; found from the model when left out, checked against it when given."""

    # --- the SAE ---
    hidden_dim: int | None = Field(default=None, ge=1)
    """Number of features; 8 times the input width when left out."""
    architecture: str = "auto"
    """relu, gated, topk, batchtopk, jumprelu, matryoshka, lista, or a plug-in's name. auto: relu when sparsity_penalty is
    given, else batchtopk."""
    k: int | None = Field(default=None, ge=1)
    """Active features per activation, for topk, batchtopk, matryoshka and lista; 64 when left out."""
    sparsity_penalty: float | None = Field(default=None, gt=0)
    """Weight of the sparsity term, for relu, gated and jumprelu. With unit-energy inputs 0.01 to 0.1 is the usual range for relu."""
    target_l0: float | None = Field(default=None, gt=0)
    """Active features per activation that jumprelu steers to."""
    sparsity_form: Literal["step", "tanh"] | None = None
    """jumprelu: penalise the number of active features (step) or a smooth saturating version (tanh)."""
    bandwidth: float | None = Field(default=None, gt=0)
    """jumprelu: width of the window around the threshold in which the straight-through gradient acts."""
    group_fractions: tuple[float, ...] | None = None
    """matryoshka and lista: shares of the features in each nested level, adding up to 1."""
    aux_coefficient: float | None = Field(default=None, ge=0)
    """topk family: weight of the auxiliary loss that revives dead features."""
    aux_k: int | None = Field(default=None, ge=1)
    """topk family: dead features used per activation in the auxiliary loss; half the input width when left out."""
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the architecture (of a plug-in, say), by name."""

    # --- text and activations ---
    corpus: str | None = None
    """Text source used when train() is given none: a sample name, a file, a folder, a data set id, or a mixture such as
    mix:0.7*sotu,0.3*hf:owner/name."""
    corpus_split: str | None = None
    """Split of a Hugging Face data set."""
    text_column: str | None = None
    """Column that holds the text, in tables."""
    deduplicate: bool = False
    """Leave out documents whose content has come before."""
    context_length: int = Field(default=128, ge=2)
    """Tokens per context."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of text to use for training; all when left out."""
    heldout_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the documents kept apart, chosen by the hash of their text, for every reported metric."""
    heldout_tokens: int = Field(default=16_384, ge=1)
    """Most tokens of held-out text to use during training and for calibration."""
    skip_special: bool = True
    """Leave out special tokens."""
    skip_first_positions: int = Field(default=1, ge=0)
    """Leave out that many first positions of each context; position 0 has an outsize norm in most models."""
    outlier_factor: float | None = Field(default=10.0, gt=1)
    """Leave out activations whose norm exceeds this many times the median; null keeps them."""
    stream: bool = False
    """Harvest while training instead of storing activations first."""
    store_dtype: Literal["auto", "float16", "bfloat16", "float32", "int8"] = "auto"
    """Number format of stored activations. int8 keeps one scale a row: half the bytes of float16, at a small cost in quality."""
    model_dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    """Number format the language model runs in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""

    # --- optimisation ---
    batch_size: int | None = Field(default=None, ge=1)
    """Contexts per step: a step sees batch_size x context_length activations; 4,096 when left out, in a short run fewer (see docs)."""
    num_epochs: float = Field(default=1.0, gt=0)
    """Passes over the training activations."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after that many steps, whatever num_epochs says."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate; 2e-4 / sqrt(hidden_dim / 16384) when left out, raised for runs under 16,000 steps (see docs)."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0 (1,000 steps at most)."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to 0."""
    sparsity_warmup_fraction: float | None = Field(default=None, ge=0, le=1)
    """Share of the steps over which the sparsity term rises from 0 (jumprelu: its target falls); 0.1, for jumprelu 0.3, when left out."""
    k_anneal_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps over which k falls from k_anneal_factor times its value; 0 (no annealing) measured best."""
    k_anneal_factor: float = Field(default=4.0, ge=1)
    """How many times k is at the first step."""
    adam_epsilon: float = Field(default=1e-10, gt=0)
    """Adam's epsilon; gradients are small on unit-energy inputs."""
    clip_norm: Literal["auto", "unit"] | Annotated[float, Field(gt=0)] | None = "auto"
    """Norm of the whole gradient: a number is the largest it may have; unit brings each step's to 1, so that all count alike; null leaves
    it as it is. auto: unit for the top-k family, 1.0 for the others."""
    dead_after_tokens: int | None = Field(default=None, ge=1)
    """A feature is dead after that many activations without firing; when left out min(10 million, a tenth of the run, or a fortieth
    where AuxK revives: the top-k family)."""
    kernels: Literal["auto", "native", "triton", "torch"] = "auto"
    """What runs a step: native (C, on a CPU), triton (on CUDA), torch (public operations, anywhere). auto: the first that can."""
    products: Literal["auto", "sparse", "dense"] = "auto"
    """Whether a step's products go over the active entries or over whole matrices. auto: by the share that is active."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the factors of the encoder's product while training, and then also of pre-activations and of rows that are gathered.
    Weights, gradients and Adam's moments are float32 either way, and so are sums. bfloat16 needs the triton kernels and an architecture of
    the top-k family; auto: bfloat16 there on CUDA, float32 elsewhere. On a CPU with bfloat16 units auto also screens: a product of bfloat16
    factors says where to look, and what is kept has its float32 value; float32 takes the whole product in that precision."""
    feature_ranks: int = Field(default=1, ge=1)
    """Under torchrun: processes that share the features of one SAE, for widths that one GPU does not hold; as many groups of them as there
    are share the rows of a batch. 1: each process holds all weights. The SAE that comes out does not depend on it."""
    seed: int = Field(default=0, ge=0, le=2**40)
    """One seed for initialisation, data order and resampling."""
    data_seed: int | None = Field(default=None, ge=0, le=2**40)
    """Seed of the order of the data alone; seed when left out. The SAEs of a sweep share it, as they share the rows."""

    # --- bookkeeping ---
    name: str | None = None
    """Name of the run and of the SAE; made from model, hook and architecture when left out."""
    tags: tuple[str, ...] = ()
    """Free words to find the SAE by."""
    eval_every_steps: int | None = Field(default=None, ge=1)
    """Steps between looks at 4,096 held-out rows; when left out, up to 20 in a run, at most a twentieth of its time."""
    history_every_steps: int | None = Field(default=None, ge=1)
    """Steps between rows of the training history; about 400 rows when left out."""
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; 10 evenly spread when left out."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """How many checkpoints to keep while the run goes on; at least 2, so that a broken one is never the only one."""
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where to send curves besides the run's own files."""

    @field_validator("tags", "loggers", "group_fractions", mode="before")
    @classmethod
    def _split_words(cls, value: Any) -> Any:
        """``--set tags=a,b``: words with commas between are a list."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse combinations that cannot work before any model is loaded."""
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ConfigError(
                f"SAEConfig.warmup_fraction = {self.warmup_fraction} and decay_fraction = {self.decay_fraction} "
                "add up to more than the whole run (1.0)."
            )
        if self.layer is not None and ":" in self.component:
            raise ConfigError(
                f"SAEConfig.component = {self.component!r} is an explicit module path, which already names its layer; "
                f"layer = {self.layer} must be left out."
            )
        for name in ("max_tokens", "heldout_tokens"):
            if (value := getattr(self, name)) is not None and value < self.context_length:
                raise ConfigError(
                    f"SAEConfig.{name} = {value} is less than one context (context_length = {self.context_length})."
                )
        if self.skip_first_positions >= self.context_length:
            raise ConfigError(
                f"SAEConfig.skip_first_positions = {self.skip_first_positions} leaves nothing of a context of "
                f"context_length = {self.context_length} tokens; it must be smaller."
            )
        width = self.input_dim or self.hidden_dim
        if width is not None:
            self.sae_options(width)
        else:
            self.options_given()
        return self

    @property
    def resolved_architecture(self) -> str:
        """The architecture after the rule for ``auto``."""
        if self.architecture != "auto":
            return self.architecture
        return "relu" if self.sparsity_penalty is not None else "batchtopk"

    @property
    def batch_rows(self) -> int:
        """Activations per step, B. :meth:`for_rows` says what it is where ``batch_size`` was left out."""
        if self.batch_size is None:
            raise RuntimeError("What batch_size = None is depends on the activations: ask for_rows first.")
        return self.batch_size * self.context_length

    def for_rows(self, rows: int) -> Self:
        """A copy whose ``batch_size`` is a number: as given, else 4,096 activations a step, halved down to 512 while all passes would make
        less than 1,024 steps (or ``max_steps``), and a whole context at least.

        Args:
            rows: activations to train on.
        """
        if self.batch_size is not None:
            return self
        steps = min(_USUAL_STEPS, self.max_steps or _USUAL_STEPS)
        batch = _MOST_ROWS
        while batch > _LEAST_ROWS and rows * self.num_epochs < steps * batch:
            batch //= 2
        return self.updated(batch_size=max(1, batch // self.context_length))

    @property
    def order_seed(self) -> int:
        """Seed of the order of the data."""
        return self.seed if self.data_seed is None else self.data_seed

    def width(self, input_dim: int) -> int:
        """Number of features F for an activation of that width."""
        return self.hidden_dim if self.hidden_dim is not None else 8 * input_dim

    def corpus_fields(self) -> dict[str, Any]:
        """How the text source is read, as ``open_corpus`` takes it."""
        return {"split": self.corpus_split, "text_column": self.text_column, "deduplicate": self.deduplicate}

    def mask_fields(self) -> dict[str, Any]:
        """The fields that decide which positions are left out, as ``MaskConfig`` takes them."""
        return {name: getattr(self, name) for name in ("skip_special", "skip_first_positions", "outlier_factor")}

    def options_given(self) -> dict[str, Any]:
        """Options of the architecture that were set, checked to be ones it takes.

        Raises:
            ConfigError: names the field and the architectures that have it.
        """
        from neuronmap.saes.registry import architecture_options, get_options

        own = get_options(self.resolved_architecture)
        given = {name: getattr(self, name) for name in OPTION_FIELDS if getattr(self, name) is not None}
        for name in self.architecture_options:
            if name in OPTION_FIELDS:
                raise ConfigError(
                    f"SAEConfig.architecture_options['{name}'] has a field of its own: set {name} instead."
                )
        given.update(self.architecture_options)
        for name, value in given.items():
            if name not in own.model_fields:
                takers = [owner for owner, options in architecture_options().items() if name in options.model_fields]
                allowed = f"it belongs to {', '.join(takers)}" if takers else "no architecture has it"
                raise ConfigError(
                    f"SAEConfig.{name} = {value!r} does not apply to architecture '{self.resolved_architecture}': "
                    f"{allowed}.",
                    hint=f"Options of {self.resolved_architecture}: {', '.join(own.model_fields) or 'none'}.",
                )
        return given

    def sae_options(self, input_dim: int) -> Any:
        """The architecture's options object, checked against the widths."""
        from neuronmap.saes.registry import get_options

        own = get_options(self.resolved_architecture)
        given = self.options_given()
        if "k" in own.model_fields:
            given.setdefault("k", DEFAULT_K)
        try:
            options = own(**given)
            options.check_width(input_dim, self.width(input_dim))
        except ConfigError as error:
            # In the names that the user typed.
            message, hint = (
                text.replace(own.__name__, "SAEConfig").replace("d_sae", "hidden_dim")
                for text in (error.message, error.hint)
            )
            raise ConfigError(message, hint=hint) from None
        return options

    def with_absolute_paths(self) -> Self:
        """A copy in which a model or corpus that is a file or folder here is named by its absolute path."""
        from neuronmap.corpora.specs import absolute_spec

        found = {}
        if self.model_name is not None and Path(self.model_name).exists():
            found["model_name"] = str(Path(self.model_name).resolve())
        if self.corpus is not None and (corpus := absolute_spec(self.corpus)) != self.corpus:
            found["corpus"] = corpus
        return self.updated(**found)
