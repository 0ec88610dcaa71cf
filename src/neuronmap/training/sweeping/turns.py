"""Sessions that take turns: one scratch space and one set of gradients for all, a random state for each.

What a step needs besides the SAE and its optimiser is then that of the largest SAE, however many there are; and no SAE's random numbers
depend on which others are trained beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, Workspace
from neuronmap.saes.kernels.choice import screens_products
from neuronmap.training.config import SAEConfig

__all__ = ["Seat", "Turns"]


class Turns:
    """What sessions on one device share.

    Args:
        device: where their SAEs are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._space = Workspace(device)

    @property
    def nbytes(self) -> int:
        """Bytes of scratch space and gradients together."""
        return self._space.nbytes

    def seat(self, config: SAEConfig) -> Seat:
        """A place for one session, with its random state at the beginning. Call inside ``torch.random.fork_rng``."""
        screens = screens_products(config.compute_dtype)
        own = self._space.beside(kernels=config.kernels, products=config.products, screens=screens)
        return Seat(self._space, own, config.seed)


class Seat:
    """One session's place: its workspace, its random state, and which gradients it needs.

    Args:
        space: where gradients are kept for all.
        workspace: of the session, on the same buffers.
        seed: of its random state.
    """

    def __init__(self, space: Workspace, workspace: Workspace, seed: int) -> None:
        self.workspace = workspace
        self._space = space
        self._gradients: list[str] = []
        torch.manual_seed(seed)
        self._keep_random()

    @contextmanager
    def turn(self, sae: SparseAutoencoder | None = None) -> Iterator[None]:
        """The session's turn: its random state is the global one, and the gradients are its own until the end.

        Args:
            sae: its SAE, if a step will be made. A parameter without a gradient after the first step is no part of the loss and gets none.
        """
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self.workspace.device)
        parameters = dict(sae.named_parameters()) if sae is not None else {}
        for name in self._gradients if sae is not None else ():
            parameter = parameters[name]
            flat = self._space.get(f"gradient.{name}", (parameter.numel(),), parameter.dtype)
            parameter.grad = flat.as_strided(parameter.shape, parameter.stride())
        try:
            yield
        finally:
            if sae is not None:
                self._gradients = [name for name, parameter in parameters.items() if parameter.grad is not None]
            for parameter in parameters.values():
                parameter.grad = None
            self._keep_random()

    def _keep_random(self) -> None:
        device = self.workspace.device
        self._cpu: Tensor = torch.get_rng_state()
        self._cuda: Tensor | None = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
