"""What a sparse training step asks of an engine; every backend (``torch``, ``native``, ``triton``) answers the same questions.

Shapes: B rows, D = d_in, F = d_sae, N entries of a code, L nested levels, M chosen features.

A step of a sparse SAE is three calls. The B x F matrix of pre-activations lives in none of them:

    encode_*           pre = (x - b_dec) @ W_enc + b_enc, and of it only the entries that the rule keeps
    reconstruct        errors of every level, and the gradient of the loss at each kept entry
    weight_gradients   sums over the entries of each feature

followed by the parameter step: ``gradient_energy`` (for clipping) and ``adam``. A backend may choose how it searches and in which
order it adds; what it finds is exact, and the same input gives the same bits. A code may be padded, so that a backend on a GPU has
no need to wait for its size; each backend understands its own codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.workspace import Workspace

__all__ = ["AdamStep", "Encoded", "Encoder", "Kernels", "Reconstruction"]


@dataclass(frozen=True, slots=True)
class Encoder:
    """A product that has not been taken yet: ``centred @ W + b``.

    Attributes:
        centred_BD: x - b_dec, contiguous.
        W_DF: encoder; its memory is feature-major (``W_DF.T`` is contiguous), so a range of features is one block.
        b_F: encoder bias.
        kept_M: int64, ascending; features whose pre-activations are wanted whole as well (the dead ones, for AuxK).
        rounded_DF: a bfloat16 copy of W_DF, of the same layout. A backend that multiplies in bfloat16 then rounds ``centred_BD`` as
            well, and sums in float32; others leave it alone.
    """

    centred_BD: Tensor
    W_DF: Tensor
    b_F: Tensor
    kept_M: Tensor | None = None
    rounded_DF: Tensor | None = None

    @property
    def num_rows(self) -> int:
        return self.centred_BD.shape[0]

    @property
    def num_features(self) -> int:
        return self.W_DF.shape[1]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What was kept of the pre-activations.

    Attributes:
        code: the entries.
        kept_BM: pre-activations of ``Encoder.kept_M``, or None when it was None. Valid until the next encode.
    """

    code: SparseCode
    kept_BM: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Errors of a code's decode, and the gradient that they send back. Valid until the next ``reconstruct``.

    With levels l = 1 .. L of widths w_l, the decode of level l uses features below w_l:
    error_l = f[:, :w_l] @ W_dec[:w_l] - centred, and pulled_l = the sum of error_m over m >= l (detached: over m = l and m = L).

    Attributes:
        error_BD: error of the last level, xhat - x.
        pulled_LBD: what each level's features are pulled by; ``pulled_LBD[0]`` is also what b_dec is pulled by.
        squared_L: mean over rows of |error_l|^2.
        gradient_N: scale * <pulled_l(feature), W_dec[feature]> of each entry's row, l(feature) the first level that holds it.
    """

    error_BD: Tensor
    pulled_LBD: Tensor
    squared_L: Tensor
    gradient_N: Tensor


@dataclass(frozen=True, slots=True)
class AdamStep:
    """Settings of one Adam update (arXiv 1412.6980), as ``torch.optim.Adam`` takes them; ``step`` counts from 1."""

    rate: float
    beta1: float
    beta2: float
    epsilon: float
    step: int


class Kernels(Protocol):
    """A backend. Scratch space lives in the workspace it was made with; a workspace serves one step at a time."""

    workspace: Workspace
    name: ClassVar[str]
    dense_above: ClassVar[float]
    """Share of active entries above which four plain GEMMs are quicker than the sparse products; measured."""

    def encode_top_k(self, encoder: Encoder, k: int) -> Encoded:
        """The k largest of each row, those of them that are positive; ties to the lowest feature."""
        ...

    def encode_top_of_batch(self, encoder: Encoder, count: int) -> Encoded:
        """The ``count`` largest positive entries of the batch (fewer if fewer are positive); ties to the lowest row, then feature."""
        ...

    def encode_above(self, encoder: Encoder, floor_F: Tensor | None, limit: int) -> Encoded | None:
        """All entries above their feature's floor (None: above 0), or None as soon as more than ``limit`` are found.

        ``value_N`` holds the pre-activations, which may be negative if the floor is.
        """
        ...

    def top_k_of(self, pre_BM: Tensor, k: int) -> SparseCode:
        """:meth:`encode_top_k` of pre-activations that are there already."""
        ...

    def keep_top_k(self, pre_BM: Tensor, k: int) -> Tensor:
        """The same, in place: zero everywhere but at the entries that :meth:`top_k_of` would find."""
        ...

    def reconstruct(
        self,
        code: SparseCode,
        W_dec_FD: Tensor,
        centred_BD: Tensor,
        widths: tuple[int, ...],
        scale: float,
        detached: bool = False,
    ) -> Reconstruction:
        """Decode the code at every level and send the errors back to its entries. ``widths`` ascend; the last is F.

        ``detached``: a level's error reaches the features that the level adds and, from the last level, all: pulled_l is then
        error_l + error_L (and error_L for the last).
        """
        ...

    def weight_gradients(
        self,
        code: SparseCode,
        gradient_N: Tensor,
        reconstruction: Reconstruction,
        centred_BD: Tensor,
        widths: tuple[int, ...],
        scale: float,
        out: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Overwrite the gradients of W_enc [D, F], b_enc [F] and W_dec [F, D], given as ``out`` in this order.

        W_dec[j] gets scale * sum_n value_n * pulled_l(j)[row_n], W_enc[:, j] gets sum_n gradient_n * centred[row_n], b_enc[j]
        gets sum_n gradient_n, over the entries n of feature j; features without entries get 0.
        """
        ...

    def gradient_energy(self, W_dec_FD: Tensor, gradient_FD: Tensor, others: Sequence[Tensor]) -> Tensor:
        """0-d: |gW_dec - along the decoder's rows|^2 + the squares of all other gradients. Nothing is written.

        The part along a row of unit norm is taken out, because the renormalisation would undo it; no gradient is changed here.
        """
        ...

    def adam(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        step: AdamStep,
        scale: Tensor,
        unit_rows: bool,
        rounded: Tensor | None = None,
    ) -> None:
        """Update a parameter in place with ``scale`` (0-d) times its gradient, in one pass over memory.

        With ``unit_rows`` the parameter is W_dec [F, D]: the part of the gradient along each row is taken out first, and the
        rows have unit norm afterwards. ``rounded`` receives a bfloat16 copy. All tensors share one memory layout. The gradient's
        content is undefined afterwards.
        """
        ...
