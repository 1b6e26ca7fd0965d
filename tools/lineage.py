"""Which weights saw which documents.

    python tools/lineage.py --run runs/NAME --step 120
    python tools/lineage.py --run runs/NAME --document wiki-17 news-4 --search runs exports [--json true]

In: a run (or several) and a step, or ids of documents, as for a request to withdraw them; folders in which to look for
exports and for runs that began from this one. Out: the documents of the step; or every step and row that held a part of
the documents, whether the weights learned from it (`seen`) or not and why (`skipped`: the guard left out the update,
the document was skipped, a shard was damaged), every checkpoint from the first step on that learned, and every export
and run that was made of those. `assumed` marks what does not say which steps its weights left out. Not named
trace.py: a script's folder comes first in Python's search path, so that name would hide the standard library's module
from every script in this folder.
"""

from megadec.common.errors import run_main
from megadec.lineage.command import main

if __name__ == "__main__":
    run_main(main)
