"""Rehearse what can happen to a run: kills, stops, damaged shards, full disks; on its own configuration, scaled down.

    python tools/rehearse.py --config launch/runs/NAME.yaml --deepspeed ds_configs/zero3.json [--section.key value ...]
        [--ranks 2] [--rank_numbers 1 2 3] [--other_deepspeed ds_configs/zero1.json] [--seed 0]
        [--kills 10] [--share_in_saves 0.4] [--share_in_evaluations 0.2]
        [--stops 2] [--damaged_shards 2] [--full_disks 2]
        [--steps 200] [--sequence_length 64] [--own_model true] [--tolerance 1e-5] [--patience_seconds 900]
        [--folder FOLDER] [--output rehearsal.json]

In: a run as launch/pretrain.py takes it; what of it a rehearsal changes is in the report. --kills is short for
--rehearsal.kills, and so on; --seed is that of the rehearsal, the run's own is in its file. Out: a table on standard
output, the same as JSON in --output. Exit status 1 when a row is not as it must be: a loss differs from the undisturbed
run's, something is left over, no whole checkpoint is there to go on from. The user's shards are only read, and no file
of the run's own folder is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from megadec.common.config import parse, take_options
from megadec.common.errors import ConfigError, TrainingError, run_main
from megadec.common.files import write_json
from megadec.engine.runs.pretrain import Run
from megadec.rehearse.disturbances import RehearsalOptions
from megadec.rehearse.rehearsal import rehearse, table

SCRIPT = Path(__file__).resolve().parents[1] / "launch" / "pretrain.py"
OWN_NAMES = {field.name for field in fields(RehearsalOptions)}


@dataclass(frozen=True)
class RehearsedRun(Run):
    """A run, and how it is rehearsed: --rehearsal.kills 10 and --kills 10 are the same."""

    rehearsal: RehearsalOptions = field(default_factory=RehearsalOptions)


def main(argv: Sequence[str]) -> None:
    """Parse, rehearse, print."""
    taken, rest = take_options(argv, ("deepspeed",))
    parsed = parse(
        RehearsedRun, [_prefixed(word) for word in rest], description=__doc__ or "", program="tools/rehearse.py"
    )
    if "deepspeed" not in taken:
        raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
    run = Run(**{field.name: getattr(parsed, field.name) for field in fields(Run)})
    report = rehearse(run, Path(taken["deepspeed"]), SCRIPT, parsed.rehearsal)
    print(table(report))
    if parsed.rehearsal.output is not None:
        write_json(parsed.rehearsal.output, report.to_json())
    if report.problems:
        numbers = ", ".join(map(str, report.problems))
        raise TrainingError(f"row(s) {numbers} are not as they must be")


def _prefixed(word: str) -> str:
    """`--kills` as `--rehearsal.kills`."""
    name = word.removeprefix("--").partition("=")[0].replace("-", "_")
    return f"--rehearsal.{word.removeprefix('--')}" if word.startswith("--") and name in OWN_NAMES else word


if __name__ == "__main__":
    run_main(main)
