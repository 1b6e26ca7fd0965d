"""The command rehearse: a run as launch/pretrain.py takes it in, a table (and JSON) of what disturbances cost it out.

--kills is short for --rehearsal.kills, and so on; --seed is that of the rehearsal, the run's own is in its file. The
user's shards are only read, and no file of the run's own folder is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from megadec.common.config import parse, take_options
from megadec.common.errors import ConfigError, TrainingError
from megadec.common.files import write_json
from megadec.engine.runs.pretrain import Run
from megadec.rehearse.disturbances import RehearsalOptions
from megadec.rehearse.rehearsal import rehearse, table

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "pretrain.py"
OWN_NAMES = {field.name for field in fields(RehearsalOptions)}


@dataclass(frozen=True)
class RehearsedRun(Run):
    """A run, and how it is rehearsed: --rehearsal.kills 10 and --kills 10 are the same."""

    rehearsal: RehearsalOptions = field(default_factory=RehearsalOptions)


def main(argv: Sequence[str]) -> None:
    """Rehearse and print. Raises TrainingError when a row is not as it must be: a loss differs from the undisturbed
    run's, something is left over, no whole checkpoint is there to go on from."""
    taken, rest = take_options(argv, ("deepspeed",))
    parsed = parse(RehearsedRun, [_prefixed(word) for word in rest], description=__doc__ or "")
    if "deepspeed" not in taken:
        raise ConfigError("--deepspeed FILE is missing; ds_configs/README.md says which one when")
    if not SCRIPT.is_file():
        raise ConfigError(f"{SCRIPT} does not exist; a rehearsal starts it: it needs megadec's source tree")
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
