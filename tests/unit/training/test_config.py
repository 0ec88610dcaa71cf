"""SAEConfig: what it accepts, what it refuses, and what its refusals say."""

from __future__ import annotations

import pytest

from neuronmap.errors import ConfigError
from neuronmap.training import SAEConfig, load_recipe


def test_the_lines_users_know_are_accepted():
    config = SAEConfig(
        model_name="gpt2",
        layer=8,
        component="mlp",
        input_dim=768,
        hidden_dim=4096,
        sparsity_penalty=0.01,
        learning_rate=0.0001,
        batch_size=32,
        num_epochs=100,
    )
    assert config.resolved_architecture == "relu"
    assert config.batch_rows == 32 * 128
    assert SAEConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("rows", "fields", "batch"),
    [
        (10**9, {}, 4096),
        (4096 * 1024, {}, 4096),
        (4096 * 1024 - 1, {}, 2048),
        (10**6, {}, 512),
        (131_072, {}, 512),
        (131_072, {"num_epochs": 40.0}, 4096),
        (131_072, {"max_steps": 128}, 1024),  # no smaller than lets those steps see all rows
        (131_072, {"max_steps": 20}, 4096),
        (10**9, {"max_steps": 10}, 4096),
        (700, {}, 512),
        (10**9, {"context_length": 1000}, 4000),
        (700, {"context_length": 1000}, 1000),  # a context at least
        (131_072, {"batch_size": 3}, 384),
    ],
)
def test_a_short_run_takes_fewer_rows_a_step(rows, fields, batch):
    config = SAEConfig(**{"context_length": 128, **fields})
    assert config.for_rows(rows).batch_rows == batch
    assert config.for_rows(rows).for_rows(1).batch_rows == batch  # once it is known it stays
    assert config.updated(batch_size=1) == config.for_rows(rows).updated(batch_size=1)


def test_what_a_step_sees_is_not_known_before_the_rows_are():
    with pytest.raises(RuntimeError, match="for_rows"):
        _ = SAEConfig().batch_rows


def test_architecture_is_batchtopk_without_a_penalty():
    assert SAEConfig(k=8).resolved_architecture == "batchtopk"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hiden_dim": 4}, ["hiden_dim", "Did you mean hidden_dim"]),
        ({"hidden_dim": 0}, ["hidden_dim", "0", "greater than or equal to 1"]),
        ({"layer": -1}, ["layer", "-1"]),
        ({"heldout_fraction": 1.5}, ["heldout_fraction", "1.5", "less than 1"]),
        ({"architecture": "topkk"}, ["topkk", "Did you mean topk", "jumprelu"]),
        ({"architecture": "topk", "sparsity_penalty": 0.1}, ["sparsity_penalty", "0.1", "relu", "Options of topk"]),
        ({"architecture": "relu", "k": 4}, ["k = 4", "topk"]),
        ({"architecture": "topk", "input_dim": 8, "hidden_dim": 16, "k": 17}, ["k", "17", "16"]),
        ({"layer": 1, "component": "model.layers.1.mlp:out"}, ["component", "layer = 1", "left out"]),
        ({"warmup_fraction": 0.9, "decay_fraction": 0.5}, ["warmup_fraction", "decay_fraction", "1.0"]),
        ({"skip_first_positions": 128}, ["skip_first_positions", "context_length"]),
        ({"architecture_options": {"k": 3}}, ["architecture_options", "set k"]),
        ({"architecture_options": {"nonsense": 3}}, ["nonsense", "no architecture has it"]),
        ({"hidden_dim": 10, "k": 100}, ["SAEConfig.k", "100", "10"]),
        ({"architecture": "matryoshka", "hidden_dim": 63, "k": 4}, ["hidden_dim = 63", "multiple of 16"]),
        ({"architecture": "jumprelu", "hidden_dim": 8, "target_l0": 9}, ["SAEConfig.target_l0", "9"]),
        ({"num_epochs": float("inf")}, ["num_epochs", "finite"]),
        ({"seed": 10**20}, ["seed"]),
        ({"learning_rate": "fast"}, ["learning_rate", "fast"]),
    ],
)
def test_refusals_name_field_value_and_what_is_allowed(fields, said):
    with pytest.raises(ConfigError) as caught:
        SAEConfig(**fields)
    for part in said:
        assert part in str(caught.value)


def test_every_fault_is_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        SAEConfig(hidden_dim=0, num_epochs=-1, nonsense=1)
    assert all(name in str(caught.value) for name in ("hidden_dim", "num_epochs", "nonsense"))


@pytest.mark.parametrize(("given", "kept"), [("unit", "unit"), ("auto", "auto"), (0.5, 0.5), (None, None), (2, 2.0)])
def test_the_norm_of_the_gradient_is_a_limit_or_a_way(given, kept):
    assert SAEConfig(clip_norm=given).clip_norm == kept


@pytest.mark.parametrize("given", [0, -1.0, "half"])
def test_a_value_that_fits_no_type_of_a_field_is_told_once_with_all_it_may_be(given):
    with pytest.raises(ConfigError) as caught:
        SAEConfig(clip_norm=given, hidden_dim=0)
    text = str(caught.value)
    assert text.count("SAEConfig.clip_norm = ") == 1
    assert f"SAEConfig.clip_norm = {given!r}: input should be 'auto' or 'unit' or " in text
    assert "SAEConfig.hidden_dim = 0: input should be greater than or equal to 1" in text
    assert "constrained" not in text


def test_recipe_file_settings_and_fields_win_in_that_order(tmp_path):
    recipe = tmp_path / "run.toml"
    recipe.write_text('architecture = "topk"\nk = 8\nhidden_dim = 64\nnum_epochs = 2\n')
    config = load_recipe(recipe, ["k=16", "num_epochs=3", "clip_norm=null"], num_epochs=4.0, layer=None)
    assert (config.k, config.hidden_dim, config.num_epochs, config.clip_norm) == (16, 64, 4.0, None)


def test_words_with_commas_are_lists():
    config = load_recipe(None, ["tags=a, b", "loggers=tensorboard"])
    assert (config.tags, config.loggers) == (("a", "b"), ("tensorboard",))


def test_an_option_of_the_architecture_is_set_by_its_table_and_told_so_when_bare(tmp_path):
    recipe = tmp_path / "run.toml"
    recipe.write_text('architecture = "jumprelu"\n[architecture_options]\ntarget_weight = 2.0\ninitial_l0 = 9\n')
    config = load_recipe(recipe, ["architecture_options.target_anneal_factor=1", "architecture_options.initial_l0=8"])
    assert config.architecture_options == {"target_weight": 2.0, "initial_l0": 8, "target_anneal_factor": 1}
    with pytest.raises(ConfigError, match="an option of jumprelu") as told:
        load_recipe(None, ["architecture=jumprelu", "target_anneal_factor=1"])
    assert "--set architecture_options.target_anneal_factor=1" in str(told.value.hint)
    with pytest.raises(ConfigError, match=r"SAEConfig\.k "):
        load_recipe(None, ["k.x=1"])


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    config = SAEConfig(model_name="./model", corpus="sotu").with_absolute_paths()
    assert (config.model_name, config.corpus) == (str(tmp_path / "model"), "sotu")


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ("k = ", [], "not valid TOML"),
        ("k = 8", ["k"], "name=value"),
        ("[sae]\nk = 8", [], "has no field 'sae'"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path, content, settings, said):
    recipe = tmp_path / "run.toml"
    recipe.write_text(content)
    with pytest.raises(ConfigError, match=said):
        load_recipe(recipe, settings)


def test_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no recipe file .*absent\.toml"):
        load_recipe(tmp_path / "absent.toml")
