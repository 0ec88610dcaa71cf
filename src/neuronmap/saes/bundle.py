"""Writing and reading SAE bundles. Every bundle is a folder that SAELens 6 opens as it is; plain SAELens folders open too.

Shapes: D = d_in, F = d_sae. Weights are stored as float32, with input scale, norms and thresholds folded in.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap import paths
from neuronmap.errors import (
    AlreadyExistsError,
    ConfigError,
    DamagedError,
    DiskSpaceError,
    InputError,
    MismatchError,
    UnwritablePathError,
)
from neuronmap.hashing import digest_file
from neuronmap.saes.base import SparseAutoencoder
from neuronmap.saes.inference.crosscoder import CrosscoderSAE
from neuronmap.saes.inference.transcoder import TranscoderSAE
from neuronmap.saes.metadata import (
    CARD_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    WEIGHTS_FILE,
    BundleInfo,
    BundleMetadata,
    read_bundle_info,
)
from neuronmap.saes.model_card import model_card, with_metrics
from neuronmap.saes.provenance import Provenance
from neuronmap.saes.registry import get_architecture
from neuronmap.saes.saelens_format import (
    SAELENS_VERSION,
    check_tensors,
    fold_foreign,
    foreign_identity,
    foreign_output,
    plain_config,
    runtime_norm,
    without_leftovers,
)

__all__ = ["attach_file", "load_sae", "save_bundle", "verify_bundle"]

Content = bytes | Path | dict[str, Any]
"""What a file can be made of: bytes, a file to copy, or a JSON object."""


def save_bundle(
    sae: SparseAutoencoder,
    folder: str | Path,
    metadata: BundleMetadata | None = None,
    *,
    metrics: dict[str, Any] | None = None,
    extra_files: Mapping[str, Content] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an SAE so that the folder appears whole or not at all.

    Args:
        sae: the SAE, its input scale folded in already (``fold_input_scale``).
        folder: the bundle to make.
        metadata: where the SAE comes from; architecture, options, version, date and digest are filled in here.
        metrics: final evaluation, written as ``metrics.json`` and into the model card.
        extra_files: more files by name (``history.parquet``).
        overwrite: replace a bundle that is there. It is moved aside just before the new one takes its place, so a
            kill in that instant leaves the old one in a hidden ``.replaced-*`` folder beside it.

    Returns:
        The folder.

    Raises:
        AlreadyExistsError: if the folder exists (and is not empty) and ``overwrite`` is off.
        InputError: if a weight is NaN or infinite, or what would be overwritten is not a bundle.
        MismatchError: if a hook in the metadata has another width than the SAE, or there are more or fewer than it reads.
        DiskSpaceError, UnwritablePathError: if it cannot be written.
    """
    folder = Path(folder)
    metadata = _completed(sae, metadata or BundleMetadata())
    _refuse_existing(folder, overwrite)
    tensors = _storable(sae)
    paths.check_disk_space(folder, sum(tensor.nbytes for tensor in tensors.values()), "The SAE's weights", 1 << 20)
    # An overwriting writer finishes the new folder first, so that the old one is away for two renames only.
    target = folder.parent / f".staging-{uuid.uuid4().hex}" if overwrite and folder.exists() else folder
    try:
        with paths.staging_folder(target) as staging:
            save_file(tensors, staging / WEIGHTS_FILE, metadata={"format": "pt"})
            metadata = metadata.updated(weights_digest=digest_file(staging / WEIGHTS_FILE))
            config = _saelens_config(sae, metadata)
            paths.write_json(staging / CONFIG_FILE, config)
            card = model_card(sae.d_in, sae.d_sae, config, metadata, metrics)
            paths.write_bytes(staging / CARD_FILE, card.encode())
            if metrics is not None:
                _write(staging, METRICS_FILE, metrics)
            for name, content in (extra_files or {}).items():
                _write(staging, name, content)
        if target != folder:
            _swap(target, folder)
    except (SafetensorError, OSError) as error:
        raise _write_error(folder, error) from error
    finally:
        if target != folder:
            shutil.rmtree(target, ignore_errors=True)
    return folder


def load_sae(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    verify: bool = True,
    architecture: type[SparseAutoencoder] | None = None,
) -> SparseAutoencoder:
    """Read a NeuronMap bundle or a folder saved by SAELens (6, and the common forms before it).

    SAELens' ``standard`` becomes ``relu``; decoder norms and an unsubtracted ``b_dec`` are folded, so that encode and
    decode stay the same. An SAE that normalises its input at run time says so in ``input_norm``. The result is in
    float32, in eval mode, and takes no gradients until asked to.

    Args:
        folder: the bundle.
        device: where the weights go.
        verify: compare the weights' SHA-256 with the one in the metadata (NeuronMap bundles).
        architecture: the class to build, for one that is not registered; None looks it up by name.

    Raises:
        InputError: not a bundle, or pickle files only.
        DamagedError: cut off, changed, incomplete, misshapen or non-finite; names the file and every fault.
        MismatchError: its input scale is neither in the weights nor in a rule that can be applied at run time.
        ConfigError: an unknown architecture; lists the known ones.
    """
    info = read_bundle_info(folder)
    if verify:
        _check_digest(info)
    try:
        tensors = load_file(info.folder / WEIGHTS_FILE, device=str(device))
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{info.folder / WEIGHTS_FILE} cannot be read: {error}.") from error
    tensors = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    if info.metadata is not None:
        sae, metadata = _build_own(info, info.metadata, tensors, architecture), info.metadata
    else:
        sae = _build_foreign(info, tensors)
        foreign = plain_config(info).metadata
        model, hook = foreign_identity(foreign, sae.d_in)
        hook_out = foreign_output(foreign, sae.d_out) if isinstance(sae, TranscoderSAE) else None
        metadata = BundleMetadata(architecture=sae.architecture, model=model, hook=hook, hook_out=hook_out)
    sae.provenance = Provenance(metadata, info.folder)
    return sae.to(device).eval().requires_grad_(False)


def verify_bundle(folder: str | Path) -> str:
    """Check everything that can be checked: files, configuration, digest, shapes, finite values.

    Returns:
        The SHA-256 of the weights.

    Raises:
        The errors of :func:`load_sae`.
    """
    load_sae(folder, verify=True)
    return digest_file(Path(folder) / WEIGHTS_FILE)


def attach_file(folder: str | Path, name: str, content: Content) -> Path:
    """Add or replace one file of a bundle atomically; ``metrics.json`` also renews the table in the model card.

    Args:
        folder: the bundle.
        name: file name inside it, such as ``history.parquet`` or ``analyses/density.json``.
        content: bytes, a file to copy, or a JSON object.

    Raises:
        ConfigError: for a name that leads outside the bundle, or one of the two files that make it.
        InputError: if there is no bundle, or NaN in the JSON.
    """
    folder = Path(folder)
    if name in (CONFIG_FILE, WEIGHTS_FILE):
        raise ConfigError(f"{name} is written by save_bundle only.")
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder} is not an SAE bundle: it has no {CONFIG_FILE}.")
    file = _write(folder, name, content)
    if name == METRICS_FILE and (folder / CARD_FILE).is_file():
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
        paths.write_bytes(folder / CARD_FILE, with_metrics(card, paths.read_json(file)).encode())
    return file


# --- writing ---------------------------------------------------------------------------------------------------------


def _completed(sae: SparseAutoencoder, metadata: BundleMetadata) -> BundleMetadata:
    read = metadata.hooks if metadata.hooks is not None else (metadata.hook or {},)
    for width in (hook.get("width") for hook in read):
        if width is not None and width != sae.d_in:
            raise MismatchError(f"The SAE reads activations of width {sae.d_in}, but its hook has width {width}.")
    layers = sae.layers if isinstance(sae, CrosscoderSAE) else None
    if metadata.hooks is not None and len(metadata.hooks) != layers:
        reads = f"{layers} hooks" if layers is not None else "one hook"
        raise MismatchError(f"The SAE reads {reads}, but its metadata names {len(metadata.hooks)} in 'hooks'.")
    written = (metadata.hook_out or {}).get("width")
    if metadata.hook_out is not None and not isinstance(sae, TranscoderSAE):
        raise MismatchError(f"A {sae.architecture} SAE reconstructs what it reads; only a transcoder has a 'hook_out'.")
    if isinstance(sae, TranscoderSAE) and written is not None and written != sae.d_out:
        raise MismatchError(
            f"The transcoder reconstructs activations of width {sae.d_out}, but its hook_out has width {written}."
        )
    return metadata.updated(
        architecture=sae.architecture,
        options=sae.options.to_dict(),
        neuronmap_version=version("neuronmap"),
        created=metadata.created or datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _storable(sae: SparseAutoencoder) -> dict[str, Tensor]:
    """The tensors on the CPU, float32, contiguous, each with memory of its own (safetensors refuses shared memory)."""
    with torch.no_grad():
        tensors = {
            name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for name, tensor in sae.saelens_tensors().items()
        }
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise InputError(f"The SAE is not saved: {', '.join(bad)} hold NaN or infinite values.")
    return tensors


def _saelens_config(sae: SparseAutoencoder, metadata: BundleMetadata) -> dict[str, Any]:
    model, hook, corpus = metadata.model or {}, metadata.hook or {}, metadata.corpus or {}
    foreign = (metadata.origin or {}).get("metadata") or {}
    own = sae.saelens_config()
    if own.get("normalize_activations", sae.input_norm) != sae.input_norm and sae.input_norm != "none":
        raise ConfigError(
            f"A {sae.architecture} SAE has its own input scale; input_norm = {sae.input_norm!r} is too much."
        )
    hook_name = foreign.get("hook_name") or _saelens_hook_name(hook)
    output = {"hook_name_out": _saelens_hook_name(metadata.hook_out)} if metadata.hook_out is not None else {}
    return {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": sae.input_norm,
        # where it runs on TransformerLens, heads come apart: [..., heads, head size]
        "reshape_activations": "hook_z" if str(hook_name).endswith(".hook_z") else "none",
        **own,
        "metadata": {
            "model_name": model.get("name"),
            "model_class_name": "AutoModelForCausalLM",
            "hook_name": hook_name,
            "hook_head_index": None,
            **output,
            "dataset_path": corpus.get("name"),
            "context_size": corpus.get("context_length"),
            "prepend_bos": False,
            "exclude_special_tokens": False,
            **foreign,
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": foreign.get("sae_lens_training_version"),
            "training_architecture": foreign.get("training_architecture") or sae.architecture,
            "neuronmap": metadata.to_dict(),
        },
    }


def _saelens_hook_name(hook: Mapping[str, Any]) -> Any:
    """SAELens reads a module's output. An ':in' hook keeps our name, which no module has: an error there, not other numbers."""
    return hook.get("module_path") if hook.get("side") == "out" else hook.get("name")


def _refuse_existing(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return  # the rename takes the place of an empty folder
    if not overwrite:
        raise AlreadyExistsError(f"{folder} exists already.", hint="Choose another folder, or allow overwriting it.")
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder} is not an SAE bundle, so it is not overwritten.")


def _swap(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; a failure puts the old one back."""
    aside = folder.parent / f".replaced-{uuid.uuid4().hex}"
    os.rename(folder, aside)
    try:
        os.rename(new, folder)
    except OSError:
        os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write_error(folder: Path, error: Exception) -> Exception:
    number = getattr(error, "errno", None)
    if number in (errno.EEXIST, errno.ENOTEMPTY):
        return AlreadyExistsError(f"{folder} was made by another program just now.")
    if number == errno.ENOSPC or "No space left" in str(error):
        return DiskSpaceError(f"No space left while writing {folder}.")
    return UnwritablePathError(f"Cannot write {folder}: {error}.")


def _write(folder: Path, name: str, content: Content) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or any(part.startswith(".") or "\\" in part for part in parts):
        raise ConfigError(f"{name!r} is not a file name inside a bundle.")
    target = folder.joinpath(*parts)
    paths.new_folder(target.parent)
    if isinstance(content, dict):
        try:
            paths.write_json(target, content)
        except ValueError as error:
            raise InputError(f"{name} cannot be written as JSON: {error}.") from error
    else:
        paths.write_bytes(target, content.read_bytes() if isinstance(content, Path) else content)
    return target


# --- reading ---------------------------------------------------------------------------------------------------------


def _check_digest(info: BundleInfo) -> None:
    stored = info.metadata.weights_digest if info.metadata is not None else None
    if stored is None:
        return
    found = digest_file(info.folder / WEIGHTS_FILE)
    if found != stored:
        raise DamagedError(
            f"{info.folder / WEIGHTS_FILE} was changed or damaged: its digest is {found}, the bundle says {stored}.",
            hint="Restore the file from where it came from, or load it unverified to look at it.",
        )


def _build_own(
    info: BundleInfo,
    metadata: BundleMetadata,
    tensors: dict[str, Tensor],
    cls: type[SparseAutoencoder] | None,
) -> SparseAutoencoder:
    cls = cls if cls is not None else get_architecture(info.architecture)
    check_tensors(info.folder, str(info.config.get("architecture")), info.d_in, info.d_sae, tensors, info.config)
    try:
        options = cls.Options.from_dict(metadata.options)
        sae = cls.from_saelens(info.config, tensors, options)
    except (ConfigError, KeyError, RuntimeError) as error:  # RuntimeError: load_state_dict names what is missing
        raise DamagedError(
            f"{info.folder / CONFIG_FILE} does not describe a {info.architecture} SAE: {error}"
        ) from error
    if (sae.d_in, sae.d_sae) != (info.d_in, info.d_sae):
        raise DamagedError(
            f"{info.folder / CONFIG_FILE} says d_in={info.d_in} and d_sae={info.d_sae}, but the weights make an SAE "
            f"with d_in={sae.d_in} and d_sae={sae.d_sae}."
        )
    sae.input_norm = runtime_norm(info)
    return sae


def _build_foreign(info: BundleInfo, tensors: dict[str, Tensor]) -> SparseAutoencoder:
    plain = plain_config(info)
    tensors = without_leftovers(info, plain, tensors)
    check_tensors(info.folder, plain.architecture, info.d_in, info.d_sae, tensors, info.config)
    cls = get_architecture(plain.our_name)
    try:
        options = cls.Options.from_dict(plain.options)
        sae = cls.from_saelens(info.config, fold_foreign(plain, tensors), options)
    except ConfigError as error:
        raise DamagedError(
            f"{info.folder / CONFIG_FILE} does not describe a {plain.architecture} SAE: {error}"
        ) from error
    sae.input_norm = plain.input_norm
    return sae
