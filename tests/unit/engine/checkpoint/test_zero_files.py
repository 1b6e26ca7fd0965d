"""DeepSpeed's partitions, cut by hand as it cuts them, come together again.

That DeepSpeed itself still cuts like this is tested in tests/dist/test_export.py.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from megadec.common.errors import CheckpointError
from megadec.engine.checkpoint.zero_files import ZeroFiles

GROUPS = [{"matrix": (7, 5), "odd": (3, 3), "wide": (2, 11)}, {"bias": (5,), "one": (1,)}]


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.randn(size) for group in GROUPS for name, size in group.items()}


def save_model_file(folder: Path, name: str, **more) -> None:
    folder.mkdir(exist_ok=True)
    groups = [{name: torch.Size(size) for name, size in group.items()} for group in GROUPS]
    torch.save({"module": {}, "buffer_names": [], "param_shapes": groups, **more}, folder / name)


def save_rank(folder: Path, rank: int, ranks: int, key: str, vectors: list[torch.Tensor], prefix: str = "") -> None:
    state = {key: vectors, "partition_count": ranks, "zero_stage": 0}
    torch.save({"optimizer_state_dict": state}, folder / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def save_stage_3(folder: Path, tensors: dict[str, torch.Tensor], ranks: int) -> None:
    save_model_file(folder, "zero_pp_rank_0_mp_rank_00_model_states.pt")
    for rank in range(ranks):
        vectors = []
        for group in GROUPS:
            parts = []
            for name in group:
                part = math.ceil(tensors[name].numel() / ranks)
                padded = torch.cat([tensors[name].reshape(-1), torch.zeros(part * ranks)])[: part * ranks]
                parts.append(padded[rank * part : (rank + 1) * part])
            vectors.append(torch.cat(parts))
        save_rank(folder, rank, ranks, "fp32_flat_groups", vectors, prefix="bf16_")


def save_stage_2(folder: Path, tensors: dict[str, torch.Tensor], ranks: int) -> None:
    save_model_file(folder, "mp_rank_00_model_states.pt")
    whole = [torch.cat([tensors[name].reshape(-1) for name in group]) for group in GROUPS]
    for rank in range(ranks):
        # The last rank's partition is saved without its padding.
        vectors = [vector.split(math.ceil(vector.numel() / ranks))[rank : rank + 1] for vector in whole]
        flat = [parts[0].clone() if parts else torch.zeros(0) for parts in vectors]
        save_rank(folder, rank, ranks, "single_partition_of_fp32_groups", flat)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("save", [save_stage_2, save_stage_3])
def test_the_partitions_of_any_number_of_ranks_give_the_whole_tensors(tmp_path, tensors, save, ranks):
    save(tmp_path, tensors, ranks)
    files = ZeroFiles(tmp_path)
    assert files.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        assert torch.equal(files.read(name), tensor)


def test_at_stage_0_the_weights_stand_in_the_module_and_buffers_do_not_count(tmp_path, tensors):
    module = {**tensors, "table": torch.zeros(3)}
    torch.save({"module": module, "buffer_names": ["table"]}, tmp_path / "mp_rank_00_model_states.pt")
    files = ZeroFiles(tmp_path)
    assert files.shapes.keys() == tensors.keys()
    assert all(torch.equal(files.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(("missing", "words"), [(0, "one is missing"), (2, "3 ranks wrote it")])
def test_a_rank_without_its_file_is_named(tmp_path, tensors, missing, words):
    save_stage_3(tmp_path, tensors, 3)
    (tmp_path / f"bf16_zero_pp_rank_{missing}_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(CheckpointError, match=words):
        ZeroFiles(tmp_path)


def test_a_zero_3_folder_without_its_optimizer_files_has_no_weights(tmp_path):
    module = {"matrix": torch.zeros(0)}
    save_model_file(tmp_path, "zero_pp_rank_0_mp_rank_00_model_states.pt", module=module)
    with pytest.raises(CheckpointError, match="keeps its weights in those"):
        ZeroFiles(tmp_path)


def test_a_rank_with_too_few_or_too_many_elements_is_refused(tmp_path, tensors):
    save_stage_3(tmp_path, tensors, 2)
    for wrong in (4, 400):
        save_rank(tmp_path, 1, 2, "fp32_flat_groups", [torch.zeros(wrong), torch.zeros(1)], prefix="bf16_")
        with pytest.raises(CheckpointError, match=rf"rank_1_.* has {wrong + 1} elements; .* 38"):
            ZeroFiles(tmp_path)


def test_a_cut_file_is_refused(tmp_path, tensors):
    save_stage_2(tmp_path, tensors, 1)
    path = tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"optim_states\.pt .* is not a whole PyTorch file"):
        ZeroFiles(tmp_path)


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap-was-sprung"),))


def test_code_in_a_checkpoint_is_refused_and_never_runs(tmp_path, tensors, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model_file(tmp_path, "mp_rank_00_model_states.pt", trap=_Trap())
    with pytest.raises(CheckpointError, match="model_states"):
        ZeroFiles(tmp_path)
    assert not Path("trap-was-sprung").exists()


def test_no_folder_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"mp_rank_00_model_states\.pt does not exist"):
        ZeroFiles(tmp_path / "nothing")


def test_frozen_parameters_stand_in_the_modules_state_at_stages_1_and_2(tmp_path, tensors):
    """Beside them the module has the trained ones in 16 bits, second names of tied ones, and buffers: none count."""
    frozen = torch.randn(4, 3).bfloat16()
    module = {
        **{name: tensor.bfloat16() for name, tensor in tensors.items()},
        "frozen": frozen,
        "second": frozen,
        "table": torch.zeros(3),
    }
    save_stage_2(tmp_path, tensors, 2)
    more = {"module": module, "buffer_names": ["table"], "shared_params": {"second": "frozen"}}
    save_model_file(tmp_path, "mp_rank_00_model_states.pt", **more)
    files = ZeroFiles(tmp_path)
    assert files.shapes.keys() == {*tensors, "frozen"}
    assert torch.equal(files.read("frozen"), frozen.float())
    assert all(torch.equal(files.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_frozen_parameters_are_put_together_from_all_ranks_at_stage_3(tmp_path, tensors, ranks):
    save_stage_3(tmp_path, tensors, ranks)
    frozen = {"one": torch.randn(4, 3), "two": torch.randn(5)}
    for rank in range(ranks):
        fragments = {}
        for name, tensor in frozen.items():
            part = math.ceil(tensor.numel() / ranks)
            padded = torch.cat([tensor.reshape(-1), torch.zeros(part * ranks)])
            fragments["frozen_" + name] = padded[rank * part : (rank + 1) * part]
        save_model_file(
            tmp_path,
            f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt",
            frozen_param_shapes={"frozen_" + name: tensor.shape for name, tensor in frozen.items()},
            frozen_param_fragments=fragments,
        )
    files = ZeroFiles(tmp_path)
    for name, tensor in {**tensors, **{"frozen_" + name: tensor for name, tensor in frozen.items()}}.items():
        assert torch.equal(files.read(name), tensor)


def test_a_ranks_missing_part_of_the_frozen_parameters_is_named(tmp_path, tensors):
    save_stage_3(tmp_path, tensors, 2)
    frozen = {"frozen_param_shapes": {"frozen": torch.Size([4])}, "frozen_param_fragments": {"frozen": torch.zeros(2)}}
    save_model_file(tmp_path, "zero_pp_rank_0_mp_rank_00_model_states.pt", **frozen)
    with pytest.raises(CheckpointError, match=r"zero_pp_rank_1_mp_rank_00_model_states\.pt"):
        ZeroFiles(tmp_path)
