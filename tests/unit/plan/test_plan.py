"""The plan's laws: parts add up, dividing never costs memory, and what is recommended fits."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.common.config import from_dict, from_yaml
from megadec.common.errors import ConfigError, ShardError
from megadec.decoder.execution import KEEPABLE, Execution, Recompute
from megadec.decoder.flops import model_flops
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.metrics.devices import DEVICES, find_device
from megadec.engine.runs.pretrain import PretrainRun
from megadec.plan.choice import POLICIES, again_fraction, choose
from megadec.plan.memory import FRAMEWORK_BYTES, PARTS, activation_bytes, memory_of
from megadec.plan.plan import PlanOptions, make_plan, plan_run, table
from megadec.plan.setup import GIB, Machines, Setup, Work, Zero
from megadec.plan.speed import speed_of
from tests.support import PROJECT
from tests.support.commands import answer, printed
from tools.plan import main

LARGE = DecoderShape.from_preset("7b")
SMALL = DecoderShape.from_preset("30m")
STAGES = {"bf16": (1, 2, 3), "fp32": (0, 1, 2, 3)}

setups = st.builds(
    Setup,
    shape=st.sampled_from([SMALL, LARGE, replace(SMALL, qk_norm=False, tied_embeddings=False)]),
    zero=st.builds(Zero, stage=st.integers(1, 3)),
    precision=st.sampled_from(["bf16", "fp32"]),
    ranks=st.sampled_from([1, 2, 8]),
    micro_batch_size=st.sampled_from([1, 4, 16]),
    sequence_length=st.sampled_from([128, 1024]),
    execution=st.sampled_from([Execution(recompute=policy) for policy in POLICIES]),
    device=st.sampled_from(["cpu", "cuda"]),
)
LAWS = settings(max_examples=50, deadline=None)


@given(setups)
@LAWS
def test_parts_add_up_to_the_peak_and_the_peak_is_the_largest_moment(setup: Setup) -> None:
    memory = memory_of(setup)
    assert set(memory.parts) == set(PARTS)
    assert memory.peak_bytes == sum(memory.parts.values())
    assert memory.peak_bytes == max(sum(moment.values()) for moment in memory.moments.values())
    assert all(size >= 0 for moment in memory.moments.values() for size in moment.values())
    assert memory.parts["framework"] == FRAMEWORK_BYTES[setup.device]


@given(setups, st.sampled_from([2, 4]))
@LAWS
def test_more_ranks_never_hold_more_each(setup: Setup, times: int) -> None:
    few, more = memory_of(setup), memory_of(replace(setup, ranks=setup.ranks * times))
    for part in ("parameters", "optimizer"):
        assert more.parts[part] <= few.parts[part]
    for moment in few.moments:
        assert more.moments[moment]["gradients"] <= few.moments[moment]["gradients"]
        assert more.moments[moment]["activations"] == few.moments[moment]["activations"]
    if setup.ranks > 1:  # the first message that is sent costs buffers
        assert more.peak_bytes <= few.peak_bytes


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("ranks", [8, 64])
def test_a_higher_stage_needs_less_for_a_large_model(precision: str, ranks: int) -> None:
    setup = Setup(LARGE, precision=precision, ranks=ranks, micro_batch_size=1, sequence_length=4096)  # type: ignore[arg-type]
    peaks = [memory_of(replace(setup, zero=Zero(stage=stage))).peak_bytes for stage in STAGES[precision]]
    assert peaks == sorted(peaks, reverse=True)


@given(setups)
@LAWS
def test_what_is_computed_again_need_not_be_kept(setup: Setup) -> None:
    kept = {policy: activation_bytes(setup.with_recompute(policy))[0] for policy in POLICIES}
    nothing, full = kept[POLICIES[0]], kept[POLICIES[-1]]
    assert all(full <= size <= nothing for size in kept.values())
    again = [again_fraction(setup.shape, policy, 512.0) for policy in POLICIES]
    assert again[0] == 0
    assert max(again) == again[-1] < 1 / 3


@given(setups)
@LAWS
def test_a_row_shared_by_ranks_divides_its_activations(setup: Setup) -> None:
    alone, shared = (
        activation_bytes(replace(setup, sequence_parallel_size=n, ranks=max(n, setup.ranks)))[0] for n in (1, 2)
    )
    assert alone / 2 <= shared < alone


def test_the_activations_are_those_that_autograd_keeps() -> None:
    shape = DecoderShape(
        vocabulary_size=64, hidden_size=48, layers=3, heads=4, kv_heads=2, head_size=16, intermediate_size=128,
        max_position_embeddings=256,
    )  # fmt: skip
    for qk_norm in (True, False):
        shape = replace(shape, qk_norm=qk_norm)
        decoder = Decoder(shape).train()
        decoder.lm_head.forward = lambda h_BSH, *_: h_BSH  # type: ignore[method-assign]
        kept: dict[int, int] = {}

        def pack(x: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        weights = {p.untyped_storage().data_ptr() for p in decoder.parameters()}
        ids_BS = torch.randint(0, 64, (2, 256))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = decoder(ids_BS, documents_BS=torch.zeros_like(ids_BS, dtype=torch.int32))
        autograd = sum(size for place, size in kept.items() if place not in weights)
        setup = Setup(shape, precision="fp32", micro_batch_size=2, sequence_length=256, device="cpu")
        planned = activation_bytes(setup)[0] + out.nbytes  # and the last block's output, which the final norm keeps
        assert planned == pytest.approx(autograd, rel=0.02)


def test_an_operation_that_is_done_again_takes_its_time() -> None:
    work = Work(8, 1024, 100, 1024.0)
    machines = Machines(ranks=4, peak_flops=1e12, utilization=0.5)
    setup = Setup(SMALL, ranks=4, micro_batch_size=1)
    plain = speed_of(setup, 0.0, machines, work)
    assert plain is not None
    # A step's operations over what four devices do in a second at half of their peak.
    flops = model_flops(SMALL, 8 * 1024, 8 * 1024 * 1024)
    assert plain.seconds_per_step == pytest.approx(flops / (4 * 1e12 * 0.5))
    assert plain.days == pytest.approx(100 * plain.seconds_per_step / 86400)
    slower = speed_of(setup, 0.25, machines, work)
    assert slower is not None
    assert slower.tokens_per_second == pytest.approx(plain.tokens_per_second / 1.25)
    assert slower.mfu == pytest.approx(0.4)


def test_what_is_offloaded_takes_the_time_that_its_bytes_take() -> None:
    work, machines = Work(8, 1024, 100, 1024.0), Machines(ranks=2, device="H100", host_bandwidth=1e9)
    here = Setup(SMALL, ranks=2, micro_batch_size=2)
    away = replace(here, zero=replace(here.zero, optimizer_at="host", parameters_at="host"))
    kept, moved = (speed_of(one, 0.0, machines, work) for one in (here, away))
    assert kept is not None
    assert moved is not None
    own = here.parameters / 2
    # AdamW reads 16 bytes of a number and writes 12.
    assert kept.update_seconds == pytest.approx(28 * own / 3.35e12, rel=1e-6)
    assert (kept.host_seconds, moved.update_seconds) == (0, 0)
    # Two micro-steps, each with a gradient out and two fetches in, AdamW, a new weight.
    assert moved.host_seconds == pytest.approx(own * (2 * 2 + 28 + 2 + 2 * 2 * 2) / 1e9, rel=1e-6)
    assert moved.seconds_per_step == pytest.approx(kept.seconds_per_step - kept.update_seconds + moved.host_seconds)


def test_full_recomputation_is_the_block_but_its_last_product() -> None:
    weights = [(name, p) for name, p in Decoder(SMALL).named_parameters() if name.startswith("layers.") and p.ndim == 2]
    forward = 2 * sum(p.numel() for name, p in weights if "down_proj" not in name)
    total = model_flops(SMALL, 1, 0)
    assert again_fraction(SMALL, Recompute("full"), 0.0) == pytest.approx(forward / total)
    assert again_fraction(SMALL, Recompute("every_nth", every=2), 0.0) == pytest.approx(forward / total / 2)
    assert again_fraction(SMALL, Recompute("selective", keep=tuple(KEEPABLE)), 0.0) == 0.0


def test_offloading_moves_the_state_to_the_host_and_a_cpu_has_both() -> None:
    here = Setup(LARGE, ranks=2, micro_batch_size=1)
    away = replace(here, zero=replace(here.zero, optimizer_at="host", parameters_at="host"))
    kept, moved = memory_of(here), memory_of(away)
    assert moved.peak_bytes < kept.peak_bytes
    assert moved.host["optimizer"] == kept.parts["optimizer"]
    cpu = memory_of(replace(away, device="cpu"))
    assert not cpu.host
    assert cpu.parts["optimizer"] == moved.host["optimizer"]
    disk = memory_of(replace(here, zero=replace(here.zero, optimizer_at="disk", parameters_at="disk")))
    assert set(disk.disk) == {"optimizer", "parameters"}


def test_the_copy_for_saves_lies_on_the_host_where_the_run_makes_one() -> None:
    setup = Setup(LARGE, ranks=2, saves_behind=True)
    share = 12 * -(-setup.parameters // 2)
    assert memory_of(setup).host == {"saves": share}
    assert memory_of(replace(setup, snapshot_bytes=share)).host == {"saves": share}
    assert not memory_of(replace(setup, snapshot_bytes=share - 1)).host
    on_disk = replace(setup, zero=replace(setup.zero, optimizer_at="disk"))
    assert "saves" not in memory_of(on_disk).host
    assert memory_of(replace(on_disk, snapshot_bytes=share)).host["saves"] == share
    without, cpu = (memory_of(replace(setup, device="cpu", saves_behind=behind)) for behind in (False, True))
    assert cpu.peak_bytes == without.peak_bytes + share
    assert not cpu.host


SIZE = r"(\d+\.\d+) GiB"


@given(setups, st.booleans(), st.sampled_from([1.0, 8.0, 80.0]), st.sampled_from([None, 0.5, 8.0, 64.0]))
@LAWS
def test_what_is_recommended_fits_and_what_is_said_of_a_run_that_cannot_fit_is_true(
    setup: Setup, saves_behind: bool, memory_gib: float, host_memory_gib: float | None
) -> None:
    setup = replace(setup, saves_behind=saves_behind)
    machines = Machines(setup.ranks, memory_gib, setup.device, host_memory_gib=host_memory_gib)
    work = Work(64, setup.sequence_length, 10, 512.0)
    plan = make_plan(setup, machines, work)
    if plan.choice is not None:
        taken = plan.choice.setup
        assert plan.choice.memory == memory_of(taken)
        assert plan.choice.memory.fits(machines)
        assert plan.choice.memory.peak_bytes <= memory_gib * GIB * (1 - machines.left_free)
        assert 64 % (setup.ranks * taken.micro_batch_size) == 0
        assert taken.saves_behind in (saves_behind, False)
        assert ("checkpoint.asynchronous=false" in plan.advice) == (saves_behind and not taken.saves_behind)
        return
    reason, _, answers = plan.advice.partition("; ")
    [least] = map(float, re.findall(SIZE, reason))
    [there] = map(float, re.findall(r"it has (\d+(?:\.\d+)?)", reason))
    assert there == (host_memory_gib if "of the host" in reason else memory_gib)
    assert least > there * (1 - machines.left_free) - 0.01  # it is rounded
    larger = []
    for words in answers.split(", or "):
        sizes = [float(size) for size in re.findall(SIZE, words)]
        if words.endswith("of the host") and sizes:
            larger.append(replace(machines, memory_gib=sizes[0], host_memory_gib=sizes[1]))
        elif "of the host" in words:
            larger.append(replace(machines, host_memory_gib=sizes[0]))
        elif sizes:
            larger.append(replace(machines, memory_gib=sizes[0]))
    assert larger
    for enough in larger:
        assert choose(setup, enough, work) is not None, enough


def test_a_host_that_is_too_small_is_named_and_not_the_device() -> None:
    shown = printed(main, "--preset", "7b", "--ranks", 1, "--memory_gib", 80, "--host_memory_gib", 64)
    assert re.search(r"at least 14\d\.\d\d GiB of the host a rank, and it has 64 with a margin", shown)
    assert "saves 78.03: does not fit in 64 GiB" in shown
    shown = printed(main, "--preset", "7b", "--ranks", 2, "--memory_gib", 200, "--host_memory_gib", 64)
    assert "(loss): fits in 200 GiB" in shown
    assert "saves 39.01: fits in 64 GiB" in shown


@pytest.mark.parametrize(("host_memory_gib", "given_up"), [(90, False), (64, True)])
def test_a_copy_for_saves_without_room_is_given_up_before_the_run_is(host_memory_gib: float, given_up: bool) -> None:
    setup = Setup(LARGE, saves_behind=True)
    plan = make_plan(setup, Machines(1, 170.0, host_memory_gib=host_memory_gib), Work(64, 1024, 10, 512.0))
    assert plan.choice is not None
    assert plan.choice.setup.saves_behind != given_up
    assert ("checkpoint.asynchronous=false" in plan.advice) == given_up


def make_run(**sections: object) -> PretrainRun:
    run = {"name": "plan", "tokenizer": "none", "model": {"preset": "30m"}, "train": {"global_batch_size": 64}}
    return from_dict(PretrainRun, {**run, **sections})


def test_tokens_epochs_and_documents_come_from_the_shards(tiny_shards: Path) -> None:
    index = json.loads((tiny_shards / "index.json").read_text())
    plan = plan_run(make_run(data={"sequence_length": 512}), PlanOptions(data=(tiny_shards,), epochs=3))
    assert plan.work.document_tokens == pytest.approx(min(512, index["tokens"] / index["documents"]))
    assert plan.work.steps == max(1, round(3 * index["tokens"] / (64 * 512)))
    assert not [note for note in plan.notes if "documents" in note]


def test_each_stage_is_planned_and_the_memory_is_that_of_the_largest_and_the_time_that_of_all() -> None:
    sections = {"data": {"sequence_length": 512}, "train": {"global_batch_size": 64, "steps": 100}}
    long = {"name": "long", "first_step": 81, "data": {"sequence_length": 1024}, "train": {"global_batch_size": 32}}
    plan = plan_run(make_run(**sections, stages=[long]), PlanOptions(device="H100"))
    whole = plan_run(make_run(**sections), PlanOptions(device="H100"))
    assert [(one.name, one.first_step, one.steps) for one in plan.stages] == [("start", 1, 80), ("long", 81, 20)]
    assert [one.tokens for one in plan.stages] == [80 * 64 * 512, 20 * 32 * 1024]
    assert plan.memory.peak_bytes == plan.stages[1].peak_bytes > plan.stages[0].peak_bytes == whole.memory.peak_bytes
    assert whole.speed is not None
    assert plan.stages[0].days == pytest.approx(0.8 * whole.speed.days)
    shown = table(plan)
    for words in ("the stage that takes the most memory, long", "long: 20 steps from 81", "3,276,800 tokens in 0:0"):
        assert words in shown
    with pytest.raises(ConfigError, match=r"stages: long: train\.global_batch_size=32 is not a multiple of"):
        plan_run(make_run(**sections, stages=[long]), PlanOptions(ranks=8))
    with pytest.raises(ConfigError, match="leave them out"):
        plan_run(make_run(**sections, stages=[long]), PlanOptions(epochs=1))


def test_a_plan_says_what_it_assumed_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    run = make_run(data={"train": {str(tmp_path / "later"): 1.0}})
    notes = " ".join(plan_run(run, PlanOptions()).notes)
    for words in ("vocabulary of 32,000", "later has no index.json", "documents as long"):
        assert words in notes
    with pytest.raises(ShardError, match="does not exist"):
        plan_run(run, PlanOptions(data=(tmp_path,)))
    with pytest.raises(ConfigError, match="epochs=2"):
        plan_run(run, PlanOptions(epochs=2))
    with pytest.raises(ConfigError, match=r"not a multiple of 8 .* x 3"):
        plan_run(run, PlanOptions(ranks=3, deepspeed=PROJECT / "ds_configs" / "zero1.json"))
    with pytest.raises(ConfigError, match=r"none of GB200.*did you mean 'H100'"):
        Machines(device="H1000")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"sequence_length": 4096}}, r"data\.sequence_length=4096 is more than model\.shape\.max_position"),
        ({"train": {"sequence_parallel_size": 6}, "data": {"sequence_length": 768}}, "=6 does not divide the 2 rank"),
        ({"data": {"sequence_length": 1023}, "train": {"sequence_parallel_size": 2}}, "1023 is not a multiple of"),
        ({"data": {"train": {"here": 1.0, "./here": 1.0}}}, "are one set"),
        ({"data": {"train": {"here": -1.0}}}, "data weight -1"),
        ({"train": {"global_batch_size": 20}}, "global_batch_size=20 is not a multiple"),
    ],
)
def test_a_plan_refuses_what_a_start_refuses(sections: dict[str, object], words: str, tiny_shards: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_run(make_run(**sections), PlanOptions(ranks=2))


def test_a_plan_reads_the_deepspeed_file_and_the_index_as_a_start_does(tiny_shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "zero.json"
    for zero, words in (
        ({"stage": 3, "reduce_bucket_size": "big"}, "reduce_bucket_size"),
        ({"stage": 0}, "stage 0 in bf16"),
    ):
        file.write_text(json.dumps({"zero_optimization": zero}))
        with pytest.raises(ConfigError, match=words):
            plan_run(make_run(train={"global_batch_size": 64, "precision": "bf16"}), PlanOptions(deepspeed=file))
    other = make_run(tokenizer=str(PROJECT / "tokenizer" / "zh_8k"))
    with pytest.raises(ShardError, match="shards are read only with the tokenizer that wrote them"):
        plan_run(other, PlanOptions(data=(tiny_shards,)))


DRIVER_NAMES = {
    "NVIDIA H100 80GB HBM3": "H100", "NVIDIA H100 PCIe": "H100-PCIe", "NVIDIA H200 NVL": "H200-NVL",
    "NVIDIA H20": "H20",
    "NVIDIA A100-SXM4-40GB": "A100-40GB", "NVIDIA A800-SXM4-80GB": "A800", "NVIDIA GeForce RTX 4090 D": "RTX-4090-D",
    "NVIDIA GeForce RTX 4090": "RTX-4090", "NVIDIA A10": "A10", "Tesla V100-SXM2-32GB": "V100", "NVIDIA GB200": "GB200",
    "NVIDIA GeForce RTX 4090 Laptop GPU": None, "NVIDIA A100-SXM4-80GB MIG 1g.10gb": None, "NVIDIA A10G": None,
}  # fmt: skip


@pytest.mark.parametrize(("name", "known"), DRIVER_NAMES.items())
def test_a_device_is_known_by_the_name_of_its_driver_and_no_other_is_taken_for_it(name: str, known: str | None) -> None:
    assert find_device(name) is (DEVICES[known] if known else None)


def test_every_device_is_printed_with_its_source_and_can_be_planned_for() -> None:
    shown = printed(main, "--devices", "true")
    for name, one in DEVICES.items():
        assert one is find_device(name)
        assert one.source in shown
        assert Machines(device=name).capacity_gib == one.memory_gib
    v100 = plan_run(make_run(), PlanOptions(device="V100"))
    assert (v100.setup.precision, v100.machines.peak) == ("fp32", 15.7e12)
    offloaded = printed(main, "--preset", "1b", "--device", "B9", "--peak_flops", 1e15, "--memory_gib", 64,
        "--memory_bandwidth", 3e12, "--deepspeed", PROJECT / "ds_configs" / "zero3_offload.json")  # fmt: skip
    assert re.search(r"what is offloaded \d", offloaded)
    assert "in 64 GiB" in offloaded


FIGURES = [
    ("zero1.json", 1, 17_095_309_312, 1_503_200_256),
    ("zero1.json", 8, 15_780_009_088, 187_900_032),
    ("zero2.json", 1, 16_594_242_560, 1_503_200_256),
    ("zero2.json", 8, 15_278_942_336, 187_900_032),
    ("zero3.json", 1, 17_295_309_312, 1_503_200_256),
    ("zero3.json", 8, 15_572_892_352, 187_900_032),
    ("zero3_offload.json", 1, 15_291_042_304, 4_259_067_392),
    ("zero3_offload.json", 8, 15_291_042_304, 532_383_424),
    ("zero3_nvme.json", 1, 15_291_042_304, 2_002_133_504),
    ("zero3_nvme.json", 8, 15_291_042_304, 1_125_266_688),
]


# Bytes of the device and of the host a rank: a plan that says others is a plan that was measured by nobody.
@pytest.mark.parametrize(("file", "ranks", "device_bytes", "host_bytes"), FIGURES)
def test_the_figures_of_a_run_stay_what_they_are(file: str, ranks: int, device_bytes: int, host_bytes: int) -> None:
    run = from_yaml(PretrainRun, PROJECT / "launch" / "runs" / "gpu_124m.yaml")
    memory = plan_run(run, PlanOptions(ranks, deepspeed=PROJECT / "ds_configs" / file)).memory
    assert (memory.peak_bytes, memory.host_bytes) == (device_bytes, host_bytes)


def test_the_command_prints_a_table_or_json() -> None:
    words = ["--config", "launch/runs/gpu_124m.yaml", "--deepspeed", "ds_configs/zero1.json", "--ranks", "8"]
    words += ["--device", "H100", "--train.steps", "10"]
    shown, values = printed(main, *words), answer(main, *words, "--json", "true")
    assert values["setup"]["zero"]["stage"] == 1
    assert values["work"]["tokens"] == 10 * 256 * 1024
    assert values["memory"]["peak_bytes"] == sum(values["memory"]["parts"].values())
    for part in (*PARTS, "tokens/s", "days", values["advice"]):
        assert part in shown
    assert "it cannot fit" in printed(main, "--preset", "7b", "--ranks", 2, "--memory_gib", 3)
    preset = ["--preset", "1b", "--ranks", "8"]
    shown = printed(main, *preset, "--device", "H200")
    assert "in 140 GiB" in shown
    assert "assumed: train.steps=1000" in shown
    assert "tokens/s" in printed(main, *preset, "--device", "B9", "--peak_flops", "2e15")
    with pytest.raises(ConfigError, match=r"train\.global_batch_size=100 is not a multiple of 8"):
        main([*preset, "--train.global_batch_size", "100", "--train.micro_batch_size", "8"])
