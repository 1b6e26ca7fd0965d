"""`--stage NAME`: the run as it is given now goes on from a checkpoint as a new stage, its first one behind it.

Out comes the same run with the stages that the checkpoint was trained in, and the new one that holds what differs from
the last of them; from there on it is a run with a list of stages like any other. Every rank works it out for itself,
before they have met, so only manifests are read, and no weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megadec.common.config import from_dict, to_dict
from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.files import read_json
from megadec.engine.checkpoint.manifest import MANIFEST, checkpoints_in
from megadec.engine.runs.common import CHECKPOINTS, NO_PATH
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.stages import flat, may_change, nested, stage_values


def with_new_stage(run: PretrainRun) -> PretrainRun:
    """The run with the stage that `run.stage` names.

    Where the run's newest checkpoint is of a run with such a stage, the command was given before, and that stage goes
    on. Raises ConfigError where there is no checkpoint to go on from, CheckpointError for a manifest that is broken.
    """
    if run.stages:
        raise ConfigError(
            f"stage={run.stage} and a list of stages were both given: give {run.stage} a place in the list and leave"
            " --stage out, or give a run file without a list that says the run as it is to be, with what earlier"
            " stages changed"
        )
    own = _newest(run.checkpoints)
    stages = [] if own is None else list(own["run"].get("stages", ()))
    first_step = {stage["name"]: stage["first_step"] for stage in stages}.get(run.stage)
    saved = own if first_step is not None else _named(run, own)
    assert saved is not None
    if first_step is None:
        first_step, stages = saved["step"] + 1, list(saved["run"].get("stages", ()))
    stages = [stage for stage in stages if stage["first_step"] < first_step]

    defaults = dict(flat(to_dict(PretrainRun(run.name, run.tokenizer))))
    given, begun = dict(flat(to_dict(run))), defaults | dict(flat(saved["run"]))
    last = dict(flat(stage_values({**nested(begun), "stages": stages})[-1].values))
    for key in sorted(last.keys() - given.keys()):
        if may_change(key):  # what the run has without it, nobody knows here
            raise ConfigError(f"{key}={last[key]} in the last stage, and it is not given now: state it")
    changes = {key: value for key, value in given.items() if may_change(key) and last.get(key) != value}
    whole = {key: value for key, value in given.items() if not may_change(key)}
    whole |= {key: value for key, value in begun.items() if may_change(key)}
    new = {"name": run.stage, "first_step": first_step, **nested(changes)}
    return from_dict(PretrainRun, {**nested(whole), "stages": [*stages, new], "stage": None})


def _named(run: PretrainRun, own: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The manifest of the checkpoint that `checkpoint.resume` names. own: of the run's newest, for `auto`."""
    resume = run.checkpoint.resume
    path = Path(resume)
    found = own if resume == "auto" else _newest(path / CHECKPOINTS) if resume not in NO_PATH else None
    if found is None and (path / MANIFEST).is_file():
        found = read_json(path / MANIFEST, CheckpointError)
    if found is None:
        raise ConfigError(
            f"stage={run.stage} goes on from a checkpoint, and checkpoint.resume={resume} names none: give the path of"
            " one, or of a run that has some"
        )
    return found


def _newest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the newest checkpoint under `folder`, whose files are compared when it is loaded."""
    paths = [path for path in checkpoints_in(folder) if (path / MANIFEST).is_file()]
    found: dict[str, Any] | None = read_json(paths[-1] / MANIFEST, CheckpointError) if paths else None
    return found
