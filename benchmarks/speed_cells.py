"""What the speed benchmark measures, and what the figures should be.

A cell is one library's trainer at one size; a group is the cells that are measured in turn, on the same rows, in the same
minutes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Literal

OURS = "neuronmap"
LIBRARIES = (OURS, "saelens", "dictionary_learning", "sparsify")
WITH_K = ("topk", "batchtopk", "matryoshka")
WITHOUT_K = ("relu", "jumprelu", "gated")
ARCHITECTURES = (*WITH_K, *WITHOUT_K)
LEVELS = (1 / 16, 1 / 8, 1 / 4, 9 / 16)
BATCH = 4096

Start = Literal["usual", "sparse", "dense"]
"""usual: the weights and rates a run starts with. sparse, dense: biases or thresholds shifted so that 64, or half, of the
features are active, and a learning rate of zero that keeps them so."""


@dataclass(frozen=True)
class Cell:
    """One trainer.

    Attributes:
        library: one of LIBRARIES.
        architecture, start: what is trained, from where.
        variant: ours: the path (``speed_session.PATHS``); eai-sparsify: the optimiser; else empty.
        width, features, batch: D, F and B.
        k: active features a row; 0 where there is no k.
        dead: share of features that are treated as dead.
    """

    library: str
    architecture: str
    start: Start = "usual"
    variant: str = ""
    width: int = 576
    features: int = 4096
    k: int = 32
    batch: int = BATCH
    dead: float = 0.0

    @property
    def label(self) -> str:
        """As a row of a table is called."""
        return " ".join(word for word in (self.library, self.variant, "with AuxK" if self.dead else "") if word)

    @property
    def group(self) -> tuple[Any, ...]:
        """Cells with the same are compared with each other."""
        return self.architecture, self.start, self.width, self.features, self.k, self.batch

    def order(self) -> dict[str, Any]:
        """As a worker is told."""
        return {**asdict(self), "widths": list(accumulate(round(share * self.features) for share in LEVELS))}


@dataclass(frozen=True)
class Effort:
    """How often a cell is measured.

    Attributes:
        rounds: turns of each cell.
        steps: timed steps of a turn, at most.
        seconds: a turn stops asking for more steps after about that long.
        warm_up, peer_warm_up: steps before the first turn. Ours takes more: the first steps of a batch rule search
            for their threshold.
    """

    rounds: int
    steps: int
    seconds: float
    warm_up: int
    peer_warm_up: int


def effort(features: int, quick: bool) -> Effort:
    """More where a step is short."""
    if features <= 8192:
        return Effort(3 if quick else 5, 5, 2.0, 10, 2)
    if features <= 16_384:
        return Effort(3, 3, 4.0, 6, 1)
    return Effort(2, 2, 10.0, 3, 1)


def table(quick: bool, paths: tuple[str, ...]) -> list[list[Cell]]:
    """The groups of the main table."""
    widths, sizes, ks = ((576,), (4096, 16_384), (32,)) if quick else ((576, 768), (4096, 16_384, 65_536), (16, 32, 64))
    groups = []
    for width in widths:
        for features in sizes:
            for architecture in ARCHITECTURES:
                for k in ks if architecture in WITH_K else (0,):
                    starts: tuple[Start, ...] = ("usual",) if architecture in WITH_K else ("sparse", "dense")
                    for start in starts:
                        base = Cell(OURS, architecture, start, "auto", width, features, k)
                        groups.append(_group(base, quick, paths))
    return groups


def _group(base: Cell, quick: bool, paths: tuple[str, ...]) -> list[Cell]:
    ours = [replace(base, variant=path) for path in ("auto", *paths)]
    if base.architecture in WITH_K and base.k == 32:
        ours.append(replace(base, dead=0.05))
    peers = [replace(base, library=library, variant="") for library in ("saelens", "dictionary_learning")]
    if base.architecture == "topk":
        peers += [replace(base, library="sparsify", variant=optimiser) for optimiser in ("adam", "signum")]
    # The peers' dense products cost the same for every k; at the largest size one k has to do, or the run takes a day.
    if base.features > 16_384 and base.k not in (0, 32):
        peers = []
    if quick and (base.architecture == "gated" or base.start == "dense"):
        peers = [cell for cell in peers if cell.library == "saelens"] if base.architecture == "relu" else []
    return ours + peers


def growth(quick: bool) -> dict[str, list[Cell]]:
    """Series of ours in which one number grows; the base is D = 576, F = 8192, k = 32, B = 4096."""
    base = Cell(OURS, "topk", "usual", "auto", 576, 8192, 32)
    ks, sizes = (8, 16, 32, 64, 128, 256), (2048, 4096, 8192, 16_384, 32_768)
    widths, batches = (256, 576, 768, 1536), (512, 1024, 2048, 4096, 8192)
    if quick:
        ks, sizes, widths, batches = (16, 64), (4096, 16_384), (288, 576), (1024, 4096)  # type: ignore[assignment]
    return {
        "k": [replace(base, k=k) for k in ks],
        "F": [replace(base, features=features) for features in sizes],
        "d": [replace(base, width=width) for width in widths],
        "B": [replace(base, batch=batch) for batch in batches],
    }


def tokens(quick: bool) -> tuple[Cell, tuple[int, ...]]:
    """The cell, and lengths in steps, of the series over tokens."""
    return Cell(OURS, "topk", "usual", "auto", 576, 4096, 32), (10, 40) if quick else (10, 20, 40, 80, 160)


def memory(quick: bool, paths: tuple[str, ...]) -> list[Cell]:
    """Cells whose peak is taken, each in a fresh process."""
    cells = []
    for features in (16_384,) if quick else (16_384, 65_536):
        for architecture in ("topk", "batchtopk") if quick else ARCHITECTURES:
            with_k = architecture in WITH_K
            base = Cell(OURS, architecture, "usual" if with_k else "sparse", "auto", 576, features, 32 if with_k else 0)
            cells += [replace(base, variant=path) for path in ("auto", *paths)]
            cells += [replace(base, library=library, variant="") for library in ("saelens", "dictionary_learning")]
            if architecture == "topk":
                cells.append(replace(base, library="sparsify", variant="adam"))
    return cells


GOALS: dict[tuple[str, Start, int], float] = {
    **{(name, "usual", 4096): 1.35 for name in ("topk", "batchtopk")},
    **{(name, "usual", 16_384): 1.1 for name in ("topk", "batchtopk")},
    ("matryoshka", "usual", 4096): 1.6,
    ("matryoshka", "usual", 16_384): 1.25,
    **{(name, "sparse", 4096): 1.6 for name in ("relu", "jumprelu")},
    **{(name, "sparse", 16_384): 1.2 for name in ("relu", "jumprelu")},
    **{(name, "dense", size): 5.0 for name in ("relu", "jumprelu") for size in (4096, 16_384)},
}
"""Most of step over encoder product, by (architecture, start, F), at k = 32."""

PORTABLE_GOALS = {4096: 1.7, 16_384: 1.5}
"""The same for topk and batchtopk without compiled kernels, by F."""

LEAD_GOALS = {"saelens": 6.0, "dictionary_learning": 6.0, "sparsify": 2.0}
"""Least of peer over ours; not asked for at a dense start."""

AUXK_GOAL = 0.3
"""Most that AuxK may add to step over encoder product with 5 % dead features."""
