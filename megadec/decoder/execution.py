"""How a decoder computes its numbers, and never which.

In: a section of a run's YAML. Out: choices that the decoder's modules read when they are built. One object for all
choices instead of an argument each, so that a new one does not pass through every constructor; results agree within
rounding whatever is chosen, which tests hold every choice to.
"""

from dataclasses import dataclass, field
from typing import Literal

from megadec.common.errors import check_range
from megadec.decoder.kernels.choose import Kernels
from megadec.decoder.recompute import Recompute


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
