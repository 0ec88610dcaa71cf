"""What a training step takes, and how an SAE is divided among devices when it does not fit on one.

On a CPU a step is what ``training/plan.py`` says: a multiple of its encoder product G, measured. On a GPU it is a sum of parts, each bound
by products or by memory (coefficients of one H200 at B = 32,768; the other cells of that benchmark are a check, docs/scale.md):

    step = 2BDF / product rate                      the encoder
         + passes x 2BF / copy rate                 selection
         + entry bytes x BkD / copy rate            decoding, both weight gradients
         + (gradient + update bytes / data_parallel) x 2DF / copy rate
         + launches + exchange between devices

Features are split over ``tensor_parallel`` devices (each holds F / tp of them), rows over ``data_parallel``; of these each keeps the
moments of a share of its features, and updates those. What the devices exchange: reconstructions and candidates within a group, gradients
and updated weights between groups (a ring), none of it hidden behind arithmetic.

Legend: B rows a step, D width, F features, k active features a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from neuronmap.planning.coefficients import value_of
from neuronmap.planning.hardware import Device

__all__ = ["TrainingCost", "cost_of_training"]

_SHUFFLED_ROWS = 1_000_000
_MOST_DEVICES = 4096
_SELECTIONS = {"topk": "selection_topk", "batchtopk": "selection_batchtopk", "matryoshka": "selection_batchtopk"}
_USUAL_L0 = 64


@dataclass(frozen=True)
class TrainingCost:
    """Training one SAE.

    Attributes:
        rows: activations, each seen once.
        batch_rows: B, over all devices.
        steps: optimiser steps.
        flops: arithmetic of all steps: the encoder's product and the four over active entries.
        step_seconds: expected time of one step.
        exchange_seconds: of it, waiting for other devices.
        seconds: of all steps.
        parameter_bytes: weights in float32, whole.
        optimiser_bytes: gradient, both moments and, where products are rounded, the encoder in bfloat16; whole.
        step_bytes: scratch of a step, on each device.
        device_bytes: all that lies on each device.
        shuffle_bytes: main memory of the rows that are mixed at once.
        tensor_parallel: devices that the features are split over.
        data_parallel: groups of them, that the rows are split over.
        fits: whether ``device_bytes`` is below what may be used.
        needed_devices: smallest number that holds the SAE, a power of two; None above 4,096.
        selection: coefficient of selection that counts.
        measured_architecture: whether a step of this architecture was measured on this kind of device.
    """

    rows: int
    batch_rows: int
    steps: int
    flops: float
    step_seconds: float
    exchange_seconds: float
    seconds: float
    parameter_bytes: int
    optimiser_bytes: int
    step_bytes: int
    device_bytes: int
    shuffle_bytes: int
    tensor_parallel: int
    data_parallel: int
    fits: bool
    needed_devices: int | None
    selection: str
    measured_architecture: bool


def cost_of_training(
    device: Device,
    *,
    d_in: int,
    d_sae: int,
    rows: int,
    architecture: str,
    k: int | None,
    contexts: int | None,
    context_length: int,
    devices: int,
    row_values: int,
    beside_bytes: int,
) -> TrainingCost:
    """Cost of one pass over ``rows``.

    Args:
        device: what it runs on.
        d_in, d_sae: D and F.
        rows: activations.
        architecture: of the SAE.
        k: its k; the architecture's usual one when None.
        contexts: contexts a step, over all devices; None for what a run of so many rows takes.
        context_length: tokens of each.
        devices: how many there are.
        row_values: bytes of a value while rows are mixed.
        beside_bytes: what else lies on each device (the language model, when streaming).

    Raises:
        ConfigError: an architecture or a k that cannot be.
    """
    sizes = _Sizes(device, d_in, d_sae, architecture, k, rows, contexts, context_length)
    most = devices if sizes.splits_features else 1
    splits = [(parts, devices // parts) for parts in range(1, most + 1) if devices % parts == 0]
    room = device.usable_bytes - beside_bytes
    # The least divided: what sharing features costs beside products and messages was never measured.
    split = next((split for split in splits if sizes.device_bytes(*split) <= room), splits[-1])
    fits = sizes.device_bytes(*split) <= room
    powers = [1 << power for power in range(_MOST_DEVICES.bit_length() if sizes.splits_features else 1)]
    needed = next((parts for parts in powers if sizes.device_bytes(parts, 1) <= room), None) if device.is_gpu else 1
    step, exchange = sizes.seconds(*split)
    B = sizes.batch_rows
    steps = max(1, rows // B)
    return TrainingCost(
        rows=rows,
        batch_rows=B,
        steps=steps,
        flops=steps * (2.0 * B * d_in * d_sae + 8.0 * B * sizes.k * d_in),
        step_seconds=step,
        exchange_seconds=exchange,
        seconds=steps * step,
        parameter_bytes=sizes.weights(1),
        optimiser_bytes=sizes.moments(1, 1),
        step_bytes=sizes.scratch(*split),
        device_bytes=sizes.device_bytes(*split) + beside_bytes,
        shuffle_bytes=min(rows, _SHUFFLED_ROWS) * (d_in * row_values + 8) * (2 if rows > _SHUFFLED_ROWS else 1),
        tensor_parallel=split[0],
        data_parallel=split[1],
        fits=fits,
        needed_devices=needed if device.is_gpu or fits else None,
        selection=sizes.selection,
        measured_architecture=not device.is_gpu or architecture in _SELECTIONS,
    )


class _Sizes:
    """One SAE on one kind of device, divided or not."""

    def __init__(
        self,
        device: Device,
        d_in: int,
        d_sae: int,
        architecture: str,
        k: int | None,
        rows: int,
        contexts: int | None,
        context_length: int,
    ) -> None:
        from neuronmap.saes import get_architecture
        from neuronmap.saes.topk import TopKFamily
        from neuronmap.training.config import SAEConfig

        self._config = SAEConfig(
            input_dim=d_in,
            hidden_dim=d_sae,
            architecture=architecture,
            k=k,
            batch_size=contexts,
            context_length=context_length,
            heldout_tokens=max(16_384, context_length),
        ).for_rows(rows)
        self.batch_rows = self._config.batch_rows
        options = self._config.sae_options(d_in)
        self._class = get_architecture(self._config.resolved_architecture)
        self._architecture = self._config.resolved_architecture
        self.splits_features: bool = self._class.splits_features
        self._device, self._d_in, self._d_sae = device, d_in, d_sae
        self._rounds = device.is_gpu and issubclass(self._class, TopKFamily)
        self.k: int = min(getattr(options, "k", _USUAL_L0), d_sae)
        self.selection = _SELECTIONS.get(self._architecture, "selection_topk")

    def _features(self, tp: int) -> int:
        return ceil(self._d_sae / tp)

    def weights(self, tp: int) -> int:
        from neuronmap.training.plan import weight_bytes

        return weight_bytes(self._d_in, self._features(tp))

    def moments(self, tp: int, dp: int) -> int:
        from neuronmap.training.plan import optimiser_bytes

        return optimiser_bytes(self._d_in, self._features(tp), self._rounds, dp)

    def scratch(self, tp: int, dp: int) -> int:
        """Of a step on one device; a group's every device sees all rows of the group."""
        import torch

        from neuronmap.saes.kernels.choice import describe
        from neuronmap.training.plan import step_bytes

        kernels = "triton" if self._device.is_gpu else describe(torch.device("cpu"), "auto").split(" ")[0]
        part = self._config.updated(
            hidden_dim=self._features(tp),
            batch_size=max(1, ceil(self.batch_rows / self._config.context_length / dp)),
            k=self._k_of_part(tp),
        )
        return step_bytes(part, self._class, self._d_in, kernels)

    def _k_of_part(self, tp: int) -> int | None:
        return None if self._config.k is None else min(self._config.k, self._features(tp))

    def device_bytes(self, tp: int, dp: int) -> int:
        return self.weights(tp) + self.moments(tp, dp) + self.scratch(tp, dp)

    def seconds(self, tp: int, dp: int) -> tuple[float, float]:
        """Of a step, and of the exchange in it."""
        from neuronmap.training.plan import step_seconds

        B, F, d = self._config.batch_rows / dp, self._features(tp), self._d_in
        product = 2.0 * B * d * F / self._device.product_flops
        if not self._device.is_gpu:
            return step_seconds(self._architecture, product, d, F), 0.0
        if self._architecture not in _SELECTIONS:
            ratio = step_seconds(self._architecture, 1.0, 0, 0) / step_seconds("topk", 1.0, 0, 0)
            product *= ratio
        moved = (
            value_of(self.selection) * 2.0 * B * F
            + value_of("entry_bytes") * B * self.k * d
            + (value_of("gradient_bytes") + value_of("update_bytes") / dp) * 2.0 * d * F
        )
        exchange = self._exchange(tp, dp, B, F)
        return product + moved / self._device.copy_rate + value_of("launches_gpu") + exchange, exchange

    def _exchange(self, tp: int, dp: int, rows: float, features: int) -> float:
        within = (2 * (tp - 1) / tp * 4 * rows * self._d_in) + (tp - 1) * 8 * rows * self.k
        between = 2 * (dp - 1) / dp * 4 * 2 * self._d_in * features
        return (within + between) / (self._device.link * value_of("link_share"))
