"""Look into a data set, or into the batch of a step of a run.

    python tools/show.py --data shards/zhwiki [--window 7 --sequence_length 1024] [--verify true]
    python tools/show.py --run runs/NAME --step 1200 [--sequence 3]

In: a folder of shards or its address; or a run (its folder, a checkpoint, or its YAML file). Out: on standard output
what the index says, which documents some windows hold, or which were in the batch of a step; of a run that has a
checkpoint only from the shards that it was trained on. Not named inspect.py: a
script's folder comes first in Python's search path, so that name would hide the standard library's module from every
script in this folder.
"""

from megadec.common.errors import run_main
from megadec.lineage.show import main

if __name__ == "__main__":
    run_main(main)
