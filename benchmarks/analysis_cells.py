"""What the analysis benchmark measures, and what the figures should be.

A cell is one tool's analysis of one SAE over some contexts; cells of a group see the same rows and the same SAE and take turns.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

OURS = "neuronmap"
PEER = "sae_dashboard"
CONTEXT = 128
K = 32
BATCH = 4096
"""Rows of the reference product."""
MILLION = 1 << 20

PASS_GOAL = 1.3
"""Most that the whole token pass may take, in products of the encoder over the same rows."""
LEAD_GOAL = 25.0
"""Times SAEDashboard, its model forward made free."""
MEMORY_GOAL_GIB = 24.0
"""Of a dictionary of a million features."""

Made = Literal["trained", "rows"]
"""trained: by our trainer, some hundred steps. rows: decoder rows are centred rows of the data, which costs no training."""


@dataclass(frozen=True)
class Cell:
    """One analysis.

    Attributes:
        tool: OURS or PEER.
        variant: the peer's settings: ``defaults`` of its SaeVisConfig, or those of its ``neuronpedia`` runner; else empty.
        architecture: of the SAE; batchtopk is stored, and read by the peer, as jumprelu.
        made: how the SAE came to be.
        features: F.
        contexts: of CONTEXT tokens each.
        batch: rows of the reference product.
    """

    tool: str
    variant: str = ""
    architecture: str = "topk"
    made: Made = "trained"
    features: int = 4096
    contexts: int = 1024
    batch: int = BATCH

    @property
    def label(self) -> str:
        """As a row of a table is called."""
        return {OURS: "neuronmap", PEER: "SAEDashboard"}[self.tool] + (f" ({self.variant})" if self.variant else "")

    @property
    def sae(self) -> str:
        """Name of the SAE's bundle."""
        return f"{self.architecture}-{self.made}-{self.features}"

    @property
    def group(self) -> tuple[Any, ...]:
        """Cells with the same are compared with each other."""
        return self.architecture, self.made, self.features, self.contexts

    def order(self) -> dict[str, Any]:
        """As a worker is told."""
        return {**asdict(self), "sae": self.sae, "context": CONTEXT}


@dataclass(frozen=True)
class Sizes:
    """How much of everything a run measures.

    Attributes:
        tokens: harvested; the longest of the token series.
        compared: contexts that all tools see.
        widths: F of the comparison.
        architectures: of the comparison.
        rounds: turns of everybody; ours makes one whole pass a turn.
        peer_steps: feature batches of the peer in a turn, by variant.
        growth_features: F of the growth table, on ``growth_contexts`` contexts.
        growth_tokens: of the growth table, at ``growth_width``.
        growth_passes: passes of a growth cell that count.
        training_steps: of the compared SAEs.
    """

    tokens: int = 524_288
    compared: int = 1024
    widths: tuple[int, ...] = (4096, 16_384)
    architectures: tuple[str, ...] = ("topk", "batchtopk")
    rounds: int = 4
    peer_steps: tuple[tuple[str, int], ...] = (("defaults", 1), ("neuronpedia", 1))
    growth_features: tuple[int, ...] = (1024, 4096, 16_384, 65_536)
    growth_contexts: int = 512
    growth_tokens: tuple[int, ...] = (32_768, 65_536, 131_072, 262_144, 524_288)
    growth_width: int = 4096
    growth_passes: int = 3
    peer_tokens: int = 131_072
    training_steps: int = 200

    @property
    def grid_contexts(self) -> int:
        """Contexts that the peer gets: those that are compared, and what it sees of the growth."""
        return max(self.compared, *(cell.contexts for cell in self.cells() if cell.tool == PEER))

    def cells(self) -> list[Cell]:
        """All but the million."""
        grown = [cell for groups in self.growth().values() for group in groups for cell in group]
        return [cell for group in self.comparison() for cell in group] + grown

    def comparison(self) -> list[list[Cell]]:
        """Groups of the main table."""
        return [
            [
                Cell(OURS, "", architecture, "trained", features, self.compared),
                *(
                    Cell(PEER, variant, architecture, "trained", features, self.compared)
                    for variant, _ in self.peer_steps
                ),
            ]
            for features in self.widths
            for architecture in self.architectures
        ]

    def growth(self) -> dict[str, list[list[Cell]]]:
        """Name of what grows -> groups; the peer stands beside ours where its rows reach."""
        by_features = [self._grown(features, self.growth_contexts) for features in self.growth_features]
        by_tokens = [self._grown(self.growth_width, tokens // CONTEXT) for tokens in self.growth_tokens]
        return {"F": by_features, "tokens": by_tokens}

    def _grown(self, features: int, contexts: int) -> list[Cell]:
        ours = Cell(OURS, "", "topk", "rows", features, contexts)
        # A feature batch of the peer encodes all features of a top-k SAE: above this its matrix alone takes gigabytes.
        if contexts * CONTEXT > self.peer_tokens or features > max(self.widths):
            return [ours]
        return [ours, Cell(PEER, "defaults", "topk", "rows", features, contexts)]

    def million(self) -> Cell:
        """The dictionary of a million features, on few tokens."""
        return Cell(OURS, "", "topk", "rows", MILLION, 64, batch=256)


FULL = Sizes()
QUICK = Sizes(
    tokens=34_816,
    compared=256,
    widths=(4096,),
    rounds=2,
    growth_features=(1024, 4096, 16_384),
    growth_contexts=64,
    growth_tokens=(8192, 16_384, 32_768),
    growth_width=4096,
    growth_passes=2,
    training_steps=100,
)
