"""A rank of trainings in which something goes wrong on purpose, one after the other in one process.

Arguments: a JSON file with a list of {"run": YAML, "deepspeed": FILE, "options": [...], "refused": ERROR, "bare": BOOL,
"break": {"rank": R, "steps": [N, ...], "value": X}, "sleep": {"rank": R, "step": N, "seconds": S}}. "break" puts X into
that rank's gradient of one parameter, by a hook in the backward pass of these steps; "sleep" waits there. "bare" trains
by DeepSpeed's own step, with no dry run, no hook and no gate of ours. For every step a file beside the plan says
whether it updated, and whether weights and optimizer state of the rank are, bit by bit, what they were before.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import megadec.engine.loop
from megadec.common.config import parse
from megadec.common.errors import MegadecError
from megadec.engine.health.preemption import Interrupt
from megadec.engine.runs.pretrain import Run, open_run
from megadec.engine.zero.engine import ZeroEngine, build_engine, end_process_group, start_process_group
from megadec.engine.zero.gradients import GradientWatch

PARAMETER = "layers.1.mlp.down_proj.weight"


def hash_of(engine: ZeroEngine) -> str:
    """Of this rank's share of weights and optimizer state, bit by bit."""
    digest = hashlib.sha256()
    optimizer = engine._engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    for group in inner.param_groups:
        for parameter in group["params"]:
            digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
            for name, value in sorted(inner.state.get(parameter, {}).items()):
                digest.update(name.encode() + value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for parameter in engine.module.parameters():
        own = getattr(parameter, "ds_tensor", parameter)
        digest.update(own.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def disturb(engine: ZeroEngine, training: dict[str, Any], hashes: list[dict[str, Any]]) -> None:
    """Hook into the gradient of one parameter, and hash around every update."""
    done = 0
    nobody = {"rank": -1, "steps": []}
    broken, sleeping = training.get("break", nobody), training.get("sleep", nobody)

    def spoil(gradient: Tensor) -> Tensor:
        rank = engine.ranks.rank
        if rank == sleeping["rank"] and done + 1 == sleeping["step"]:
            time.sleep(sleeping["seconds"])
        if rank == broken["rank"] and done + 1 in broken["steps"]:
            gradient = gradient.clone()
            gradient.view(-1)[0] = broken["value"]
        return gradient

    dict(engine.module.named_parameters())[PARAMETER].register_hook(spoil)
    update, refuse = engine.update, engine.skip_update

    def counted(kind: str, call: Any, *arguments: Any) -> None:
        nonlocal done
        before = hash_of(engine)
        call(*arguments)
        done += 1
        hashes.append({"step": done, "call": kind, "same": hash_of(engine) == before})

    engine.update = lambda rate: counted("update", update, rate)  # type: ignore[method-assign]
    engine.skip_update = lambda: counted("refuse", refuse)  # type: ignore[method-assign]


class NoGate:
    """What there was before there was a guard: DeepSpeed alone decides."""

    def __init__(self, *_: Any) -> None:
        pass

    def norm(self) -> float:
        """Unknown before the step."""
        return 1.0


def main(plan: Path) -> None:
    ranks = start_process_group()
    for training in json.loads(plan.read_text()):
        options = [*training.get("options", []), f"--train.dry_run={not training.get('bare', False)}"]
        run = parse(Run, ["--config", training["run"], *options], description="a test")
        hashes: list[dict[str, Any]] = []

        def build(*arguments: Any, training: Any = training, hashes: Any = hashes) -> ZeroEngine:
            if training.get("bare"):
                with (
                    mock.patch("megadec.engine.zero.engine.gate_of", NoGate),
                    mock.patch("megadec.engine.zero.engine.GradientWatch", return_value=GradientWatch(())),
                ):
                    return build_engine(*arguments)
            engine = build_engine(*arguments)
            disturb(engine, training, hashes)
            return engine

        megadec.engine.loop.build_engine = build  # type: ignore[attr-defined]
        try:
            with Interrupt() as interrupt:
                megadec.engine.loop.train(open_run(run, Path(training["deepspeed"])), interrupt, ranks)
        except MegadecError as error:
            if type(error).__name__ != training.get("refused"):
                raise
            (plan.parent / f"{run.name}.rank{ranks.rank}.{type(error).__name__}").write_text(str(error))
        else:
            assert "refused" not in training, training
        (plan.parent / f"{run.name}.rank{ranks.rank}.updates.json").write_text(json.dumps(hashes))
    end_process_group(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
