"""All scorers by name: ours, and those of plug-ins."""

from __future__ import annotations

from neuronmap import plugins
from neuronmap.errors import ConfigError, PluginError
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
    found: dict[str, Scorer] = {}
    for one in (*ours, *plugins.collect("neuronmap_scorers")):
        if not isinstance(one, Scorer):
            raise PluginError(f"{one!r} is no Scorer.")
        if one.name in found:
            raise PluginError(f"There are two scorers called {one.name!r}.")
        found[one.name] = one
    return found


def scorer_of(name: str) -> Scorer:
    """The scorer of a name.

    Raises:
        ConfigError: there is none; lists what there is.
    """
    known = scorers()
    if name not in known:
        raise ConfigError(f"There is no scorer called {name!r}.", hint=f"There are: {', '.join(known)}.")
    return known[name]
