"""megadec: Chinese text from raw dump to a served decoder. The packages in alphabetical order are the data flow.

The Python interface is megadec/api.py: the functions are read from there when they are first used, so that
`import megadec` costs nothing and needs no extra.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
# No class of options: jsonargparse looks for each of them here too, and would import all of the interface for it.
__all__ = ["Model", "convert", "load", "prepare", "run_server", "train", "train_tokenizer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'megadec' has no attribute {name!r}")
    return getattr(importlib.import_module("megadec.api"), name)
