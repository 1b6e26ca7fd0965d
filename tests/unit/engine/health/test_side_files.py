"""What a run only tells beside its metrics and checkpoints may fail; the run goes on."""

from pathlib import Path

import pytest
import torch

from megadec.common.owner import OWNER_FILE
from megadec.data.dataset import DataSet
from megadec.data.stages import StagedStream
from megadec.data.stream import TrainStream
from megadec.engine.health.damaged_shards import REPORT, report_damaged_shards
from megadec.engine.health.owner import owned
from megadec.engine.health.preemption import STOP_FILE, Interrupt
from megadec.engine.ranks import Ranks


def test_a_folder_is_owned_though_the_disk_takes_no_word_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / OWNER_FILE).symlink_to("/dev/full")
    with owned(tmp_path, Ranks(0, 1, torch.device("cpu"))):
        assert "does not say who owns the folder" in capsys.readouterr().err


def test_damaged_shards_are_named_though_their_report_cannot_be_written(
    tmp_path: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lame = DataSet.open(tiny_shards).without({0: "it is cut"})
    stream = TrainStream([(lame, 1.0)], sequence_length=32, packing="cut", seed=0, global_batch_size=2)
    (tmp_path / REPORT).mkdir()
    report_damaged_shards(StagedStream([lame], [stream]), tmp_path, 0)
    said = capsys.readouterr().err
    assert "the report of damaged shards is not written" in said
    assert "it is cut" in said


def test_a_stop_file_that_cannot_be_removed_is_a_warning_that_it_will_stop_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / STOP_FILE).mkdir()
    with Interrupt() as interrupt:
        interrupt.watch_stop_file(tmp_path)
        assert interrupt.requested
        interrupt.remove_stop_file()
    assert "will stop the next start" in capsys.readouterr().err
