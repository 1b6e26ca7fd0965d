"""Several requests to launch/pretrain.py in one process, each expected to be refused: imports cost more than they do.

Arguments: a JSON file with a list of command lines. Prints a JSON list of [exit status, message].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from megadec.common.errors import MegadecError
from megadec.export.commands import pretrain


def main(requests: Path) -> None:
    answers = []
    for request in json.loads(requests.read_text()):
        try:
            pretrain(request)
        except MegadecError as error:
            answers.append([error.exit_status, str(error)])
        else:
            answers.append([0, "it was done"])
    print(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
