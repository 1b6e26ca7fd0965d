"""A wheel in an environment of its own, in another folder: every verb, and the same from Python.

The environment finds the dependencies where the tests have them; megadec itself comes from the wheel alone.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

from megadec.common.processes import free_port
from tests.support import PROJECT
from tests.support.processes import environment, running, wait_until

pytestmark = pytest.mark.slow

SHAPE = """{preset: 1m, shape: {max_position_embeddings: 128}}"""
RUN = f"""name: small
tokenizer: made/words/tokenizer.model
model: {SHAPE}
data: {{train: {{made/shards: 1.0}}, sequence_length: 128}}
train: {{steps: 4, global_batch_size: 4, micro_batch_size: 2}}
schedule: {{warmup_steps: 2}}
checkpoint: {{interval_steps: 0}}
"""
# The whole way as the quick start has it, and what was installed.
[_, FROM_PYTHON] = re.findall(
    r"```python\n(.*?)```", (PROJECT / "docs" / "en" / "quick-start.md").read_text(), re.DOTALL
)
FROM_PYTHON += """
    assert isinstance(megadec.load("exports/mine-hf").generate("房间", max_new_tokens=4), str)
    assert "site-packages" in megadec.__file__, megadec.__file__
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with the samples, and the programs of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if name.startswith("megadec/") or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, source / name)
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    [site] = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "--python", folder / "env", "install", "-q", "--no-deps", wheel], check=True)
    shutil.copytree(PROJECT / "samples", folder / "work" / "samples")
    (folder / "work" / "zero3.json").write_text('{"zero_optimization": {"stage": 3}}', encoding="utf-8")
    (folder / "work" / "run.yaml").write_text(RUN, encoding="utf-8")
    (folder / "work" / "my").mkdir()
    run = RUN.replace("made/words", "tokenizer/mine").replace("made/shards", "shards/mine").replace("small", "mine")
    (folder / "work" / "my" / "run.yaml").write_text(run, encoding="utf-8")
    texts = sorted((PROJECT / "samples" / "thucnews").glob("*/[0-9]*.txt"))
    lines = [json.dumps({"text": text.read_text(encoding="utf-8")}, ensure_ascii=False) for text in texts]
    (folder / "work" / "my" / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "work", folder / "env" / "bin"


def run_in(installed: tuple[Path, Path], *words: str) -> str:
    folder, programs = installed
    variables = {**environment(), "PYTHONPATH": "", "PATH": f"{programs}:{environment()['PATH']}"}
    done = subprocess.run(
        [str(programs / words[0]), *words[1:]], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def test_every_verb_works_from_the_wheel(installed: tuple[Path, Path]) -> None:
    folder, programs = installed
    for command in (
        "prepare --source comments --input samples/comments/comments.csv --documents made/c.parquet",
        "train-tokenizer --input made/c.parquet --vocab-size 1600 --output made/words",
        "prepare --source documents --input made/c.parquet --tokenizer made/words/tokenizer.model --output made/shards",
        "pretrain --deepspeed zero3.json --config run.yaml",
        "convert --input runs/small --to hf --output made/hf",
    ):
        run_in(installed, "megadec", *command.split())
    generate = ["--model", "made/hf", "--prompt", "房间", "--sampling.max-new-tokens", "4"]
    printed = run_in(installed, "megadec", "generate", *generate)
    assert printed.startswith("房间")
    port, variables = free_port(), {**environment(), "PYTHONPATH": ""}
    serve = [str(programs / "megadec"), "serve", "--model", "made/hf", "--port", str(port)]
    log = folder / "serve.log"
    with running(serve, log, cwd=folder, env=variables) as service:
        wait_until(lambda: service.poll() is not None or "serving" in log.read_text(), "the service", log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=30) as answer:
            assert json.load(answer)["data"][0]["id"] == "hf"
        service.terminate()
        assert service.wait(60) == 0


def test_python_does_the_same_from_the_wheel(installed: tuple[Path, Path]) -> None:
    (installed[0] / "way.py").write_text(FROM_PYTHON, encoding="utf-8")
    run_in(installed, "python", "way.py")
