"""What the ranks wrote is read by any others, and a sum over bits knows every change."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import CheckpointError
from megadec.common.files import sha256_of
from megadec.engine.zero.state_files import ShardSlice, StateFiles, add_sums, bit_sum, header_of, rank_file, write_state

SHAPES = {"matrix": (7, 5), "odd": (3, 3), "bias": (5,), "one": (1,)}
PARTS = ("weight", "exp_avg", "exp_avg_sq")


def tensors_of(shapes: dict[str, tuple[int, ...]]) -> dict[tuple[str, str], torch.Tensor]:
    return {(name, part): torch.randn(math.prod(size)) for name, size in shapes.items() for part in PARTS}


def write(folder: Path, whole: dict[tuple[str, str], torch.Tensor], ranks: int) -> dict[str, dict[str, int]]:
    """The files of so many ranks, as ZeRO-3 cuts, with a frozen bfloat16 parameter; the sums over all of them."""
    frozen = torch.arange(11).bfloat16()
    sums: dict[str, dict[str, int]] = {}
    for rank in range(ranks):
        pieces = []
        for (name, part), flat in [*whole.items(), (("frozen", "weight"), frozen)]:
            length = math.ceil(len(flat) / ranks)
            own = flat[rank * length : (rank + 1) * length]
            if len(own):
                pieces.append((ShardSlice(name, part, rank * length, len(own), flat.dtype), own))
        header = header_of([shard for shard, _ in pieces], {**SHAPES, "frozen": (11,)}, 7)
        file = folder / rank_file(rank)
        entry, of_rank = write_state(file, header, pieces, lambda: None)
        assert entry == {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        add_sums(sums, of_rank)
    return sums


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 12])
def test_any_elements_and_the_same_sums_are_found_whoever_wrote_them(tmp_path: Path, ranks: int) -> None:
    whole = tensors_of(SHAPES)
    assert write(tmp_path, whole, ranks) == write(tmp_path / "alone", whole, 1)
    files = StateFiles(tmp_path)
    assert (files.shapes, files.optimizer_step) == ({**SHAPES, "frozen": (11,)}, 7)
    for (name, part), flat in whole.items():
        assert list(files.parts(name)) == list(PARTS)
        for first in range(len(flat)):
            for last in range(first + 1, len(flat) + 1):
                assert torch.equal(files.read_range(name, part, first, last - first), flat[first:last])
    assert torch.equal(files.read("matrix"), whole["matrix", "weight"].view(7, 5))
    assert files.parts("frozen") == ("weight",)
    assert torch.equal(files.read("frozen"), torch.arange(11).float())


def test_a_missing_or_cut_or_foreign_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, tensors_of(SHAPES), 3)
    file = tmp_path / rank_file(1)
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match=r"rank_00001\.safetensors .* is not a whole"):
        StateFiles(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"'matrix' .* ends at element 12 of 35: a rank's file is missing"):
        StateFiles(tmp_path)
    header = json.dumps({"__metadata__": {"format": "another"}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"rank_00001\.safetensors is not of the same state"):
        StateFiles(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no rank_\*"):
        StateFiles(tmp_path / "nothing")


floats = st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=30)


@given(floats, st.integers(0, 2**33), st.data())
def test_a_sum_over_bits_adds_up_over_slices(values: list[float], start: int, data: st.DataObject) -> None:
    flat = torch.tensor(values)
    cut = data.draw(st.integers(0, len(flat)))
    together = bit_sum(flat[:cut], start) + bit_sum(flat[cut:], start + cut)
    assert bit_sum(flat, start) == together % 2**64


@given(floats, st.data())
def test_a_changed_or_moved_element_changes_the_sum(values: list[float], data: st.DataObject) -> None:
    flat = torch.tensor(values)
    one, other = (data.draw(st.integers(0, len(flat) - 1)) for _ in range(2))
    bits = flat.clone().view(torch.int32)
    bits[one] ^= 1 << data.draw(st.integers(0, 30))
    assert bit_sum(bits.view(torch.float32), 0) != bit_sum(flat, 0)
    swapped = flat.clone()
    swapped[[one, other]] = flat[[other, one]]
    if not torch.equal(swapped.view(torch.int32), flat.view(torch.int32)):
        assert bit_sum(swapped, 0) != bit_sum(flat, 0)
