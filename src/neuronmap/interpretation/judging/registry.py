"""All scorers by name: ours, and those of plug-ins."""

from __future__ import annotations

from neuronmap import plugins
from neuronmap.errors import ConfigError
from neuronmap.interpretation.judging.choices import DetectionScorer, FuzzingScorer
from neuronmap.interpretation.judging.grades import EmbeddingScorer, JsonSimulationScorer, SimulationScorer
from neuronmap.interpretation.judging.intruder import IntruderScorer
from neuronmap.interpretation.judging.scorers import Scorer

__all__ = ["scorer_of", "scorers"]


def scorers() -> dict[str, Scorer]:
    """All scorers by name.

    Raises:
        PluginError: a plug-in gives something else, or a name that is taken.
    """
    ours = (
        DetectionScorer(),
        FuzzingScorer(),
        SimulationScorer(),
        JsonSimulationScorer(),
        EmbeddingScorer(),
        IntruderScorer(),
    )
    return plugins.named("neuronmap_scorers", Scorer, ours)


def scorer_of(name: str) -> Scorer:
    """The scorer of a name.

    Raises:
        ConfigError: there is none; lists what there is.
    """
    known = scorers()
    if name not in known:
        raise ConfigError(f"There is no scorer called {name!r}.", hint=f"There are: {', '.join(known)}.")
    return known[name]
