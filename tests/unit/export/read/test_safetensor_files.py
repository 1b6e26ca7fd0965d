"""Safetensors: what we stream is what the library reads."""

import math
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from megadec.common.errors import ExportError
from megadec.export.read.safetensor_files import SafetensorFiles, index_of, plan_files, write_tensors

SHAPES = {"a": (3, 5), "一": (7,), "scalar": (), "b": (2, 2, 2)}


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.randn(size) for name, size in SHAPES.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_library_reads_what_we_write(tmp_path, tensors, dtype):
    write_tensors(tmp_path / "t.safetensors", SHAPES, dtype, tensors.__getitem__)
    read = load_file(tmp_path / "t.safetensors")
    assert read.keys() == SHAPES.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], tensor.to(dtype))


def test_a_view_that_is_not_contiguous_is_written_in_order(tmp_path):
    tensor = torch.arange(12.0).view(3, 4).T
    write_tensors(tmp_path / "t.safetensors", {"t": (4, 3)}, torch.float32, lambda _: tensor)
    assert torch.equal(load_file(tmp_path / "t.safetensors")["t"], tensor)


def test_a_tensor_is_let_go_before_the_one_after_the_next_is_read(tmp_path):
    given: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def read(name: str) -> torch.Tensor:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in given))
        tensor = torch.zeros(100)
        given.append(weakref.ref(tensor))
        return tensor

    write_tensors(tmp_path / "t", {f"t{i}": (100,) for i in range(20)}, torch.float32, read)
    assert most == 1


def test_files_are_filled_in_order_up_to_the_limit_and_name_each_tensor_once():
    shapes = {f"t{i}": (i + 1, 10) for i in range(8)}
    plan = plan_files(shapes, torch.float32, max_shard_bytes=400)
    assert [name for part in plan.values() for name in part] == list(shapes)
    sizes = [sum(40 * size[0] for size in part.values()) for part in plan.values()]
    assert all(size <= 400 for size in sizes)
    assert next(iter(plan)) == f"model-00001-of-{len(plan):05d}.safetensors"
    index = index_of(plan, torch.float32)
    assert index["metadata"]["total_size"] == sum(4 * math.prod(size) for size in shapes.values())
    assert index["weight_map"].keys() == shapes.keys()


@pytest.mark.parametrize(
    ("sizes", "limit", "files"),
    [
        ((1, 1000, 1), 100, [["t0"], ["t1"], ["t2"]]),  # a tensor larger than the limit stands alone
        ((3, 4), 28, [["t0", "t1"]]),
    ],
)
def test_tensors_share_a_file_as_long_as_they_fit(sizes, limit, files):
    plan = plan_files({f"t{i}": (size,) for i, size in enumerate(sizes)}, torch.float32, limit)
    assert [list(part) for part in plan.values()] == files
    assert ("model.safetensors" in plan) == (len(files) == 1)


def test_a_cut_file_is_refused(tmp_path, tensors):
    path = tmp_path / "t.safetensors"
    write_tensors(path, SHAPES, torch.float32, tensors.__getitem__)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ExportError, match=r"t\.safetensors .* is not a whole safetensors file"):
        SafetensorFiles([path])


def test_a_dtype_that_is_no_weight_is_refused(tmp_path):
    save_file({"t": torch.zeros(3, dtype=torch.int8)}, tmp_path / "t.safetensors")
    with pytest.raises(ExportError, match="'t' is I8"):
        SafetensorFiles([tmp_path / "t.safetensors"])
