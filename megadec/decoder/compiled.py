"""Blocks handed to torch.compile, each by itself, so that ZeRO-3 can gather a block's weights, run it, and free them.

A block is compiled on its first call, or stays eager, with a warning, where there is no compiler. Attention stays
outside the compiled graphs, because the documents of a batch would be constants in them and every batch a new
compilation; so does generation, whose lengths grow by one.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from megadec.common.log import logger
from megadec.decoder.kernels.choose import triton_is_installed

log = logger(__name__)

_MARK = "compiled_by_megadec"
CACHE_FOLDER = "TORCHINDUCTOR_CACHE_DIR"


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile each block's forward when it is first called, without a cache.

    A block's attention is expected in `block.self_attn.attend`. The first failure of a compiler makes all of these
    blocks eager again, with a warning.
    """
    blocks = list(blocks)
    state = _State(blocks)
    for block in blocks:
        block.forward = _forward(block.forward, state)  # type: ignore[method-assign]
        setattr(block, _MARK, True)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module is one whose forward `compile_blocks` compiles: ZeRO-3 must gather it as a whole."""
    return getattr(module, _MARK, False)


def missing_compiler(device: torch.device) -> str | None:
    """Why torch.compile cannot work for this kind of device here, or None where nothing is known to be missing."""
    if device.type == "cuda":
        if not triton_is_installed():
            return "triton is not installed"
        names = (os.environ.get("CC", "gcc"), "gcc", "clang")
        return None if any(map(shutil.which, names)) else "Triton finds no C compiler (gcc, clang or $CC)"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler (g++, clang++ or $CXX)"
    return None if shutil.which(compiler) else f"the C++ compiler {compiler!r} is not found"


def _cache_by_instructions() -> None:
    """Give torch's cache of compiled graphs a folder for each kind of vector instructions, unless the user named one.

    torch 2.11 to 2.14 finds a graph in it that was made for another CPU's instructions, which gives NaN or a crash.
    """
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    from torch._inductor.exc import InvalidCxxCompiler
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    default = default_cache_dir()
    if os.environ.get(CACHE_FOLDER, default) == default:
        with contextlib.suppress(InvalidCxxCompiler):  # then nothing can be compiled, and the first block says so
            os.environ[CACHE_FOLDER] = "-".join((default, *str(pick_vec_isa()).split()))


class _State:
    """What the blocks of one decoder share: whether compiling works here, None until it was tried."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.blocks = blocks
        self.works: bool | None = None

    def begin(self, device: torch.device) -> None:
        """Before the first compilation. Not earlier: torch's compiler cannot be imported inside DeepSpeed's zero.Init,
        in which the blocks are made, because that changes what torch.Tensor is."""
        import torch._functorch.config

        if reason := missing_compiler(device):
            self.give_up(reason)
            return
        self.works = True
        if device.type == "cpu":
            _cache_by_instructions()
        # Else a compiled block keeps a transposed view of each weight for its backward pass, which keeps alive what
        # ZeRO-3 gives back.
        torch._functorch.config.recompute_views = True
        for block in self.blocks:
            attention = cast(Any, block.self_attn)
            attention.attend = torch.compiler.disable(attention.attend)

    def give_up(self, reason: str) -> None:
        """From now on blocks are eager."""
        self.works = False
        log.warning("model.execution.compile=blocks: the blocks are not compiled, as %s", reason)


def _forward(eager: Callable[..., Tensor], state: _State) -> Callable[..., Tensor]:
    compiled = functools.cache(lambda: torch.compile(eager))

    @functools.wraps(eager)
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("cache") is None:
            if state.works is None:
                state.begin(x.device)
            if state.works:
                try:
                    return compiled()(x, *args, **kwargs)
                except torch._dynamo.exc.BackendCompilerFailed as error:
                    state.give_up(f"the compiler failed: {' '.join(str(error).split())[:300]}")
        return eager(x, *args, **kwargs)

    return forward
