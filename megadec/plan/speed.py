"""How long a run takes: operations at a stated share of the devices' peak, updates, and what goes to the host and back.

Nothing is known of a network or of a disk. What is offloaded is counted as if nothing else went on meanwhile.
"""

from typing import NamedTuple

from megadec.decoder.flops import flops_per_token
from megadec.plan.setup import FP32, Machines, Setup, Work

# AdamW reads weight, gradient and both moments of a number in fp32, and writes all but the gradient.
UPDATE_BYTES = 7 * FP32
# Of offloaded weights: each is fetched for the forward pass and again for the backward pass.
FETCHES = 2


class Speed(NamedTuple):
    """tokens_per_second: over all ranks. seconds_per_step: in all. update_seconds: of them, for AdamW in the device's
    memory. host_seconds: for what goes to the host and back. mfu: the model's own operations as a share of the peak."""

    model_flops_per_token: float
    tokens_per_second: float
    seconds_per_step: float
    update_seconds: float
    host_seconds: float
    days: float
    mfu: float


def speed_of(setup: Setup, again: float, machines: Machines, work: Work) -> Speed | None:
    """The speed of a run, None where no peak is known.

    again: operations that are computed again, as a share of the model's.
    """
    if machines.peak is None:
        return None
    useful = flops_per_token(setup.shape, work.document_tokens)
    tokens = work.global_batch_size * work.sequence_length
    compute = tokens * useful * (1 + again) / (machines.ranks * machines.peak * machines.utilization)
    update, host = update_seconds(setup, machines), host_seconds(setup, machines, work)
    seconds = compute + update + host
    return Speed(
        model_flops_per_token=useful,
        tokens_per_second=tokens / seconds,
        seconds_per_step=seconds,
        update_seconds=update,
        host_seconds=host,
        days=work.steps * seconds / 86400,
        mfu=tokens * useful / seconds / (machines.ranks * machines.peak),
    )


def update_seconds(setup: Setup, machines: Machines) -> float:
    """Of AdamW on the device, which only memory holds up; 0 where its bandwidth is not known."""
    if machines.bandwidth is None or setup.zero.optimizer_at != "device":
        return 0.0
    updated = setup.share(setup.parameters) if setup.zero.stage else setup.parameters
    return UPDATE_BYTES * updated / machines.bandwidth


def host_seconds(setup: Setup, machines: Machines, work: Work) -> float:
    """Of what is offloaded, in a step: gradients that go to the host at each micro-step, AdamW there, the new weights
    back; and offloaded weights, which are fetched for each pass. None of it on a CPU, whose host is its device.
    """
    if setup.device == "cpu":
        return 0.0
    groups = machines.ranks // setup.sequence_parallel_size
    micro_steps = max(1, work.global_batch_size // (groups * setup.micro_batch_size))
    own, moved = setup.share(setup.parameters), 0
    if setup.zero.optimizer_at != "device":
        moved += own * (micro_steps * setup.item + UPDATE_BYTES + setup.item)
    if setup.zero.parameters_at != "device":
        moved += own * micro_steps * FETCHES * setup.item
    return moved / machines.host_bandwidth
