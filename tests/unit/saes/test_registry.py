"""Which architectures can be trained, which can be read, and what each can be used for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError, MismatchError
from neuronmap.saes import check_sae, get_architecture, list_architectures
from neuronmap.saes.inference.options import INFERENCE_ONLY
from neuronmap.saes.options import BUILT_IN
from neuronmap.saes.registry import architecture_options, get_options
from neuronmap.saes.uses import Use, require_use, why_not
from neuronmap.training import SAEConfig

ALL: tuple[Use, ...] = ("features", "reconstruction", "intervention")


def test_only_what_can_be_trained_is_offered_for_training() -> None:
    assert list_architectures()[: len(BUILT_IN)] == list(BUILT_IN)
    assert not set(INFERENCE_ONLY) & {*list_architectures(), *architecture_options()}
    assert all(get_architecture(name).trainable for name in list_architectures())


@pytest.mark.parametrize("name", INFERENCE_ONLY)
def test_what_is_read_only_is_known_and_not_trained(name: str) -> None:
    cls = get_architecture(name)
    assert (cls.architecture, cls.trainable, cls.Options) == (name, False, INFERENCE_ONLY[name])
    assert issubclass(cls.Options, FrozenConfig)
    with pytest.raises(
        ConfigError, match=rf"'{name}' can be read and used, but NeuronMap does not train it.*relu, gated"
    ):
        get_options(name)
    with pytest.raises(ConfigError, match="does not train it"):
        SAEConfig(architecture=name).options_given()
    with pytest.raises(ConfigError, match="not trained by NeuronMap"):
        check_sae(cls)


@pytest.mark.parametrize("ask", [get_architecture, get_options])
def test_unknown_names_list_what_can_be_trained(ask: object) -> None:
    with pytest.raises(
        ConfigError, match=r"No SAE architecture 'topkk'.*relu, gated, topk, batchtopk, jumprelu, matryoshka"
    ):
        ask("topkk")  # type: ignore[operator]


def test_asking_for_settings_loads_no_torch() -> None:
    script = (
        "import sys; from neuronmap.saes.registry import get_options\n"
        "try: get_options('transcoder')\n"
        "except ValueError: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        *((name, ALL) for name in BUILT_IN),
        ("matching_pursuit", ALL),
        ("transcoder", ("features",)),
        ("abstopk", ("reconstruction",)),
        ("crosscoder", ()),
        ("temporal", ()),
    ],
)
def test_what_each_can_be_used_for(name: str, possible: tuple[Use, ...]) -> None:
    cls = get_architecture(name)
    assert tuple(use for use in ALL if why_not(cls, use) is None) == possible
    for use in ALL:
        if use in possible:
            require_use(cls, use, "This")
        else:
            with pytest.raises(MismatchError, match=f"This is not possible with this SAE: .*{name}"):
                require_use(cls, use, "This")
