"""LoRA, and what else of a pretrained decoder may be trained for a task: all of it, or its head alone.

Our own LoRA of a dozen lines instead of peft: a frozen weight and its low-rank parts belong to one module, so ZeRO-3
gathers them together where they are used, and a checkpoint has them under the decoder's own names.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from megadec.common.errors import ConfigError, check_choice, check_range
from megadec.decoder.flops import FORWARD_AND_BACKWARD
from megadec.decoder.initialize import normal_tensor
from megadec.decoder.layers import Linear, linear
from megadec.decoder.model import Decoder
from megadec.export.read.open_model import LORA_A, LORA_B
from megadec.export.read.source import SCORE

Method = Literal["full", "frozen", "lora", "scratch"]
METHODS: tuple[Method, ...] = get_args(Method)
TARGET_MODULES = {
    "q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn",
    "gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank matrices beside frozen weights (arXiv 2106.09685).

    rank: of the matrices.
    alpha: they are multiplied by alpha / rank.
    targets: the linear layers that get one.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = tuple(TARGET_MODULES)

    def __post_init__(self) -> None:
        check_range(self, "lora.", "rank", least=1)
        check_range(self, "lora.", "alpha", above=0)
        for target in self.targets:
            check_choice("lora.targets", target, TARGET_MODULES)
        if not self.targets:
            raise ConfigError("lora.targets is empty: name at least one linear layer, such as q_proj")

    @property
    def scale(self) -> float:
        """What the added product is multiplied by."""
        return self.alpha / self.rank


class LoraLinear(Linear):
    """y = x W^T (+ b) + scale * x A^T B^T with W and b frozen (arXiv 2106.09685).

    A is [rank, inputs], B [outputs, rank].
    """

    def __init__(self, inputs: int, outputs: int, options: LoraOptions, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self.scale = options.scale
        self.lora_a = nn.Parameter(torch.zeros(options.rank, inputs))
        self.lora_b = nn.Parameter(torch.zeros(outputs, options.rank))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * linear(linear(x, self.lora_a), self.lora_b)


def trains(method: Method, name: str) -> bool:
    """Whether `method` trains the parameter of this name."""
    return method in ("full", "scratch") or name == SCORE or name.endswith((LORA_A, LORA_B))


def adapted(classifier: Decoder, method: Method, lora: LoraOptions) -> Decoder:
    """The classifier itself: its parameters require a gradient where `method` trains them, and LoRA's are added."""
    if method == "lora":
        for block in classifier.layers:
            for target in lora.targets:
                owner = block.get_submodule(TARGET_MODULES[target])
                plain = cast(Linear, getattr(owner, target))
                setattr(owner, target, LoraLinear(plain.in_features, plain.out_features, lora, plain.bias is not None))
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(trains(method, name))
    return classifier


def first_lora_value(name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """A starts small and random (its variance that of the paper's uniform numbers), B at zero: nothing is added yet."""
    if name.endswith(LORA_B):
        return torch.zeros(size, device="cpu")
    return normal_tensor(name, size, 1 / math.sqrt(3 * size[1]), seed)


def trained_share(method: Method) -> float:
    """The operations of a step as a share of those of full training.

    Without gradients of the trunk's weights (lora) a third of them falls away, without any of the trunk's (frozen) two
    thirds; the small products that are added are not counted.
    """
    return {"lora": 2, "frozen": 1}.get(method, FORWARD_AND_BACKWARD) / FORWARD_AND_BACKWARD
