"""Rehearse what can happen to a run: kills, stops, damaged and moved shards, full disks, second starts; scaled down.

    python tools/rehearse.py --config launch/runs/NAME.yaml --deepspeed ds_configs/zero3.json [--section.key value ...]
        [--ranks 2] [--rank_numbers 1 2 3] [--other_deepspeed ds_configs/zero1.json] [--seed 0]
        [--kills 10] [--share_in_saves 0.4] [--share_in_evaluations 0.2]
        [--stops 2] [--damaged_shards 2] [--full_disks 3] [--moves 1] [--requeues 1] [--second_starts 1]
        [--steps 200] [--sequence_length 64] [--own_model true] [--tolerance 1e-5] [--patience_seconds 900]
        [--folder FOLDER] [--output rehearsal.json]

In: a run as launch/pretrain.py takes it; what of it a rehearsal changes is in the report. --kills is short for
--rehearsal.kills, and so on; --seed is that of the rehearsal, the run's own is in its file. Out: a table on standard
output, the same as JSON in --output. Exit status 1 when a row is not as it must be: a loss differs from the undisturbed
run's, something is left over, no whole checkpoint is there to go on from. The user's shards are only read, and no file
of the run's own folder is touched.
"""

from megadec.common.errors import run_main
from megadec.rehearse.rehearsal import main

if __name__ == "__main__":
    run_main(main)
