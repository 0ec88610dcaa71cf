"""What a training would do, worked out from its settings before it starts."""

from __future__ import annotations

from collections.abc import Callable

import psutil

from neuronmap.errors import ConfigError
from neuronmap.hub.opening import ModelSettings
from neuronmap.models import resolve_hook
from neuronmap.training.config import SAEConfig
from neuronmap.training.plan import make_plan
from neuronmap.web.live.answers import PlanAnswer
from neuronmap.web.live.loaded import Loaded
from neuronmap.web.live.requests import PlanRequest

__all__ = ["plan_of"]

_SHUFFLED_ROWS = 1_000_000
_MANY_ROWS = 10**9
"""Where it is not known how many there are: a batch is then the usual one."""
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


def plan_of(request: PlanRequest, loaded: Loaded, running: Callable[[], None]) -> PlanAnswer:
    """The plan of a training.

    Args:
        request: its settings.
        loaded: models.
        running: is told when the model is loaded.

    Raises:
        ConfigError, ModelError, HookPointError, MemoryExhaustedError: what would stop it, before it starts.
    """
    config = SAEConfig.from_dict(request.settings)
    if config.model_name is None:
        raise ConfigError("A training from here needs 'model_name'.", hint="Choose a language model.")
    model = loaded.model(ModelSettings(config.model_name, config.revision, config.model_dtype, config.device))
    d_in = resolve_hook(model, layer=config.layer, component=config.component).width
    running()
    rows, notes = config.max_tokens, []
    masked = config.skip_first_positions / config.context_length
    if rows is not None and masked:
        rows = int(rows * (1 - masked))
        notes.append(
            "Tokens are those of the text without the first of each context; what else is masked is not known yet."
        )
    shuffle = 4 * d_in * min(rows or _SHUFFLED_ROWS, _SHUFFLED_ROWS)
    config = config.for_rows(_MANY_ROWS if rows is None else rows)
    plan = make_plan(config, max(rows or 0, config.batch_rows), d_in, model.device, shuffle)
    if rows is not None and rows * config.num_epochs < config.batch_rows:
        notes.append("This is less text than one step takes: give more tokens, or a smaller batch.")
    known = rows is not None
    stored = None if config.stream or rows is None else rows * d_in * _BYTES.get(config.store_dtype, 4)
    return PlanAnswer(
        architecture=config.resolved_architecture,
        d_in=d_in,
        d_sae=plan.d_sae,
        rows=rows,
        steps=plan.steps if known else None,
        batch_rows=plan.batch_rows,
        peak_rate=plan.peak_rate if known or config.learning_rate is not None else None,
        seconds=plan.seconds if known else None,
        total_bytes=plan.total_bytes,
        free_bytes=int(psutil.virtual_memory().available),
        store_bytes=stored,
        notes=notes,
    )
