"""What a sweep file means: products, members written out, names, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from neuronmap.errors import ConfigError
from neuronmap.training import SAEConfig, SweepConfig, load_sweep
from neuronmap.training.sweeping.config import OWN_FIELDS
from neuronmap.training.sweeping.names import folder_names

FILE = """
[base]
model_name = "smollm2-135m"
layer = 15
hidden_dim = 64
name = "demo-{architecture}-{k}"

[grid]
architecture = ["topk", "batchtopk"]
k = [4, 8]

[[member]]
architecture = "jumprelu"
target_l0 = 5
name = "demo-jump"
"""


def test_a_file_gives_the_product_and_the_members_written_out(tmp_path):
    (tmp_path / "sweep.toml").write_text(FILE)
    members = load_sweep(tmp_path / "sweep.toml", ["max_tokens=4096"]).members()
    assert [one.name for one in members] == [
        "demo-topk-4",
        "demo-topk-8",
        "demo-batchtopk-4",
        "demo-batchtopk-8",
        "demo-jump",
    ]
    assert {(one.model_name, one.layer, one.max_tokens) for one in members} == {("smollm2-135m", 15, 4096)}
    assert (members[-1].k, members[-1].target_l0) == (None, 5.0)


def test_an_option_that_an_architecture_does_not_have_is_left_out_for_it():
    """k is not multiplied into the jumprelu members, nor target_l0 into the others."""
    grid = {"architecture": ["topk", "jumprelu"], "k": [4, 8], "target_l0": [3, 6], "seed": [0, 1]}
    members = SweepConfig(base={"hidden_dim": 64}, grid=grid).members()
    assert len(members) == 8
    assert {(one.architecture, one.k, one.target_l0) for one in members} == {
        ("topk", 4, None),
        ("topk", 8, None),
        ("jumprelu", None, 3.0),
        ("jumprelu", None, 6.0),
    }
    assert members[0].name == "sweep-topk-k4-s0"
    assert members[-1].name == "sweep-jumprelu-l0-6-s1"


def test_penalties_choose_relu_as_for_one_sae():
    members = SweepConfig(grid={"sparsity_penalty": [0.01, 0.1]}).members()
    assert [(one.resolved_architecture, one.name) for one in members] == [
        ("relu", "sweep-p0.01"),
        ("relu", "sweep-p0.1"),
    ]


def test_the_order_of_the_data_has_one_seed_for_all():
    """That of the base, whatever the members' own seeds are, and written into each, so that it is the same alone."""
    members = SweepConfig(base={"data_seed": 9}, grid={"seed": [1, 2]}).members()
    assert [(one.seed, one.data_seed, one.order_seed) for one in members] == [(1, 9, 9), (2, 9, 9)]
    members = SweepConfig(base={"seed": 5}, grid={"k": [1, 2]}).members()
    assert [(one.seed, one.data_seed) for one in members] == [(5, 5), (5, 5)]
    assert (SAEConfig(seed=3).order_seed, SAEConfig(seed=3, data_seed=0).order_seed) == (3, 0)


@pytest.mark.parametrize(
    ("fields", "says", "hint"),
    [
        ({}, "nothing to sweep over", "grid"),
        ({"grids": {}}, "no field 'grids'", "grid"),
        ({"base": {"hiden_dim": 8}, "grid": {"k": [1]}}, r"\[base\] has 'hiden_dim'", "hidden_dim"),
        ({"grid": {"kk": [1]}}, r"\[grid\] has 'kk'", ""),
        ({"member": [{"laier": 1}]}, r"\[member\] has 'laier'", "layer"),
        ({"grid": {"k": 4}}, r"grid.k = 4 is not a list", r"\[4\]"),
        ({"grid": {"k": []}}, "grid.k is an empty list", ""),
        ({"grid": {"k": [4, 4]}}, "holds a value twice", ""),
        ({"base": {"k": 3}, "grid": {"k": [4]}}, "k is given twice", "Leave it out of one"),
        ({"base": {"k": 3, "architecture": "relu"}, "grid": {"seed": [0, 1]}}, "k is given, but no member has it", "Leave k"),
        ({"grid": {"k": [0, 1]}}, r"Member 1 \('sweep-k0'\): SAEConfig.k = 0", ""),
        ({"grid": {"architecture": ["topk", "tokp"]}}, "tokp", ""),
        ({"member": [{"architecture": "relu", "k": 4}]}, "does not apply to architecture 'relu'", ""),
        ({"grid": {"max_tokens": [1024, 2048]}}, "max_tokens must be the same", "max_steps may differ"),
        ({"grid": {"data_seed": [1, 2]}}, "data_seed must be the same", "seed may differ"),
        ({"grid": {"batch_size": [8, 16]}}, r"it is 8 for 'sweep-batch_size-8' and 16", "another sweep"),
        ({"base": {"name": "x-{k}"}, "grid": {"k": [1, 2], "seed": [1, 2]}}, "Members 1 and 2 would both", r"x-{k}-{seed}"),
        ({"base": {"name": "x-{kay}"}, "grid": {"k": [1, 2]}}, "there is no field 'kay'", "k"),
        ({"base": {"name": "x-{k:z}"}, "grid": {"k": [1, 2]}}, "cannot be shown so", ""),
        ({"base": {"name": "x-{k"}, "grid": {"k": [1, 2]}}, "not a template", ""),
        ({"base": {"loggers": ["wandb"]}, "grid": {"k": [1, 2]}}, "'wandb' follows one run at a time", "tensorboard"),
        ({"grid": {"seed": list(range(1001))}}, "1,001 members; at most 1,000", "several sweeps"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], says: str, hint: str):
    import re

    with pytest.raises(ConfigError, match=says) as refused:
        SweepConfig(**fields)
    assert re.search(hint, refused.value.hint)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no sweep file"):
        load_sweep(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[base\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_sweep(tmp_path / "broken.toml")


def test_fields_that_may_differ_are_fields():
    """What is not in the list has to be the same for all, so a new field that says what the stream is made of is safe by default."""
    assert set(SAEConfig.model_fields) >= OWN_FIELDS
    assert not OWN_FIELDS & {"model_name", "corpus", "batch_size", "context_length", "data_seed", "stream", "device"}


def test_folders_are_numbered_and_plain():
    configs = [SAEConfig(name="a/B c"), SAEConfig(architecture="topk")]
    assert folder_names(configs) == ["01-a-b-c", "02-topk"]
