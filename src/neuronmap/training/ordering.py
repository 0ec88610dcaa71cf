"""Frequency order: features that fire often move to the front, where the levels of a nested SAE begin.

Shapes: F = d_sae.

A Matryoshka SAE takes its levels from the order of its features, which is that of their random starts; features that fire rarely
but started early then sit in levels that should hold the general ones. Every 100 steps the features are put in order of
how often they fired lately, with everything that belongs to them: parameters, thresholds, Adam's moments, counters. What the SAE
computes does not change by that, only which features share a level (Chanin 2026 orders them at every step).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.saes import SparseAutoencoder, StepLoss
from neuronmap.saes.slices import feature_axis
from neuronmap.training.dead import DeadFeatures
from neuronmap.training.parameters import ParameterStep

__all__ = ["FrequencyOrder"]

_EVERY = 100
"""Steps between two orderings; each costs as much memory traffic as a parameter step or two."""
_DECAY = 0.99
"""Of the running share of rows in which a feature fires, per step."""


class FrequencyOrder:
    """Keeps the features of one SAE in order.

    Args:
        sae: the SAE.

    Attributes:
        frequency_F: float32 [F], running share of rows in which each feature fired.
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae
        self.frequency_F = torch.zeros(sae.d_sae, device=sae.device)

    def update(self, loss: StepLoss, rows: int) -> None:
        """Count a batch of ``rows`` activations."""
        self.frequency_F.lerp_(loss.fired_F.to(self.frequency_F) / rows, 1 - _DECAY)

    @torch.no_grad()
    def restore_order(self, step: int, parameters: ParameterStep, dead: DeadFeatures) -> bool:
        """Order the features if it is time.

        Args:
            step: steps made.
            parameters: their moments go along.
            dead: its counters go along.

        Returns:
            Whether features changed places.
        """
        if step % _EVERY:
            return False
        order_F = torch.sort(self.frequency_F, descending=True, stable=True).indices
        if bool((order_F[1:] > order_F[:-1]).all()):
            return False
        for name, parameter in self._sae.named_parameters():
            axis = feature_axis(self._sae, parameter)
            if axis is not None:
                _reorder(parameter, axis, order_F)
                parameters.reorder(name, axis, order_F)
        for buffer in self._sae.buffers():
            if buffer.shape == (self._sae.d_sae,):
                _reorder(buffer, 0, order_F)
        if parameters.rounded_W_enc is not None:
            _reorder(parameters.rounded_W_enc, 1, order_F)
        for counter_F in (self.frequency_F, dead.since_fired_F):
            _reorder(counter_F, 0, order_F)
        dead.look()
        return True


def _reorder(tensor: Tensor, axis: int, order_F: Tensor) -> None:
    tensor.copy_(tensor.index_select(axis, order_F))
