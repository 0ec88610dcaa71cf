"""A file written in parts is the file that safetensors reads."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file

from neuronmap.training.parallel.tensor_file import TensorFile


def tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "float": torch.randn(5, 7, generator=g),
        "double": torch.randn(3, generator=g).double(),
        "half": torch.randn(3, 3, generator=g).half(),
        "brain": torch.randn(4, 2, generator=g).bfloat16(),
        "whole": torch.arange(6),
        "bytes": torch.arange(11, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "one": torch.tensor(0.5),
        "none": torch.zeros(0, dtype=torch.int64),
    }


def test_parts_make_the_tensors_that_safetensors_reads(tmp_path):
    given = tensors()
    file = TensorFile(tmp_path / "state.safetensors")
    file.begin({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in given.items()})
    for name, tensor in given.items():
        if name == "float":  # by columns, the last first
            for columns in (slice(4, 7), slice(0, 4)):
                file.put(name, (slice(None), columns), tensor[:, columns])
        else:
            file.put(name, (), tensor)
    file.close()
    read = load_file(tmp_path / "state.safetensors")
    assert read.keys() == given.keys()
    for name, tensor in given.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


@pytest.mark.skipif(
    not hasattr(os, "posix_fallocate"), reason="where room cannot be taken, the file grows as it is written"
)
def test_a_full_disk_is_an_error_before_the_first_part(tmp_path, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        TensorFile(tmp_path / "state.safetensors").begin({"x": (torch.float32, (10,))})
