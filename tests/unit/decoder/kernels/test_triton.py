"""Triton kernels as machine code for Hopper: they compile where no GPU is, and read and write 16 bytes at a time."""

from typing import Any

import pytest

from megadec.decoder.kernels.choose import triton_is_installed
from megadec.decoder.kernels.triton_launch import Tile, programs, tile_of

pytestmark = pytest.mark.skipif(not triton_is_installed(), reason="triton is not installed")

FLOAT32 = ("inverse_ptr", "partial_ptr", "cos_ptr", "sin_ptr")
ALIGNED = ("size", "half", "elements")  # multiples of 16 in any decoder


def assembly_of(kernel: Any, constants: dict[str, Any], warps: int) -> str:
    """PTX for bfloat16 tensors; ptxas has made machine code of it as well."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(kernel.arg_names)
    types = {name: "constexpr" if name in constants else _type_of(name) for name in names}
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]] for name in names if name.endswith("_ptr") or name in ALIGNED
    }
    source = ASTSource(kernel, types, {(names.index(name),): value for name, value in constants.items()}, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert made.asm["cubin"]
    return str(made.asm["ptx"])


def _type_of(name: str) -> str:
    if name.endswith("_ptr"):
        return "*fp32" if name in FLOAT32 else "*bf16"
    return "fp32" if name in ("eps", "sign") else "i32"


def test_every_kernel_compiles_for_hopper_and_moves_16_bytes_at_a_time(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megadec.decoder.kernels import triton_norm, triton_rotary, triton_swiglu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def tiles(tile: Tile) -> dict[str, Any]:
        return {"R": tile.rows, "C": tile.columns}

    norms = [tile_of(2048, elements) for elements in (triton_norm.FORWARD_ELEMENTS, triton_norm.BACKWARD_ELEMENTS)]
    heads = [tile_of(64, elements) for elements in (triton_rotary.FORWARD_ELEMENTS, triton_rotary.BACKWARD_ELEMENTS)]
    for kernel, constants, warps in (
        (triton_norm._forward, {"ADDS": True, **tiles(norms[0])}, norms[0].warps),
        (triton_norm._backward, {"ADDS": True, **tiles(norms[1])}, norms[1].warps),
        (triton_rotary._rotate_pair, tiles(heads[0]), heads[0].warps),
        (triton_rotary._forward, tiles(heads[0]), heads[0].warps),
        (triton_rotary._backward, tiles(heads[1]), heads[1].warps),
        (triton_swiglu._forward, {"E": triton_swiglu.ELEMENTS}, 8),
        (triton_swiglu._backward, {"E": triton_swiglu.ELEMENTS}, 8),
    ):
        assembly = assembly_of(kernel, constants, warps)
        for word in ("ld.global", "st.global"):
            lines = [line for line in assembly.splitlines() if word in line]
            assert any(".v4.b32" in line for line in lines), (kernel, lines)


@pytest.mark.parametrize(("size", "elements"), [(1, 2048), (24, 4096), (768, 4096), (4096, 2048), (65536, 4096)])
def test_a_tile_holds_whole_rows_of_powers_of_two(size: int, elements: int) -> None:
    tile = tile_of(size, elements)
    assert tile.columns >= size > tile.columns // 2
    assert tile.rows * tile.columns == max(elements, tile.columns)
    assert 4 <= tile.warps <= 32


def test_there_are_no_more_programs_than_tiles_and_always_one() -> None:
    import torch

    tile = tile_of(64, 2048)
    cpu = torch.device("cpu")
    assert [programs(rows, tile, cpu) for rows in (0, 1, tile.rows, tile.rows + 1, 10**6)] == [1, 1, 1, 2, 3]
