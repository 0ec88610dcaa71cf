"""Fixtures shared by all tests: a home of their own, two small language models with random weights, S3 and Azure on loopback."""

from __future__ import annotations

import base64
import functools
import gc
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from email.utils import formatdate
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

# huggingface_hub reads this once, at import: no test talks to the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
# `make test` runs one worker a core; more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Triton decides when a kernel is defined whether it will be interpreted, so ours are defined now, and the variable is put back: what
# looks at it later (``kernels = "triton"`` on a CPU) finds what the user set. Tests of compiled kernels start a process of their own.
if find_spec("triton") is not None:
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    for module in ("triton.experimental.gluon", "neuronmap.saes.kernels.triton.backend"):
        import_module(module)  # the first is imported by the first launch, and looks at the variable as well

    if before is None:
        del os.environ["TRITON_INTERPRET"]
    else:
        os.environ["TRITON_INTERPRET"] = before

import pytest
import typer.testing

# The tree of commands is the same for every command that a test types, and takes a third of a second to build.
typer.testing._get_command = functools.cache(typer.testing._get_command)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from neuronmap.models import LanguageModel

TINY_SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A sparse autoencoder finds directions in the residual stream.",
    "My fellow citizens, the state of our union is strong.",
    "In the winter the river froze, and the children walked across it to school.",
    "Numbers such as 12, 345 and 6789 are written with digits.",
]


def pytest_collection_finish() -> None:
    """What lives as long as the process, thousands of tests and the libraries, is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(homes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder of this test's own; no test touches the user's."""
    with TemporaryDirectory(dir=homes, prefix="", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("NEURONMAP_HOME", folder)
        yield Path(folder)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests' homes are: beside its numbered folders pytest would search thousands of them for each new number."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """torch's number of threads is put back: with more, sums are taken in another order, and later tests compare bytes."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    yield
    if torch is not None and before is not None:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def s3() -> Iterator[Callable[[], str]]:
    """Gives the URL of an empty place in a bucket of a server on loopback; credentials are in the environment while it runs."""
    pytest.importorskip("obstore", reason="the library for object stores is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    import boto3

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="zoo")
        client.close()
        yield lambda: f"s3://zoo/{uuid.uuid4().hex}?endpoint={endpoint}&region=us-east-1"
    server.stop()


AZURE_KEY = base64.b64encode(b"the key of the tests' account").decode()


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """The same of Azure: a container of an Azurite on loopback, with an account ``tester`` of its own."""
    pytest.importorskip("obstore", reason="the library for object stores is not installed")
    root = Path(__file__).parents[1]
    places = [*(root / folder / "node_modules" / ".bin" for folder in ("", ".azurite"))]
    program = shutil.which("azurite-blob", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)]))
    if program is None or shutil.which("node") is None:
        pytest.skip("Azurite is not installed: npm install --prefix .azurite --no-save azurite (needs Node.js)")
    folder = tmp_path_factory.mktemp("azurite")
    arguments = ["--location", folder, "--blobHost", "127.0.0.1", "--blobPort", "0", "--silent", "--disableTelemetry"]
    with (
        open(folder / "log", "wb") as log,
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            [program, *map(str, arguments)],
            env={**os.environ, "AZURITE_ACCOUNTS": f"tester:{AZURE_KEY}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            endpoint = f"{_azurite_address(process, folder / 'log')}/tester"
            _make_container(endpoint, "zoo")
            patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)
            yield lambda: f"az://zoo/{uuid.uuid4().hex}?account=tester&endpoint={endpoint}"
        finally:
            process.terminate()


def _azurite_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it does."""
    ends = time.monotonic() + 60
    while (found := re.search(r"successfully listens on (http://\S+)", log.read_text())) is None:
        if process.poll() is not None or time.monotonic() > ends:
            pytest.fail(f"Azurite did not start: {log.read_text()}")
        time.sleep(0.1)
    return found[1]


def _make_container(endpoint: str, name: str) -> None:
    """What obstore cannot do: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
    said = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    headers = "".join(f"{name}:{value}\n" for name, value in said.items())
    signed = f"PUT{chr(10) * 12}{headers}/tester/tester/{name}\nrestype:container"
    signature = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    said["Authorization"] = f"SharedKey tester:{base64.b64encode(signature).decode()}"
    request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=said)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201


@pytest.fixture(params=["s3", "azure"])
def bucket(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives the URL of an empty place in a bucket, of each provider that has an emulator."""
    new: Callable[[], str] = request.getfixturevalue(request.param)
    return new


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 300 entries with ``<s>``, ``</s>`` and ``<pad>``; it adds no BOS by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TINY_SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=64
    )


def _saved_once(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module. Saving writes into its configuration, and so changes its digest: done before anybody looks at that."""
    module.save_pretrained(tmp_path_factory.mktemp("saved"))
    return module


@pytest.fixture(scope="session")
def tiny_llama(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A Llama of 4 blocks, hidden size 32, MLP 96, 4 heads, context 64, float32, fixed random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from neuronmap.models import wrap_model

    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _saved_once(LlamaForCausalLM(config), tmp_path_factory)
        return wrap_model(module, tiny_tokenizer, name="tiny-llama")


@pytest.fixture(scope="session")
def tiny_gpt2(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A GPT-2 of 4 blocks, hidden size 32, MLP 128, 4 heads, context 64, float32, fixed random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from neuronmap.models import wrap_model

    config = GPT2Config(
        vocab_size=len(tiny_tokenizer),
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _saved_once(GPT2LMHeadModel(config), tmp_path_factory)
        return wrap_model(module, tiny_tokenizer, name="tiny-gpt2")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: LanguageModel) -> Path:
    """The same as a folder, as a user has models."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    tiny_gpt2.module.save_pretrained(folder)
    tiny_gpt2.tokenizer.save_pretrained(folder)
    return folder
