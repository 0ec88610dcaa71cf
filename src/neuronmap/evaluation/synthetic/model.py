"""The synthetic model: true directions, and rows drawn block by block so that any range of rows is always the same.

Rows are drawn in blocks of 1,024, each from a generator of its own seeded by (seed, stream, block). Row n is
therefore the same however many rows are asked for at once, and any block can be drawn without the ones before it.
The draws of a CPU and of a GPU differ, and so do their rows; on one kind of device they repeat.

Only what can fire is drawn. Given the hidden cause z of a row, features fire independently of each other; so roots and free
features are drawn first, and then, generation by generation, only the children of parents that fire. That is the
law of SynthSAEBench (arXiv 2602.14687), where all G features are drawn and orphans are deleted, at a fraction of the cost.

Shapes: N rows, D width, G true features, R rank of the correlation, E entries of a batch of rows, K children of a parent.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from neuronmap.errors import DamagedError, InputError
from neuronmap.evaluation.synthetic.settings import Firing, SyntheticConfig
from neuronmap.hashing import digest_parts
from neuronmap.paths import read_json, write_bytes, write_json

__all__ = ["BLOCK_ROWS", "SyntheticModel", "Truth", "overlaps"]

BLOCK_ROWS = 1024
"""Rows of a block. Training shuffles blocks of as many rows, so each read draws one block."""

TENSORS, SETTINGS = "truth.safetensors", "synthetic.json"
FORMAT = "neuronmap-synthetic"
_LEAST_OWN = 0.01
"""Least share of a feature's variance that is its own; a longer row of the correlation's factor is shortened."""
_CHUNK_VALUES = 1 << 25


@dataclass(frozen=True)
class Truth:
    """Which features fire in some rows, and how strongly: the rows of a sparse matrix [N, G], entries in ascending order.

    Attributes:
        offset_N: int64 [N + 1], where each row's entries start.
        feature_E: int64 [E], the features that fire.
        value_E: [E], their magnitudes, all positive.
        num_features: G.
    """

    offset_N: Tensor
    feature_E: Tensor
    value_E: Tensor
    num_features: int

    @property
    def num_rows(self) -> int:
        return self.offset_N.numel() - 1

    def row_E(self) -> Tensor:  # noqa: N802 (shape suffix)
        """int64 [E], row of each entry."""
        rows_N = torch.arange(self.num_rows, device=self.offset_N.device)
        return rows_N.repeat_interleave(self.offset_N.diff())

    def dense(self) -> Tensor:
        """[N, G]; for small models."""
        dense_NG = self.value_E.new_zeros(self.num_rows, self.num_features)
        dense_NG[self.row_E(), self.feature_E] = self.value_E
        return dense_NG

    def rows(self, start: int, stop: int) -> Truth:
        """Rows ``start`` to ``stop``."""
        first, last = int(self.offset_N[start]), int(self.offset_N[stop])
        offset_N = self.offset_N[start : stop + 1] - first
        return Truth(offset_N, self.feature_E[first:last], self.value_E[first:last], self.num_features)

    @classmethod
    def joined(cls, parts: list[Truth]) -> Truth:
        """Rows one after the other."""
        if len(parts) == 1:
            return parts[0]
        lengths_N = torch.cat([part.offset_N.diff() for part in parts])
        offset_N = torch.cat([lengths_N.new_zeros(1), lengths_N.cumsum(0)])
        feature_E, value_E = (torch.cat([getattr(part, name) for part in parts]) for name in ("feature_E", "value_E"))
        return cls(offset_N, feature_E, value_E, parts[0].num_features)


class SyntheticModel:
    """Rows whose features are known. Made by :meth:`from_config`, or read by :meth:`load`.

    Args:
        config: the settings.
        tensors: what :meth:`tensors` gives, on the device where rows are to be drawn.

    Attributes:
        config: the settings.
        dictionary_GD: float32 [G, D], the true directions, of unit length.
        bias_D: [D], added to every row.
        probability_G: [G], how often a feature fires where nothing forbids it: given its parent, without siblings.
        base_G: [G], the law of the configuration, before the hierarchy changes it.
        mean_G, std_G: [G], of the magnitudes.
        parent_G: int64 [G], parent of each feature; -1 for roots and for features outside the trees.

    Example:
        >>> from neuronmap.evaluation.synthetic import SyntheticModel, synthetic_preset
        >>> model = SyntheticModel.from_config(synthetic_preset("tiny"))
        >>> x_ND, truth = model.sample(0, 2048)
        >>> x_ND.shape, truth.num_rows
        (torch.Size([2048, 32]), 2048)
    """

    def __init__(self, config: SyntheticConfig, tensors: dict[str, Tensor]) -> None:
        self.config = config
        self.dictionary_GD = tensors["dictionary_GD"]
        self.bias_D = tensors["bias_D"]
        self.base_G, self.probability_G = tensors["base_G"], tensors["probability_G"]
        self.mean_G, self.std_G = tensors["mean_G"], tensors["std_G"]
        self.parent_G = tensors["parent_G"]
        self.factor_GR = tensors["factor_GR"]
        self._tensors = tensors
        self._prepare()

    @classmethod
    def from_config(cls, config: SyntheticConfig, device: torch.device | str = "cpu") -> Self:
        """Draw the directions and everything else that is fixed. The 16k preset takes a minute or two on a CPU core: keep it."""
        device = torch.device(device)
        base_G = firing_probabilities(config.firing, config.features)
        parent_G = _parents(config)
        generator = _generator(config.seed, "directions", 0, torch.device("cpu"))
        dictionary_GD = torch.randn(config.features, config.d_in, generator=generator)
        dictionary_GD /= dictionary_GD.norm(dim=1, keepdim=True)
        bias_D = torch.randn(config.d_in, generator=generator)
        bias_D *= config.bias_norm / bias_D.norm()
        dictionary_GD = _pushed_apart(dictionary_GD.to(device), config.orthogonal_steps, config.orthogonal_rate)
        magnitudes = config.magnitudes
        spread_G = torch.randn(config.features, generator=_generator(config.seed, "spread", 0, torch.device("cpu")))
        tensors = {
            "dictionary_GD": dictionary_GD,
            "bias_D": bias_D,
            "base_G": base_G,
            "probability_G": _compensated(base_G, parent_G, config),
            "mean_G": torch.linspace(magnitudes.mean_first, magnitudes.mean_last, config.features),
            "std_G": (magnitudes.spread_mean + magnitudes.spread_std * spread_G).abs(),
            "parent_G": parent_G,
            "factor_GR": _factor(config),
        }
        return cls(config, {name: tensor.to(device).contiguous() for name, tensor in tensors.items()})

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: if there is no synthetic model in the folder.
            DamagedError: if a file cannot be read or the two do not belong together.
        """
        folder = Path(folder)
        if not (folder / SETTINGS).is_file():
            raise InputError(f"There is no synthetic model in {folder} ({SETTINGS} is missing).")
        document = read_json(folder / SETTINGS)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise DamagedError(f"{folder / SETTINGS} is not the description of a synthetic model.")
        config = SyntheticConfig.from_dict(document["config"])
        try:
            tensors = safetensors.torch.load_file(folder / TENSORS, device=str(device))
            model = cls(config, tensors)
        except (SafetensorError, KeyError, OSError) as error:
            raise DamagedError(f"{folder / TENSORS} cannot be read: {error}.", hint="Make the model again.") from error
        if model.digest != document["digest"]:
            raise DamagedError(
                f"{folder / TENSORS} is not what {SETTINGS} describes: its digest differs.",
                hint="Make the model again.",
            )
        return model

    def save(self, folder: str | Path) -> None:
        """Write ``truth.safetensors`` and ``synthetic.json`` into a folder, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / TENSORS, safetensors.torch.save({name: t.cpu() for name, t in self._tensors.items()}))
        document = {"format": FORMAT, "version": 1, "config": self.config.to_dict(), "digest": self.digest}
        write_json(folder / SETTINGS, document)

    @property
    def device(self) -> torch.device:
        return self.dictionary_GD.device

    @property
    def digest(self) -> str:
        """Digest of the settings and of every fixed tensor, so of the rows too (on one kind of device)."""
        parts = [self.config.digest().encode()]
        for name, tensor in sorted(self._tensors.items()):
            parts += [name.encode(), tensor.cpu().numpy().tobytes()]
        return digest_parts(parts)

    def sample(self, start: int, stop: int, stream: str = "rows") -> tuple[Tensor, Truth]:
        """Rows ``start`` to ``stop`` of one endless stream, and what they are made of.

        Args:
            start, stop: from 0.
            stream: name of the stream; others are independent of it (training, calibration, measuring).

        Returns:
            x [N, D] and the truth, on the model's device.

        Raises:
            InputError: for a range that is empty or begins below 0.
        """
        if not 0 <= start < stop:
            raise InputError(f"Rows {start} to {stop} were asked for; they are counted from 0, and there must be some.")
        xs: list[Tensor] = []
        truths: list[Truth] = []
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first = block * BLOCK_ROWS
            x_ND, truth = self.block(block, stream)
            cut = slice(max(start - first, 0), min(stop - first, BLOCK_ROWS))
            if cut != slice(0, BLOCK_ROWS):
                x_ND, truth = x_ND[cut], truth.rows(cut.start, cut.stop)
            xs.append(x_ND)
            truths.append(truth)
        return (xs[0] if len(xs) == 1 else torch.cat(xs)), Truth.joined(truths)

    @torch.no_grad()
    def block(self, block: int, stream: str = "rows") -> tuple[Tensor, Truth]:
        """All rows of one block [1024, D], and their truth."""
        generator = _generator(self.config.seed, stream, block, self.device)
        truth = self._truth(generator)
        x_ND = self.compose(truth)
        if self.config.noise_std:
            x_ND += self.config.noise_std * torch.randn(x_ND.shape, generator=generator, device=self.device)
        return x_ND, truth

    def compose(self, truth: Truth) -> Tensor:
        """Rows [N, D] of some truth, without noise."""
        x_ND = torch.nn.functional.embedding_bag(
            truth.feature_E, self.dictionary_GD, truth.offset_N, mode="sum", per_sample_weights=truth.value_E,
            include_last_offset=True,
        )  # fmt: skip
        return x_ND.add_(self.bias_D)

    # --- drawing -------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """What every block needs, worked out once."""
        self._own_G = (1 - self.factor_GR.double().square().sum(1)).clamp_min(_LEAST_OWN).sqrt().float()
        # P(e > t) = p; a feature that always fires has t = -inf
        self._threshold_G = (math.sqrt(2) * torch.erfinv(1 - 2 * self.probability_G.double())).float()
        self._top_T = torch.nonzero(self.parent_G < 0).view(-1)
        children = torch.nonzero(self.parent_G >= 0).view(-1)
        count_G = torch.bincount(self.parent_G[children], minlength=self.config.features)
        self._children_G = count_G
        first_G = torch.full_like(self.parent_G, self.config.features)
        first_G.scatter_reduce_(0, self.parent_G[children], children, "amin")
        self._first_child_G = first_G
        self._depth = self.config.hierarchy.depth if self.config.hierarchy is not None and children.numel() else 0
        self._factor_top_RT = self.factor_GR[self._top_T].T.contiguous()

    def _truth(self, generator: torch.Generator) -> Truth:
        device, G, N = self.device, self.config.features, BLOCK_ROWS
        z_NR = torch.randn(N, self.factor_GR.shape[1], generator=generator, device=device)
        row_e, feature_e = self._tops(z_NR, generator)
        value_e = self._magnitudes(feature_e, generator)
        row_e, feature_e, value_e = _only(value_e > 0, row_e, feature_e, value_e)
        generations = [(row_e, feature_e, value_e)]
        for _ in range(self._depth):
            row_e, feature_e, value_e = self._offspring(z_NR, generations[-1], generator)
            generations.append((row_e, feature_e, value_e))
        row_E, feature_E, value_E = (torch.cat(parts) for parts in zip(*generations, strict=True))
        order_E = (row_E * G + feature_E).argsort()
        offset_N = torch.zeros(N + 1, dtype=torch.int64, device=device)
        torch.cumsum(torch.bincount(row_E, minlength=N), 0, out=offset_N[1:])
        return Truth(offset_N, feature_E[order_E], value_E[order_E], G)

    def _tops(self, z_NR: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Row and feature of the roots and free features that fire; as many at a time as memory allows."""
        rows, features = [], []
        step = max(1, _CHUNK_VALUES // BLOCK_ROWS)
        for start in range(0, len(self._top_T), step):
            part = slice(start, start + step)
            top_T = self._top_T[part]
            e_NT = torch.randn(BLOCK_ROWS, len(top_T), generator=generator, device=self.device)
            e_NT *= self._own_G[top_T]
            e_NT.addmm_(z_NR, self._factor_top_RT[:, part])
            place_e2 = torch.nonzero(e_NT > self._threshold_G[top_T])
            rows.append(place_e2[:, 0])
            features.append(top_T[place_e2[:, 1]])
        return torch.cat(rows), torch.cat(features)

    def _offspring(
        self, z_NR: Tensor, parents: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Children that fire, of parents that do: row, feature and magnitude."""
        row_e, feature_e, value_e = parents
        hierarchy = self.config.hierarchy
        if hierarchy is None:
            return parents
        row_P, parent_P, value_P = _only(self._children_G[feature_e] > 0, row_e, feature_e, value_e)
        order_K = torch.arange(hierarchy.branching, device=self.device)
        exists_PK = order_K < self._children_G[parent_P].unsqueeze(1)
        child_PK = torch.where(exists_PK, self._first_child_G[parent_P].unsqueeze(1) + order_K, 0)
        e_PK = torch.randn(child_PK.shape, generator=generator, device=self.device) * self._own_G[child_PK]
        if self.factor_GR.shape[1]:
            e_PK += torch.einsum("pr,pkr->pk", z_NR[row_P], self.factor_GR[child_PK])
        fires_PK = exists_PK & (e_PK > self._threshold_G[child_PK])
        value_PK = self._magnitudes(child_PK, generator)
        if hierarchy.scale_by_parent:
            value_PK *= (value_P / self.mean_G[parent_P]).unsqueeze(1)
        fires_PK &= value_PK > 0
        if hierarchy.exclusive:
            drawn_PK = torch.rand(child_PK.shape, generator=generator, device=self.device)
            winner_P = torch.where(fires_PK, drawn_PK, -1.0).argmax(1)
            fires_PK &= order_K == winner_P.unsqueeze(1)
        return row_P.unsqueeze(1).expand_as(child_PK)[fires_PK], child_PK[fires_PK], value_PK[fires_PK]

    def _magnitudes(self, feature: Tensor, generator: torch.Generator) -> Tensor:
        """Magnitudes of features [...]; one that is not positive does not fire."""
        drawn = torch.randn(feature.shape, generator=generator, device=self.device)
        return self.mean_G[feature] + self.std_G[feature] * drawn


def firing_probabilities(firing: Firing, features: int) -> Tensor:
    """float32 [G], from the most frequent feature to the rarest."""
    if firing.law == "constant":
        return torch.full((features,), firing.p_max)
    law_G = torch.arange(1, features + 1, dtype=torch.float64) ** -firing.exponent
    share_G = (law_G - law_G[-1]) / (law_G[0] - law_G[-1])
    return (firing.p_min + (firing.p_max - firing.p_min) * share_G).float()


def overlaps(dictionary_GD: Tensor, chunk: int = 1024) -> Tensor:
    """float32 [G], largest |cosine| of each direction with any other: how much of it the others could pass for."""
    found = []
    for start in range(0, len(dictionary_GD), chunk):
        cosine_cG = (dictionary_GD[start : start + chunk] @ dictionary_GD.T).abs()
        rows = torch.arange(len(cosine_cG), device=cosine_cG.device)
        cosine_cG[rows, rows + start] = 0
        found.append(cosine_cG.amax(1))
    return torch.cat(found)


def _generator(seed: int, stream: str, block: int, device: torch.device) -> torch.Generator:
    text = f"neuronmap synthetic {seed} {stream} {block}".encode()
    return torch.Generator(device).manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:7], "little"))


def _only(keep_e: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[keep_e] for part in parts)


def _parents(config: SyntheticConfig) -> Tensor:
    """int64 [G], parent of each feature: generation after generation in order of the features, until they run out."""
    parent_G = torch.full((config.features,), -1)
    if config.hierarchy is None:
        return parent_G
    start, stop = 0, config.hierarchy.roots
    for _ in range(config.hierarchy.depth):
        place = torch.arange((stop - start) * config.hierarchy.branching)[: config.features - stop]
        parent_G[stop : stop + len(place)] = start + place // config.hierarchy.branching
        start, stop = stop, stop + len(place)
    return parent_G


def _compensated(base_G: Tensor, parent_G: Tensor, config: SyntheticConfig) -> Tensor:
    """Probability of firing given the parent. Compensated as in SynthSAEBench: base / base of the parent, times 1 + what the siblings
    expect to fire given the parent; at most 1."""
    if config.hierarchy is None:
        return base_G.clone()
    child_C = torch.nonzero(parent_G >= 0).view(-1)
    if config.hierarchy.child_probability is not None:
        return base_G.index_fill(0, child_C, config.hierarchy.child_probability)
    if not config.hierarchy.compensate:
        return base_G.clone()
    base_GX, parent_C = base_G.double(), parent_G[child_C]
    parent_base_C, probability_G = base_GX[parent_C], base_GX.clone()
    probability_G[child_C] /= parent_base_C
    if config.hierarchy.exclusive:
        family_G = torch.zeros_like(base_GX).index_add_(0, parent_C, base_GX[child_C])
        probability_G[child_C] *= 1 + (family_G[parent_C] - base_GX[child_C]).clamp_min(0) / parent_base_C
    return probability_G.clamp_(max=1.0).float()


def _factor(config: SyntheticConfig) -> Tensor:
    """[G, R], how each feature depends on the hidden cause; R = 0 without correlation."""
    if config.correlation is None:
        return torch.zeros(config.features, 0)
    generator = _generator(config.seed, "correlation", 0, torch.device("cpu"))
    factor_GR = config.correlation.scale * torch.randn(config.features, config.correlation.rank, generator=generator)
    longest = math.sqrt(1 - _LEAST_OWN)
    return factor_GR.mul_((longest / factor_GR.norm(dim=1, keepdim=True)).clamp(max=1.0))


def _pushed_apart(start_GD: Tensor, steps: int, rate: float) -> Tensor:
    """Unit rows after Adam steps on  sum_{i≠j} (d_i·d_j)² + G sum_i (|d_i|² - 1)².

    The gradient of the first term is 4 (E EᵀE - |d|² E): through EᵀE [D, D] it costs G D² and never G².
    """
    rows_GD = start_GD.clone().requires_grad_(True)
    adam = torch.optim.Adam([rows_GD], lr=rate)
    for _ in range(steps):
        with torch.no_grad():
            norm2_G1 = rows_GD.square().sum(1, keepdim=True)
            along_GD = rows_GD * (4 * len(rows_GD) * (norm2_G1 - 1) - 4 * norm2_G1)
            rows_GD.grad = along_GD.addmm_(rows_GD, rows_GD.T @ rows_GD, alpha=4.0)
        adam.step()
    return torch.nn.functional.normalize(rows_GD.detach(), dim=1)
