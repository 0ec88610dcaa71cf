"""The plan of a whole run: harvest, training, analysis; what each takes, whether it fits, how it has to be split, what it costs.

    E = FLOPs per token to the hook        harvest s  = tokens x E / (harvest rate x devices)
    G = 2 B D F / product rate             training s = steps x step (see ``steps.py``)
    row = D x itemsize (+ 4) + 16 bytes    store      = rows x row

Legend: B rows a step, D width of the activation, F features, T tokens of a context.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

from pydantic import Field

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError
from neuronmap.planning.coefficients import COEFFICIENTS, value_of
from neuronmap.planning.hardware import Device, find_device
from neuronmap.planning.shapes import ModelShape, find_shape
from neuronmap.planning.steps import TrainingCost, cost_of_training

__all__ = ["AnalysisCost", "CostPlan", "HarvestCost", "PlanRequest", "StorageCost", "plan_costs"]

_TOKEN_BYTES = {True: 10, False: 12}
"""Of the token cache: id (2 bytes up to 65,536 entries, else 4), document and position."""
_STORED = {"auto": 2, "float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}


class PlanRequest(FrozenConfig):
    """What is to be planned.

    Raises:
        ConfigError: for unknown keys and values out of range.
    """

    model: str
    """A known name, a folder with a config.json, or a hub id."""
    layer: int | None = Field(default=None, ge=0)
    """Block whose activations are used; the middle one when left out."""
    component: str = "residual"
    """residual, residual_pre, mlp, mlp_hidden, attention or attention_heads."""
    width: int = Field(ge=1)
    """Features of the SAE."""
    tokens: int = Field(ge=1)
    """Tokens of text to harvest and train on, once."""
    architecture: str = "batchtopk"
    """Architecture of the SAE."""
    k: int | None = Field(default=None, ge=1)
    """Active features per activation, for the top-k family; 64 when left out."""
    batch_size: int | None = Field(default=None, ge=1)
    """Contexts per step, over all devices; 4,096 activations when left out, in a short run fewer."""
    context_length: int = Field(default=128, ge=2)
    """Tokens per context."""
    store_dtype: Literal["auto", "float16", "bfloat16", "float32", "int8"] = "auto"
    """Number format of stored activations; auto counts two bytes."""
    stream: bool = False
    """Activations are not stored: the model and the SAE are on the devices at the same time."""
    device: str = "cpu"
    """cpu for this machine, or a GPU by name."""
    gpus: int = Field(default=1, ge=1)
    """Number of devices."""
    analysis_tokens: int = Field(default=524_288, ge=1)
    """Tokens that the features are analysed on."""
    price: float | None = Field(default=None, gt=0)
    """Price of one device for one hour, in any currency."""


@dataclass(frozen=True)
class HarvestCost:
    """Running the language model.

    Attributes:
        flops_per_token: to the hook.
        flops: of all tokens.
        seconds: on all devices together.
        tokens_per_second: of all devices together.
        model_bytes: its weights, in bfloat16 on GPUs, float32 on a CPU.
        devices_a_copy: devices that one copy of the model is spread over.
    """

    flops_per_token: float
    flops: float
    seconds: float
    tokens_per_second: float
    model_bytes: int
    devices_a_copy: int


@dataclass(frozen=True)
class StorageCost:
    """Bytes on disk.

    Attributes:
        row: of one stored activation, with where it comes from.
        store: of all; 0 when streamed.
        tokens: of the token cache.
        checkpoints: of the two that are kept and the one being written.
        bundle: of the finished SAE.
        features: of its feature store.
    """

    row: int
    store: int
    tokens: int
    checkpoints: int
    bundle: int
    features: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.store + self.tokens + self.checkpoints + self.bundle + self.features


@dataclass(frozen=True)
class AnalysisCost:
    """The feature pass.

    Attributes:
        tokens: it reads.
        seconds: on one device; running the model over the tokens is in it.
        state_bytes: main memory.
    """

    tokens: int
    seconds: float
    state_bytes: int


@dataclass(frozen=True)
class CostPlan:
    """A plan and what it rests on.

    Attributes:
        request: what was asked, every default filled in.
        model: sizes of the language model.
        device: the device.
        harvest, training, storage, analysis: the parts.
        gpu_hours: devices times hours, of all parts; hours of this machine for ``cpu``.
        hours: from start to end.
        money: ``gpu_hours`` times the price, or None without one.
        notes: what the numbers do not say.
    """

    request: PlanRequest
    model: ModelShape
    device: Device
    harvest: HarvestCost
    training: TrainingCost
    storage: StorageCost
    analysis: AnalysisCost
    gpu_hours: float
    hours: float
    money: float | None
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether all of it fits on the devices."""
        return self.training.fits and self.harvest.devices_a_copy <= self.request.gpus

    def rests_on(self) -> dict[str, dict[str, Any]]:
        """The coefficients that decide this plan, by name: value, unit, kind, source."""
        gpu, several = self.device.is_gpu, self.request.gpus > 1
        left_out = {
            "harvest_share_cpu": gpu, "harvest_share_gpu": not gpu, "product_share_gpu": not gpu, "copy_share": not gpu,
            "selection_topk": not gpu or self.training.selection != "selection_topk",
            "selection_batchtopk": not gpu or self.training.selection != "selection_batchtopk",
            "entry_bytes": not gpu, "gradient_bytes": not gpu, "update_bytes": not gpu, "launches_gpu": not gpu,
            "link_share": not several,
            "storing": self.request.stream,
        }  # fmt: skip
        return {name: asdict(made) for name, made in COEFFICIENTS.items() if not left_out.get(name, False)}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "request": self.request.to_dict(),
            "model": {**asdict(self.model), "parameters": self.model.parameters},
            "device": asdict(self.device),
            "harvest": asdict(self.harvest),
            "training": asdict(self.training),
            "storage": {**asdict(self.storage), "total": self.storage.total},
            "analysis": asdict(self.analysis),
            "fits": self.fits,
            "gpu_hours": self.gpu_hours,
            "hours": self.hours,
            "money": self.money,
            "notes": list(self.notes),
            "coefficients": self.rests_on(),
        }


def plan_costs(request: PlanRequest, *, product_flops: float | None = None) -> CostPlan:
    """Work a plan out.

    Args:
        request: what is to be planned.
        product_flops: operations a second of one large product on the device, where you have measured it: instead of the documented
            peak's share, or of measuring this machine now.

    Returns:
        The plan; whether it fits is said in it, not raised.

    Raises:
        ConfigError: for a device, block, component or architecture that does not exist, or several ``cpu``.
        ModelNotFoundError, ModelFormatError: the model's sizes cannot be found.

    Example:
        >>> request = PlanRequest(model="gpt2", layer=8, width=16_384, tokens=100_000_000, device="h100")
        >>> plan_costs(request).storage.row
        1552
    """
    shape = find_shape(request.model)
    layer = shape.num_layers // 2 if request.layer is None else request.layer
    request = request.updated(layer=layer)
    if request.device == "cpu" and request.gpus != 1:
        raise ConfigError(f"gpus = {request.gpus} with device = 'cpu': a plan for this machine counts it once.")
    device = find_device(request.device, product_flops=product_flops)
    width = shape.hook_width(request.component)
    rows = int(request.tokens * (request.context_length - 1) / request.context_length)
    harvest = _harvest(request, shape, device)
    beside = ceil(harvest.model_bytes / harvest.devices_a_copy) if request.stream else 0
    training = cost_of_training(
        device,
        d_in=width,
        d_sae=request.width,
        rows=rows,
        architecture=request.architecture,
        k=request.k,
        contexts=request.batch_size,
        context_length=request.context_length,
        devices=request.gpus,
        row_values=4 if request.store_dtype in ("float32", "int8") else 2,
        beside_bytes=beside,
    )
    storage = _storage(request, shape, width, rows, training)
    analysis = _analysis(request, shape, device, width, harvest)
    working = (harvest.seconds + training.seconds) * request.gpus + analysis.seconds
    return CostPlan(
        request=request,
        model=shape,
        device=device,
        harvest=harvest,
        training=training,
        storage=storage,
        analysis=analysis,
        gpu_hours=working / 3600,
        hours=(harvest.seconds + training.seconds + analysis.seconds) / 3600,
        money=None if request.price is None else request.price * working / 3600,
        notes=_notes(request, shape, harvest, training, storage, analysis),
    )


def _harvest(request: PlanRequest, shape: ModelShape, device: Device) -> HarvestCost:
    flops = shape.flops_per_token(request.layer or 0, request.component, request.context_length)
    seconds = request.tokens * flops / (device.harvest_flops * request.gpus)
    if not request.stream:
        seconds *= value_of("storing")
    model_bytes = shape.parameters * (2 if device.is_gpu else 4)
    return HarvestCost(
        flops_per_token=flops,
        flops=flops * request.tokens,
        seconds=seconds,
        tokens_per_second=request.tokens / seconds,
        model_bytes=model_bytes,
        devices_a_copy=ceil(model_bytes / device.usable_bytes),
    )


def _storage(request: PlanRequest, shape: ModelShape, width: int, rows: int, training: TrainingCost) -> StorageCost:
    row = width * _STORED[request.store_dtype] + (4 if request.store_dtype == "int8" else 0) + 16
    return StorageCost(
        row=row,
        store=0 if request.stream else rows * row,
        tokens=request.tokens * _TOKEN_BYTES[shape.vocabulary <= 1 << 16],
        checkpoints=3 * 3 * training.parameter_bytes,  # weights and two moments
        bundle=training.parameter_bytes,
        features=int(request.width * value_of("feature_bytes")),
    )


def _analysis(
    request: PlanRequest, shape: ModelShape, device: Device, width: int, harvest: HarvestCost
) -> AnalysisCost:
    product = device.product_flops
    model = request.analysis_tokens * harvest.flops_per_token / device.harvest_flops
    encoding = value_of("analysis_pass") * 2.0 * request.analysis_tokens * width * request.width / product
    weights = (
        value_of("analysis_weights") * 2.0 * request.width * shape.width * (shape.vocabulary + request.width) / product
    )
    finishing = value_of("analysis_start") + value_of("analysis_finish") * request.width
    return AnalysisCost(
        tokens=request.analysis_tokens,
        seconds=model + encoding + weights + finishing,
        state_bytes=int(value_of("analysis_state") * request.width),
    )


def _notes(
    request: PlanRequest,
    shape: ModelShape,
    harvest: HarvestCost,
    training: TrainingCost,
    storage: StorageCost,
    analysis: AnalysisCost,
) -> tuple[str, ...]:
    notes = ["Checkpoints and held-out measurements, at most a twentieth of training each, are not in the seconds."]
    if not request.stream and request.device != "cpu":
        rate = training.batch_rows * storage.row / training.step_seconds
        notes.append(
            f"Training reads {rate / 1e9:,.1f} GB/s from the store; a slower disk or network sets the time instead."
        )
    if harvest.devices_a_copy > request.gpus:
        notes.append(
            f"{shape.name} alone does not fit: {harvest.devices_a_copy} devices are needed for one copy of its weights."
        )
    elif harvest.devices_a_copy > 1:
        notes.append(f"One copy of {shape.name} is spread over {harvest.devices_a_copy} devices.")
    if not training.fits:
        from neuronmap.saes import get_architecture

        needed = training.needed_devices
        notes.append(
            "The SAE does not fit: "
            + (
                f"{needed} devices hold it."
                if needed is not None
                else "a CPU run is not split over machines; choose a GPU (--device)."
                if request.device == "cpu"
                else f"the features of {request.architecture} cannot be shared by several devices."
                if not get_architecture(request.architecture).splits_features
                else "no number of devices up to 4,096 holds it."
            )
        )
    if training.tensor_parallel > 1:
        notes.append("Splitting over features is reckoned, not measured; so are all-reduces over several devices.")
    if not training.measured_architecture:
        notes.append(
            f"No step of {request.architecture} was measured on such a device; its share of products is that of a CPU."
        )
    if analysis.state_bytes > 256 << 30:
        notes.append(
            "The feature pass needs more main memory than most hosts have; analyse ranges of features in turn."
        )
    return tuple(notes)
