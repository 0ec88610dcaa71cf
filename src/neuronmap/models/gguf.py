"""GGUF files: dequantised once into an ordinary model folder, kept in the cache under the file's digest.

Dequantising SmolLM2-135M takes about 15 seconds; loading the folder takes about two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronmap.errors import DiskSpaceError, ModelFormatError
from neuronmap.hashing import digest_file, digest_json, short
from neuronmap.models.quiet import quiet_libraries
from neuronmap.paths import cache_folder, check_disk_space, staging_folder, write_json
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["dequantised_folder", "is_gguf"]

_CONVERTER_VERSION = 1  # raise it when what is written changes
_RECORD = "source.json"


def is_gguf(file: Path) -> bool:
    """Whether a file starts as a GGUF file does."""
    with open(file, "rb") as handle:
        return handle.read(4) == b"GGUF"


def dequantised_folder(file: Path, progress: Progress) -> tuple[Path, str]:
    """The model folder of a GGUF file, made if it is not in the cache.

    A killed conversion leaves nothing that is taken for a model; when two processes convert at once, one result stays.

    Args:
        file: the GGUF file.
        progress: where to say that it is converted.

    Returns:
        The folder (float32 safetensors, configuration, tokenizer), and the digest of the GGUF file.

    Raises:
        ModelFormatError: if the file is not GGUF, or of an architecture transformers cannot read.
        DiskSpaceError, UnwritablePathError: if the cache cannot be written.
    """
    import transformers

    if not is_gguf(file):
        raise ModelFormatError(f"{file} is not a GGUF file (it does not start with 'GGUF').")
    digest = digest_file(file)
    key = digest_json({"gguf": digest, "transformers": transformers.__version__, "converter": _CONVERTER_VERSION})
    target = cache_folder("models") / f"{file.stem}-{short(key, 16)}"
    if (target / _RECORD).is_file():
        return target, digest
    check_disk_space(target, _float32_bytes(file), f"The dequantised weights of {file.name}")
    try:
        with staging_folder(target) as staging:
            _convert(file, staging, progress)
            write_json(
                staging / _RECORD, {"file": file.name, "digest": digest, "transformers": transformers.__version__}
            )
    except OSError as error:
        if error.errno == 28:
            raise DiskSpaceError(f"No space left while writing {target}.") from error
        if not (target / _RECORD).is_file():  # else another process was first, and its result is as good
            raise
    return target, digest


def _float32_bytes(file: Path) -> int:
    from gguf import GGUFReader

    try:
        return 4 * sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise ModelFormatError(f"{file} is damaged or cut off: {error}.", hint="Download the file again.") from error


def _convert(file: Path, folder: Path, progress: Progress) -> None:
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress.note(f"Dequantising {file.name} to float32 (once; about 10 seconds for 100 MB)")
    where: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    # Newer transformers would keep the weights packed where it has kernels for that.
    packing = getattr(transformers, "GgufConfig", None)
    unpacked = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    with quiet_libraries(), _no_dequantising_bar():
        try:
            module = AutoModelForCausalLM.from_pretrained(file.parent, dtype="float32", **where, **unpacked)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
        except (ValueError, KeyError, NotImplementedError, TypeError, AttributeError) as error:
            raise ModelFormatError(
                f"{file} cannot be read as a language model: {error}.",
                hint="transformers reads the GGUF architectures llama, qwen2, qwen3, gemma, phi3 and others.",
            ) from error
        _forget_quantisation(module)
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _forget_quantisation(module: PreTrainedModel) -> None:
    """The weights are plain float32 now; transformers still marks them as quantised and would not save them."""
    for owner, name in ((module, "hf_quantizer"), (module.config, "quantization_config")):
        if hasattr(owner, name):
            delattr(owner, name)


@contextmanager
def _no_dequantising_bar() -> Iterator[None]:
    """transformers draws one bar that its own settings do not turn off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    theirs = getattr(reader, "tqdm", None)
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = theirs
