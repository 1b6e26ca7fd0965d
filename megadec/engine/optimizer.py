"""AdamW and its two parameter groups.

Torch's own fused AdamW (one kernel on CPU and on CUDA) needs no compiler; DeepSpeed's fused Adam must be built first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from megadec.common.errors import check_range

if TYPE_CHECKING:  # the options are read without torch
    import torch
    from torch import nn

EMBEDDING_NAMES = ("embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101).

    learning_rate: the peak, which the schedule scales.
    weight_decay: of matrices. decay_embeddings: of embeddings too.
    beta1, beta2, epsilon: as in the paper.
    max_grad_norm: scale gradients down to this where their global norm is above it; 0: no clipping.
    """

    learning_rate: float = 6e-4
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    decay_embeddings: bool = False
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "optimizer.", "learning_rate", above=0)
        check_range(self, "optimizer.", "weight_decay", "max_grad_norm", "epsilon", least=0)
        check_range(self, "optimizer.", "beta1", "beta2", least=0, below=1)


def decays(name: str, options: OptimizerOptions) -> bool:
    """Whether weight decay pulls on the parameter of this name.

    Norm weights and biases never decay. The name decides, not the number of dimensions: under ZeRO-3 every parameter
    that is not gathered looks empty and one-dimensional.
    """
    if name in EMBEDDING_NAMES:
        return options.decay_embeddings
    owner = name.removesuffix(".weight").rpartition(".")[2]
    return not (name.rpartition(".")[2].startswith("bias") or "norm" in owner)


def build_optimizer(parameters: "Iterable[tuple[str, nn.Parameter]]", options: OptimizerOptions) -> "torch.optim.AdamW":
    """AdamW over what decays and what does not; an empty group is left out.

    Its rate is 0 until a step sets it, so an update that nobody asked for changes nothing. Each group says whether it
    `decays`.
    """
    from torch.optim import AdamW

    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in parameters:
        if parameter.requires_grad:
            groups[decays(name, options)].append(parameter)
    parts = [{"params": own, "decays": decay} for decay, own in groups.items() if own]
    optimizer = AdamW(parts, lr=0.0, fused=True)
    set_options(optimizer.param_groups, options)
    return optimizer


def set_options(groups: Iterable[dict[str, Any]], options: OptimizerOptions) -> None:
    """Have parameter groups of `build_optimizer` be updated by these options, but for the rate, which a step sets."""
    for group in groups:
        group["weight_decay"] = options.weight_decay * group["decays"]
        group["betas"], group["eps"] = (options.beta1, options.beta2), options.epsilon
