"""Pairs of ranks that only join, exchange some numbers, and end: forked, so that imports are paid for once.

Argument: how many pairs, one after the other. Prints the exit codes of all ranks as a JSON list.
"""

import gc
import json
import os
import sys

from megadec.common.processes import free_port
from megadec.engine.zero.engine import start_process_group

MESSAGES = 20


def rank_of_two(rank: int, port: int) -> None:
    """Join as `rank`, and end as a program does."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    # A thread that waits for Python's lock gets it when this one waits too, not every 5 ms: what happens to one run
    # in some happens here to one rank in eight.
    sys.setswitchinterval(10.0)
    ranks = start_process_group()
    for _ in range(MESSAGES):
        ranks.all_gather(rank)  # and then an end without `end_process_group`, as after an error on all ranks


def main(pairs: int) -> None:
    gc.freeze()  # as megadec.common.errors.run_main does at a program's end
    codes = []
    for _ in range(pairs):
        port = free_port()
        children = []
        for rank in range(2):
            child = os.fork()
            if not child:
                rank_of_two(rank, port)
                return
            children.append(child)
        codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes))


if __name__ == "__main__":
    main(int(sys.argv[1]))
