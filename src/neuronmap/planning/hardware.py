"""What a device can do at most, from its maker's data sheet; the machine at hand is measured instead."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace

from neuronmap.errors import ConfigError
from neuronmap.planning.coefficients import value_of

__all__ = ["DEVICES", "Device", "find_device"]

GIB = 1 << 30
TERA = 1e12


@dataclass(frozen=True)
class Device:
    """One kind of device.

    Attributes:
        name: what users type.
        title: what it is.
        memory_bytes: its memory.
        peak_flops: dense products of bfloat16 with float32 sums, operations a second; of float32 on a CPU.
        bandwidth: bytes a second to its memory, reads and writes together.
        link: bytes a second that it sends to its neighbours.
        source: where the numbers are from.
        is_gpu: whether SAEs train on it with the Triton kernels and models run in bfloat16.
    """

    name: str
    title: str
    memory_bytes: int
    peak_flops: float
    bandwidth: float
    link: float
    source: str
    is_gpu: bool = True

    @property
    def product_flops(self) -> float:
        """Operations a second of one large product: the measured share of the peak; on a CPU the peak is itself measured."""
        return self.peak_flops * (value_of("product_share_gpu") if self.is_gpu else 1.0)

    @property
    def copy_rate(self) -> float:
        """Bytes a second of a copy, read and written."""
        return self.bandwidth * value_of("copy_share")

    @property
    def harvest_flops(self) -> float:
        """Operations a second while a language model runs."""
        return self.product_flops * value_of("harvest_share_gpu" if self.is_gpu else "harvest_share_cpu")

    @property
    def usable_bytes(self) -> int:
        """Memory that a plan may fill."""
        return int(self.memory_bytes * value_of("usable_memory"))


DEVICES = {
    made.name: made
    for made in (
        Device(
            "a100", "NVIDIA A100 SXM, 80 GB", 80 * GIB, 312 * TERA, 2.039 * TERA, 0.3 * TERA, "A100 data sheet, 2021"
        ),
        Device(
            "h100", "NVIDIA H100 SXM, 80 GB", 80 * GIB, 989 * TERA, 3.35 * TERA, 0.45 * TERA, "H100 data sheet, 2023"
        ),
        Device(
            "h200", "NVIDIA H200 SXM, 141 GB", 139 * GIB, 989 * TERA, 4.8 * TERA, 0.45 * TERA, "H200 data sheet, 2024"
        ),
        Device("b200", "NVIDIA B200, 180 GB", 178 * GIB, 2250 * TERA, 8.0 * TERA, 0.9 * TERA, "B200 data sheet, 2024"),
        Device("l40s", "NVIDIA L40S, 48 GB", 44 * GIB, 362 * TERA, 0.864 * TERA, 0.032 * TERA, "L40S data sheet, 2023"),
        Device(
            "rtx4090",
            "NVIDIA RTX 4090, 24 GB",
            23 * GIB,
            165 * TERA,
            1.008 * TERA,
            0.032 * TERA,
            "Ada white paper, 2022",
        ),
    )
}
"""Devices whose numbers are published, by name. Peaks are dense (no sparsity); the link is one direction of NVLink or PCIe."""

_PRODUCT = (512, 576, 4096)
"""Rows, D and F of the product that measures a CPU: a slice of the step of every benchmark."""


def find_device(name: str, *, product_flops: float | None = None) -> Device:
    """A device by name.

    Args:
        name: ``cpu`` for this machine, or one of :data:`DEVICES`.
        product_flops: for ``cpu``, operations a second of a float32 product; measured now (about 0.1 s) when left out.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name == "cpu":
        return _this_machine(product_flops)
    if name not in DEVICES:
        near = difflib.get_close_matches(name.lower().removeprefix("nvidia").strip(" -_"), DEVICES, n=1)
        raise ConfigError(
            f"device = {name!r} is not known: there are cpu (this machine), {', '.join(DEVICES)}.",
            hint=f"Did you mean {near[0]}?" if near else "Take the nearest, and read docs/scale.md for what decides.",
        )
    found = DEVICES[name]
    return found if product_flops is None else replace(found, peak_flops=product_flops / value_of("product_share_gpu"))


def _this_machine(product_flops: float | None) -> Device:
    import psutil
    import torch

    from neuronmap.training.plan import seconds_per_gemm

    rows, d_in, d_sae = _PRODUCT
    source = "as given"
    if product_flops is None:
        took = seconds_per_gemm(rows, d_in, d_sae, torch.device("cpu"))
        product_flops, source = 2.0 * rows * d_in * d_sae / took, "product measured now"
    return Device(
        name="cpu",
        title=f"this machine, {torch.get_num_threads()} of {os.cpu_count()} threads",
        memory_bytes=int(psutil.virtual_memory().total),
        peak_flops=product_flops,
        bandwidth=0.0,
        link=0.0,
        source=source,
        is_gpu=False,
    )
