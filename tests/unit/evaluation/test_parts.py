"""Parts of an evaluation: how contexts are cut, and that the record does not depend on who does the parts, and when."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronmap.activations import MaskConfig
from neuronmap.errors import ConfigError, EmptyCorpusError
from neuronmap.evaluation.parts import context_parts, joined_rows
from neuronmap.evaluation.suites.core_parts import CoreParts
from neuronmap.evaluation.suites.run import SuiteRun
from neuronmap.evaluation.suites.settings import SuiteSettings
from neuronmap.progress import SilentProgress
from neuronmap.saes import get_architecture

SMALL = SuiteSettings(max_tokens=96, max_ce_tokens=64, fit_rows=64, batch_tokens=16, bootstrap=20)
"""Forward passes of one context of 16 tokens: six parts of rows, four of loss and KL."""


@given(st.integers(0, 5000), st.integers(1, 300))
def test_parts_are_whole_forward_passes_and_hold_every_context_once(contexts, batch):
    parts = context_parts(contexts, batch)
    assert [one for start, stop in parts for one in range(start, stop)] == list(range(contexts))
    assert len(parts) <= 32
    assert all(start % batch == 0 and stop > start for start, stop in parts)


def started(model: Any, tokens: Any, **more: Any) -> SuiteRun:
    architecture = get_architecture("topk")
    sae = architecture(32, 48, architecture.Options(k=4))
    sae.initialise(torch.zeros(32), torch.Generator().manual_seed(0))
    run = SuiteRun(sae, model, tokens, "model.layers.1:out", None, None, None, SMALL, SilentProgress(), **more)
    run.check(("core",))
    return run


def test_parts_done_by_others_in_another_order_give_the_same_record(tiny_llama, tokens):
    alone = CoreParts(started(tiny_llama, tokens)).alone()
    workers = [CoreParts(started(tiny_llama, tokens)) for _ in range(3)]
    known, sizes = workers[0].begin(), workers[1].sizes
    assert list(sizes) == ["fit", "active", "rows", "behaviour"]
    assert len(sizes["rows"].parts) > 3
    chosen = random.Random(0)
    for phase, size in sizes.items():
        found: dict[int, Any] = {}
        for place in chosen.sample(range(len(size.parts)), len(size.parts)):
            with SilentProgress().task("", None, "tokens") as task:
                part = chosen.choice(workers).part(phase, *size.parts[place], pickle.loads(pickle.dumps(known)), task)
            found[place] = pickle.loads(pickle.dumps(part))
        known = known.after(phase, [found[place] for place in range(len(size.parts))], size)
    assert workers[2].result(pickle.loads(pickle.dumps(known))).to_dict() == alone.to_dict()


def test_a_mask_that_leaves_nothing_is_told_with_the_reasons(tiny_llama, tokens):
    run = started(tiny_llama, tokens)
    run.mask = MaskConfig(skip_first_positions=16, outlier_factor=None)
    with pytest.raises(EmptyCorpusError, match=r"The mask drops every position of the .* contexts of 16 tokens"):
        CoreParts(run).alone()


def test_no_parts_are_refused():
    with pytest.raises(ConfigError, match="no contexts"):
        joined_rows([])
