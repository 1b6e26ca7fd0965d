"""From the command line to the decoder it is a short way, which a reader can follow."""

import json
import os
import runpy
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

from megadec.decoder.model import Decoder
from tests.support import PROJECT
from tests.support.processes import PRETRAIN, run_ranks
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

MOST_FRAMES = 6


def first_callers(arguments: list[str], found: Path) -> None:
    """The command in one process, whose decoder writes down who called it in the first step."""
    original = Decoder.forward

    def forward(self: Decoder, *given: Any, **more: Any) -> Any:
        if self.training:
            found.write_text(json.dumps([[frame.filename, frame.name] for frame in traceback.extract_stack()]))
            os._exit(0)
        return original(self, *given, **more)

    with mock.patch.object(Decoder, "forward", forward), mock.patch("sys.argv", [str(PRETRAIN), *arguments]):
        runpy.run_path(str(PRETRAIN), run_name="__main__")


def test_between_the_command_and_the_decoder_stand_at_most_six_functions_of_ours(
    runs: TinyRuns, tmp_path: Path
) -> None:
    command = runs.command("flow", "zero0", train={"dry_run": False}, evaluate=NO_EVALUATION)
    run_ranks(first_callers, [command, tmp_path / "found.json"], 1, tmp_path / "log")
    stack = json.loads((tmp_path / "found.json").read_text())
    ours = [name for file, name in stack if Path(file).is_relative_to(PROJECT / "megadec") or file == str(PRETRAIN)]
    between = ours[ours.index("pretrain") + 1 :]  # the function that launch/pretrain.py runs
    assert between[-2:] == ["train_step", "loss_sum"]
    assert len(between) <= MOST_FRAMES, between
