"""What type checkers see of megadec/__init__.py, which reads these names from megadec/api.py on first use."""

from megadec.api import Model as Model
from megadec.api import convert as convert
from megadec.api import load as load
from megadec.api import prepare as prepare
from megadec.api import run_server as run_server
from megadec.api import train as train
from megadec.api import train_tokenizer as train_tokenizer

__version__: str
__all__: list[str]
