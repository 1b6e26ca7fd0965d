"""From the command line to the decoder it is a short way, which a reader can follow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support import PROJECT
from tests.support.processes import PRETRAIN, environment

MOST_FRAMES = 6
# The command in one process, whose decoder writes down who called it in the first step.
RECORD = """
import json, os, runpy, sys, traceback
from megadec.decoder.model import Decoder

def forward(self, *args, **kwargs):
    if self.training:
        print(json.dumps([[frame.filename, frame.name] for frame in traceback.extract_stack()]), flush=True)
        os._exit(0)
    return original(self, *args, **kwargs)

original, Decoder.forward = Decoder.forward, forward
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_between_the_command_and_the_decoder_stand_at_most_six_functions_of_ours(
    make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    run = make_run("flow", train={"dry_run": False}, evaluate={"sets": {}})
    arguments = [str(PRETRAIN), "--deepspeed", str(zero_file("zero0")), "--config", str(run)]
    done = subprocess.run(
        [sys.executable, "-c", RECORD, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    stack = json.loads(done.stdout.splitlines()[-1])
    ours = [name for file, name in stack if Path(file).is_relative_to(PROJECT / "megadec") or file == str(PRETRAIN)]
    between = ours[ours.index("pretrain") + 1 :]  # the function that launch/pretrain.py runs
    assert between[-2:] == ["train_step", "loss_sum"]
    assert len(between) <= MOST_FRAMES, between
