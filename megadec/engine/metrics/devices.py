"""The devices that plans and `mfu` know: dense bf16 peak, memory and its bandwidth, each with its source.

In: a device's name as a user or its driver writes it. Out: its figures. A device that is not here is planned with
numbers that the user states.
"""

import re
from typing import NamedTuple


class Device(NamedTuple):
    """peak_flops: dense bf16 operations a second (the makers' sheets often print the sparse figure, twice as much), or
    those of fp32 where bf16 is False. memory_gib: what the driver reports, somewhat less than the name says.
    memory_bandwidth: bytes a second of that memory. source: the maker's document that states the figures."""

    peak_flops: float
    memory_gib: float
    memory_bandwidth: float
    source: str
    bf16: bool = True


_AMPERE = "NVIDIA A100 data sheet"
_HOPPER = "NVIDIA H100 data sheet, half of its sparse figures"
_EXPORT = "NVIDIA H800 data sheet, half of its sparse figures"
_ADA = "NVIDIA Ada GPU architecture white paper, bf16 with fp32 sums"
_BLACKWELL = "NVIDIA Blackwell data sheet, half of its sparse figures"

# A name's words, apart at hyphens, are looked for in the driver's name; the entry with most words goes first.
DEVICES = {
    "GB200": Device(2500e12, 185.0, 8.0e12, f"{_BLACKWELL}, GB200 NVL72 / 72"),
    "B300": Device(2250e12, 268.0, 8.0e12, "NVIDIA HGX B300 data sheet / 8, half of its sparse figure"),
    "B200": Device(2250e12, 179.0, 8.0e12, f"{_BLACKWELL}, HGX B200 / 8"),
    "H200": Device(989e12, 140.0, 4.8e12, "NVIDIA H200 data sheet, half of its sparse figures"),
    "H200-NVL": Device(835e12, 140.0, 4.8e12, "NVIDIA H200 data sheet, half of its sparse figures"),
    "H100": Device(989e12, 79.6, 3.35e12, f"{_HOPPER}, SXM"),
    "H100-PCIe": Device(756e12, 79.6, 2.0e12, f"{_HOPPER}, PCIe"),
    "H100-NVL": Device(835e12, 93.6, 3.9e12, f"{_HOPPER}, NVL"),
    "H800": Device(989e12, 79.6, 3.35e12, f"{_EXPORT}, SXM"),
    "H800-PCIe": Device(756e12, 79.6, 2.0e12, f"{_EXPORT}, PCIe"),
    "H20": Device(148e12, 95.6, 4.0e12, "NVIDIA H20 product brief"),
    "A100": Device(312e12, 79.3, 2.039e12, f"{_AMPERE}, 80 GB SXM"),
    "A100-40GB": Device(312e12, 39.5, 1.555e12, f"{_AMPERE}, 40 GB"),
    "A800": Device(312e12, 79.3, 2.039e12, "NVIDIA A800 data sheet, 80 GB SXM"),
    "A800-40GB": Device(312e12, 39.5, 1.555e12, "NVIDIA A800 data sheet, 40 GB"),
    "A40": Device(149.7e12, 44.9, 0.696e12, "NVIDIA A40 data sheet"),
    "A30": Device(165e12, 23.9, 0.933e12, "NVIDIA A30 data sheet"),
    "A10": Device(125e12, 22.4, 0.6e12, "NVIDIA A10 data sheet"),
    "L40S": Device(362e12, 44.9, 0.864e12, "NVIDIA L40S data sheet"),
    "L40": Device(181e12, 44.9, 0.864e12, "NVIDIA L40 data sheet"),
    "L20": Device(119.5e12, 44.9, 0.864e12, "NVIDIA L20 product brief"),
    "L4": Device(121e12, 22.4, 0.3e12, "NVIDIA L4 data sheet, half of its sparse figures"),
    "RTX-5090": Device(209.5e12, 31.8, 1.792e12, "NVIDIA RTX Blackwell white paper, bf16 with fp32 sums"),
    "RTX-4090": Device(165.2e12, 23.9, 1.008e12, _ADA),
    "RTX-4090-D": Device(147.1e12, 23.9, 1.008e12, f"{_ADA}, by its 114 of 128 multiprocessors"),
    "RTX-3090": Device(71e12, 23.9, 0.936e12, "NVIDIA Ampere GA102 white paper, bf16 with fp32 sums"),
    "V100": Device(15.7e12, 31.7, 0.9e12, "NVIDIA V100 data sheet, SXM2 32 GB, fp32: it has no bf16", bf16=False),
    "Ascend-910B": Device(313e12, 64.0, 1.6e12, "Huawei Atlas 800T A2 / 8, fp16; no step of megadec runs on it"),
}  # fmt: skip


# In a name these mean another chip, or a part of it.
VARIANTS = frozenset({"d", "laptop", "max", "mig", "super", "ti"})


def find_device(name: str) -> Device | None:
    """The device of this name, in any spelling ("NVIDIA GeForce RTX 4090", "rtx-4090"); None where it is not known."""
    words = _words(name)
    known = [one for one in DEVICES if _words(one) <= words and not VARIANTS & (words - _words(one))]
    return DEVICES[max(known, key=lambda one: len(_words(one)))] if known else None


def device_table() -> str:
    """All devices as lines of text, for a terminal."""
    lines = [f"{'--device':<12}{'bf16 TFLOP/s':>14}{'GiB':>8}{'TB/s':>8}  source"]
    for name, one in DEVICES.items():
        peak = f"{one.peak_flops / 1e12:g}" if one.bf16 else "none"
        lines.append(f"{name:<12}{peak:>14}{one.memory_gib:>8g}{one.memory_bandwidth / 1e12:>8g}  {one.source}")
    return "\n".join(lines)


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", name.lower()))
