"""How a decoder computes its numbers, and never which.

In: a section of a run's YAML. Out: choices that the decoder's modules read when they are built. One object for all
choices instead of an argument each, so that a new one does not pass through every constructor; results agree within
rounding whatever is chosen, which tests hold every choice to. A run file is read without torch, so this knows nothing
of it.
"""

from dataclasses import dataclass, field
from typing import Literal

from megadec.common.errors import ConfigError, check_choice, check_range

Kernels = Literal["auto", "torch", "triton"]
# What `keep` may name, and the products of a block behind each name; attention is no product.
KEEPABLE = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention": (),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}
KEEP = ("qkv", "attention", "output")


@dataclass(frozen=True)
class Recompute:
    """Which activations the backward pass computes again; the table in recompute.py compares the modes.

    mode: none, selective, every_nth or full.
    every: with every_nth, blocks 0, every, 2 * every ... are computed again.
    keep: with selective, what is kept.
    offload: keep the rest in host memory until the backward pass; helps on a GPU only.
    """

    mode: Literal["none", "full", "every_nth", "selective"] = "none"
    every: int = 2
    keep: tuple[str, ...] = KEEP
    offload: bool = False

    def __post_init__(self) -> None:
        check_range(self, "model.execution.recompute.", "every", least=1)
        for name in self.keep:
            check_choice("model.execution.recompute.keep", name, KEEPABLE)
        if self.mode != "selective" and set(self.keep) != set(KEEP):
            raise ConfigError(
                f"model.execution.recompute.keep={list(self.keep)} is for mode=selective, and the mode is {self.mode}"
            )
        if self.offload and self.mode == "none":
            raise ConfigError(
                "model.execution.recompute.offload=true with mode=none: what goes to the host is what a policy keeps,"
                " and none keeps everything; choose full, every_nth or selective"
            )

    def applies_to(self, layer: int) -> bool:
        """Whether block `layer` is computed again, wholly or in part."""
        return self.mode in ("full", "selective") or (self.mode == "every_nth" and layer % self.every == 0)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a decoder computes its numbers.

    recompute: which activations the backward pass computes again.
    kernels: `auto` takes the Triton kernels on a GPU where triton is installed, and torch elsewhere.
    compile: `blocks` hands every block to torch.compile.
    mlp_tile_tokens: tokens that go through a feed-forward layer at a time; 0: all.
    """

    recompute: Recompute = field(default_factory=Recompute)
    kernels: Kernels = "auto"
    compile: Literal["none", "blocks"] = "none"
    mlp_tile_tokens: int = 0

    def __post_init__(self) -> None:
        check_range(self, "model.execution.", "mlp_tile_tokens", least=0)


PLAIN = Execution()
