"""The whole of an SAE whose features several processes share, as held-out rows are measured with it.

Shapes: B rows, D = d_in, F features of the whole, N entries found by all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuronmap.errors import NeuronMapError
from neuronmap.saes import SparseAutoencoder, Workspace
from neuronmap.saes.kernels.code import SparseCode, offsets
from neuronmap.saes.ranks import Ranks

__all__ = ["WholeView"]


class WholeView:
    """What :func:`~neuronmap.training.session.measure_heldout` asks of an SAE; each process that holds a slice asks at the same time.

    Args:
        sae: this process's slice.
        features: the processes.
    """

    def __init__(self, sae: SparseAutoencoder, features: Ranks) -> None:
        self._sae, self._features = sae, features
        self.d_in, self.d_sae, self.device = sae.d_in, sae.whole_d_sae, sae.device
        self._xhat_BD = torch.empty(0)

    def encode_entries(self, x_BD: Tensor, workspace: Workspace) -> SparseCode:
        """Every active entry, of all features, on every process."""
        found = self._sae.encode_entries(x_BD, workspace)
        if found is None:
            raise NeuronMapError(f"The architecture {self._sae.architecture} gives no list of its active features.")
        code, features = found.trimmed(), self._features
        xhat_BD = self._sae.decode_entries(code)
        if features.rank:
            xhat_BD -= self._sae.b_dec  # which counts once
        self._xhat_BD = features.sum_(xhat_BD)
        counts = features.gathered(torch.tensor([code.num_entries], device=x_BD.device)).view(-1).tolist()
        most = max(counts)

        def of_all(part_n: Tensor) -> Tensor:
            padded_M = part_n.new_zeros(most)
            padded_M[: len(part_n)] = part_n
            return torch.cat([row[:count] for row, count in zip(features.gathered(padded_M), counts, strict=True)])

        row_N, value_N = of_all(code.row_N.long()), of_all(code.value_N)
        feature_N = of_all(code.feature_N.long() + features.rank * self._sae.d_sae)
        row_N, order_N = torch.sort(row_N, stable=True)
        parts = (row_N, feature_N[order_N], value_N[order_N], offsets(row_N, len(x_BD)))
        return SparseCode(*parts, self.d_sae)

    def decode_entries(self, code: SparseCode) -> Tensor:
        """The reconstruction [B, D] of the rows that were encoded last."""
        del code
        return self._xhat_BD

    def complete(self, xhat_BD: Tensor, x_BD: Tensor) -> Tensor:
        """As the SAE's own."""
        return self._sae.complete(xhat_BD, x_BD)
