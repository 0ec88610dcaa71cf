"""Loggers besides the run's own files."""

from __future__ import annotations

import sys

import pytest

from neuronmap import SAEConfig, SAETrainer
from neuronmap.errors import ConfigError, MissingDependencyError
from neuronmap.progress import SilentProgress


class Recorder:
    def __init__(self) -> None:
        self.config, self.rows, self.summary = {}, [], None

    def start(self, config, folder) -> None:
        self.config = dict(config)

    def log(self, step, values) -> None:
        self.rows.append((step, dict(values)))

    def finish(self, summary) -> None:
        self.summary = dict(summary)


def test_a_logger_gets_config_every_history_row_and_the_last_figures(small_config, rows):
    recorder = Recorder()
    result = SAETrainer(small_config, progress=SilentProgress(), loggers=[recorder]).train(rows)
    assert recorder.config["k"] == 4
    assert [row for _, row in recorder.rows] == result.history
    assert recorder.summary == result.history[-1]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_gives_the_install_line(name, package, small, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"neuronmap\[{name}\]"):
        SAETrainer(SAEConfig(**small, loggers=(name,)), progress=SilentProgress()).train(rows)


def test_an_unknown_logger_is_refused(small):
    with pytest.raises(ConfigError, match="loggers"):
        SAEConfig(**small, loggers=("mlflow",))
