"""Every module imports with the base dependencies alone, or is a door that says which extra it needs."""

import subprocess
import sys

from tests.support import PROJECT

# Packages of the extras that nothing in the base set loads by itself.
EXTRAS = [
    "transformers", "ray", "starlette", "uvicorn", "matplotlib", "sklearn", "onnx", "onnxruntime", "gguf", "jieba",
    "rjieba", "gensim", "llguidance",
]  # fmt: skip

HTTP = sorted(path.stem for path in (PROJECT / "megadec/serve/http").glob("*.py") if "starlette" in path.read_text())

# None in sys.modules makes an import fail as if the package were not installed.
PROGRAM = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import megadec
from megadec.common.errors import MissingExtraError
names = [module.name for module in pkgutil.walk_packages(megadec.__path__, "megadec.")]
for name in names:
    try:
        importlib.import_module(name)
    except MissingExtraError:
        print(name)
"""


def test_every_module_imports_without_the_extras() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *EXTRAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    doors = ["connections", *(f"http.{name}" for name in HTTP), "server"]
    assert done.stdout.split() == [f"megadec.serve.{name}" for name in doors]
