"""Every Triton kernel compiles for NVIDIA GPUs, to machine code, as the backend would launch it; no GPU is needed.

A process of its own runs the backend with the launches caught: each is compiled for its arguments, and nothing is run. That no
number is needed for that shows as well that the host never looks at one.

    python tests/unit/saes/kernels/test_compiled.py 80
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch

CAPABILITIES = {"Ampere": 80, "Hopper": 90}
SIZES = [
    # dtype, d_in, features, widths of the levels
    (torch.float32, 768, 2048, (2048,)),
    (torch.float32, 2304, 1024, (64, 128, 512, 1024)),
    (torch.float32, 12288, 256, (256,)),
    (torch.float64, 33, 512, (512,)),
]
TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


def compiled(capability: int) -> dict[str, int]:
    """Bytes of machine code of every kernel that a step launches, for a compute capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime.jit import JITFunction

    found: dict[str, int] = {}
    seen: set[str] = set()

    def compile_instead(kernel: Any, *args: Any, grid: Any, warmup: bool, num_warps: int = 4, **named: Any) -> None:
        given = {**dict(zip(kernel.arg_names, args, strict=False)), **named}
        signature, constants, attributes = {}, {}, {}
        for index, parameter in enumerate(kernel.params):
            value = given[parameter.name]
            if parameter.is_constexpr or (isinstance(value, int) and value == 1):  # as a launch would
                signature[parameter.name], constants[index,] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = TYPES[value.dtype]
                attributes[index,] = [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
        key = f"{kernel.__name__} {num_warps} {signature} {constants}"
        if key not in seen:
            seen.add(key)
            made = triton.compile(
                ASTSource(kernel, signature, constants, attributes),
                target=GPUTarget("cuda", capability, 32),
                options={"num_warps": num_warps},
            )
            found[kernel.__name__] = found.get(kernel.__name__, 0) + len(made.asm["cubin"])

    JITFunction.run = compile_instead
    for size in SIZES:
        step(*size)
    return found


def step(dtype: torch.dtype, d_in: int, features: int, widths: tuple[int, ...]) -> None:
    """Everything that a training step asks of the backend, and every size of block."""
    import neuronmap.saes.kernels.triton.backend as backend
    from neuronmap.saes.kernels.protocol import AdamStep, Encoder
    from neuronmap.saes.workspace import Workspace

    num_rows, k = 32, 8
    backend.BLOCK_BYTES = 4 * num_rows * 512
    backend.ROWS_BYTES = 1
    kernels = backend.TritonKernels(Workspace())
    x_BD, W_FD = torch.zeros(num_rows, d_in, dtype=dtype), torch.zeros(features, d_in, dtype=dtype)
    rounded = W_FD.bfloat16() if dtype == torch.float32 else None
    kept_M = torch.arange(0, features, 5)
    encoder = Encoder(x_BD, W_FD.T, W_FD[:, 0].contiguous(), kept_M, None if rounded is None else rounded.T)
    kernels.encode_top_k(encoder, k)
    code = kernels.encode_top_of_batch(encoder, num_rows * k).code
    kernels.keep_top_k(kernels.encode_top_k(encoder, k).kept_BM, k)
    kernels.top_k_of(torch.zeros(num_rows, 300, dtype=dtype), k)
    found = kernels.reconstruct(code, W_FD, x_BD, widths, 0.5)
    gradients = (torch.zeros_like(W_FD).T, torch.zeros_like(W_FD[:, 0]), torch.zeros_like(W_FD))
    kernels.weight_gradients(code, found.gradient_N, found, x_BD, widths, 0.5, gradients)
    kernels.gradient_energy(W_FD, gradients[2], gradients[:2])
    for parameter, unit_rows, copy in ((W_FD, True, None), (W_FD, False, rounded), (encoder.b_F, False, None)):
        moments = (torch.zeros_like(parameter), torch.zeros_like(parameter))
        settings = AdamStep(1e-3, 0.9, 0.999, 1e-10, 1)
        kernels.adam(parameter, torch.zeros_like(parameter), moments, settings, torch.ones(()), unit_rows, copy)


@pytest.mark.parametrize("name", CAPABILITIES)
def test_every_kernel_compiles_to_machine_code(name: str) -> None:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; it is there for Linux on x86-64")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, __file__, str(CAPABILITIES[name])], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    from neuronmap.saes.kernels.triton import batch, groups, parameters, products, rows

    kernels = {
        *rows.__all__, *groups.__all__, *products.__all__, *parameters.__all__,
        *(kernel for kernel in batch.__all__ if kernel not in ("BINS", "COPIES", "digits")),
    }  # fmt: skip
    sizes = json.loads(done.stdout)
    assert set(sizes) == kernels
    assert min(sizes.values()) > 1000


if __name__ == "__main__":
    print(json.dumps(compiled(int(sys.argv[1]))))
