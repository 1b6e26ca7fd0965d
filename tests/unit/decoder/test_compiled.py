"""Blocks under torch.compile: eager's losses, no compilation after the first step, and eager where nothing compiles."""

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor
from torch._dynamo.utils import counters

from megadec.decoder import compiled
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.compiled import missing_compiler
from megadec.decoder.execution import Execution, Recompute
from tests.support import PROJECT
from tests.support.decoders import decoder_of, tiny_shape

# torch's compiler looks into everything that is imported, whose warnings it hides only where they are no errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

CPU = torch.device("cpu")
SHAPE = tiny_shape(
    vocabulary_size=48, hidden_size=32, heads=2, kv_heads=1, intermediate_size=64, max_position_embeddings=32
)
STEPS = 20


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def documents(step: int) -> Tensor:
    """Two rows of documents that end elsewhere in each step."""
    return (torch.arange(32) >= torch.tensor([[5 + step], [20 - step // 2]])).int()


def losses(execution: Execution, steps: int = STEPS) -> tuple[list[float], list[int]]:
    """The losses of so many steps of gradient descent, and how many graphs there were after each."""
    decoder = decoder_of(SHAPE, execution=execution)
    found, graphs = [], []
    for step in range(steps):
        ids_BS = torch.randint(0, 48, (2, 32), generator=torch.Generator().manual_seed(step % 3))
        loss = decoder(ids_BS, documents_BS=documents(step), targets_BS=ids_BS.roll(-1, 1)) / 64
        loss.backward()
        with torch.no_grad():
            for parameter in decoder.parameters():
                assert parameter.grad is not None
                parameter -= 0.5 * parameter.grad
                parameter.grad = None
        found.append(float(loss.detach()))
        graphs.append(counters["stats"]["unique_graphs"])
    return found, graphs


needs_compiler = pytest.mark.skipif(missing_compiler(CPU) is not None, reason=str(missing_compiler(CPU)))


@needs_compiler
def test_compiled_blocks_have_eager_losses_and_compile_nothing_after_the_first_step() -> None:
    eager, none = losses(Execution())
    found, graphs = losses(Execution(compile="blocks"))
    assert max(none) == 0
    assert found == pytest.approx(eager, rel=1e-4)
    assert found[-1] < found[0] - 0.1
    assert graphs[0] > 0
    assert set(graphs) == {graphs[0]}  # one set for all blocks and for all documents
    for mode in ("full", "selective"):
        again, _ = losses(Execution(compile="blocks", recompute=Recompute(mode=mode)), steps=4)
        assert again == pytest.approx(eager[:4], rel=1e-4)


COMPILE_ONCE = """
import warnings
warnings.simplefilter("ignore")
from megadec.decoder.execution import Execution, Recompute
from tests.unit.decoder.test_compiled import losses
print(losses(Execution(compile="blocks"), steps=2)[0])
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are of x86")
def test_graphs_that_were_compiled_for_another_cpu_are_not_taken(tmp_path: Path) -> None:
    eager = losses(Execution(), steps=2)[0]
    inherited = {name: value for name, value in os.environ.items() if name != compiled.CACHE_FOLDER}
    for cpu in ({}, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}):
        done = subprocess.run(
            [sys.executable, "-c", COMPILE_ONCE],
            env={**inherited, **cpu, "TMPDIR": str(tmp_path)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == pytest.approx(eager, rel=1e-4)


def test_without_a_compiler_blocks_are_eager_and_a_warning_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING), torch._inductor.config.patch("cpp.cxx", ("/no/such/compiler",)):
        found, graphs = losses(Execution(compile="blocks"), steps=2)
        reason = missing_compiler(CPU)
    assert max(graphs) == 0
    assert found == losses(Execution(), steps=2)[0]
    warnings = [record.message for record in caplog.records if "compile" in record.message]
    assert warnings == [f"model.execution.compile=blocks: the blocks are not compiled, as {reason}"]
    assert reason == "there is no C++ compiler (g++, clang++ or $CXX)"


def test_a_compiler_that_fails_leaves_the_blocks_eager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "missing_compiler", lambda device: None)
    with caplog.at_level(logging.WARNING), torch._inductor.config.patch("cpp.cxx", ("/bin/false",)):
        found, _ = losses(Execution(compile="blocks"), steps=2)
    assert found == losses(Execution(), steps=2)[0]
    assert [record.message for record in caplog.records if "the compiler failed" in record.message]


def test_generating_with_a_cache_compiles_nothing() -> None:
    decoder = decoder_of(SHAPE, execution=Execution(compile="blocks"))
    cache = KeyValueCache(SHAPE, 1, device=CPU, dtype=torch.float32)
    with torch.no_grad():
        whole = decoder(torch.arange(6)[None], cache=cache)
    assert counters["stats"]["unique_graphs"] == 0
    assert whole.shape == (1, 6, 48)
