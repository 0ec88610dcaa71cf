"""Packing is exact: what lies in the contexts is the documents joined by separators, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuronmap.corpora.packing import Packer


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    context_length=st.integers(2, 17),
    separator=st.booleans(),
    bos=st.booleans(),
    take_every=st.integers(1, 4),
)
def test_contexts_are_the_documents_joined(
    lengths: list[int], context_length: int, separator: bool, bos: bool, take_every: int
) -> None:
    packer = Packer(context_length, separator_id=1 if separator else None, bos_id=0 if bos else None)
    stream: list[tuple[int, int, int]] = []
    starts, blocks = [], []
    for index, length in enumerate(lengths):
        ids = np.arange(100 * index + 10, 100 * index + 10 + length)
        if separator and index:
            stream.append((1, -1, -1))
        stream += [(int(token), index, at) for at, token in enumerate(ids)]
        starts.append(packer.add(ids))
        if index % take_every == 0 and (block := packer.take()) is not None:
            blocks.append(block)
    if (block := packer.take()) is not None:
        blocks.append(block)
    body = context_length - bos
    whole = len(stream) // body * body
    expected: list[tuple[int, int, int]] = []
    for at in range(0, whole, body):
        expected += [(0, -1, -1)] * bos + stream[at : at + body]
    found = [
        row
        for block in blocks
        for row in zip(block.input_ids_M.tolist(), block.document_M.tolist(), block.position_M.tolist(), strict=True)
    ]
    assert found == expected
    assert packer.pending == len(stream) - whole
    for index, start in enumerate(starts):
        if start < len(found):
            assert found[start][1:] == (index, 0)


def test_the_rest_becomes_one_padded_context() -> None:
    packer = Packer(6, separator_id=1, bos_id=0)
    packer.add(np.array([7, 8]))
    block, padding = packer.take_padded(9)
    assert block.input_ids_M.tolist() == [0, 7, 8, 9, 9, 9]
    assert block.document_M.tolist() == [-1, 0, 0, -1, -1, -1]
    assert padding == 3


def test_take_gives_at_most_the_limit() -> None:
    packer = Packer(2, separator_id=None, bos_id=None)
    packer.add(np.arange(11))
    block = packer.take(2)
    assert block is not None
    assert block.input_ids_M.tolist() == [0, 1, 2, 3]
    assert packer.ready == 3
    assert packer.take(0) is None
