"""Named buffers that live as long as the run.

On a CPU, writing a freshly allocated 4096 x 4096 float32 tensor costs about ten times an in-place pass over an
old one (the system hands out zeroed pages one fault at a time), so a training step asks for its scratch space
by name and gets the same memory each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuronmap.saes.ranks import ALONE, Ranks

__all__ = ["Workspace"]


class Workspace:
    """A dictionary of scratch tensors; a buffer grows when asked for more and is otherwise reused.

    The content of a buffer is whatever its last user left: write before reading.

    Args:
        device: where the buffers live.
        kernels: backend of the steps that use this workspace (:mod:`neuronmap.saes.kernels.choice`).
        products: whether they run sparse or dense; ``auto`` goes by the share of active entries.
        screens: whether the native kernels screen large products in bfloat16; None: where the CPU has units for it.
        ranks: the processes that share each batch; this one alone when left out.
        features: the processes that share the features of the SAE; this one alone when left out.
        everyone: all of them; ``ranks`` when left out.

    Attributes:
        ran: how the last step's products were done, ``sparse`` or ``dense``; empty before the first.
        backends: backends made for this workspace, by name; filled by the choice.
        chosen: of those, the one for sparse products, by what was asked for; filled by the choice.
        constants: small tensors that backends keep on the device, by name and content.
        last_cut: the smallest activation that the batch rule kept on all ranks at the step before; 0 when not known.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        kernels: str = "auto",
        products: str = "auto",
        screens: bool | None = None,
        ranks: Ranks = ALONE,
        features: Ranks = ALONE,
        everyone: Ranks | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.kernels, self.products, self.screens = kernels, products, screens
        self.ranks, self.features, self.everyone = ranks, features, everyone or ranks
        self.last_cut = 0.0
        self.ran = ""
        self.backends: dict[str, Any] = {}
        self.chosen: dict[str, Any] = {}
        self.constants: dict[tuple[Any, ...], Tensor] = {}
        self._flat: dict[tuple[str, torch.dtype], Tensor] = {}

    def beside(self, *, kernels: str = "auto", products: str = "auto", screens: bool | None = None) -> Workspace:
        """A workspace for another SAE on the same buffers: for SAEs that take turns, so that their scratch space is that of the largest.

        Backends are its own, because some remember figures of the step before; buffers carry nothing from step to step.
        """
        other = Workspace(self.device, kernels=kernels, products=products, screens=screens)
        other._flat = self._flat
        return other

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """A contiguous tensor of ``shape``; the same memory for the same name and dtype, content undefined."""
        count = 1
        for length in shape:
            count *= length
        flat = self._flat.get((name, dtype))
        if flat is None or flat.numel() < count:
            flat = torch.empty(count, dtype=dtype, device=self.device)
            self._flat[name, dtype] = flat
        return flat[:count].view(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held by all buffers together."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())
