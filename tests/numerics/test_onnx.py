"""The ONNX export is the decoder: whole prompts, steps with a cache and padded batches give our logits."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from megadec.common.errors import ConfigError, ExportError, InputError
from megadec.export.onnx.export import check_onnx, to_onnx
from megadec.export.onnx.runtime import OnnxModel
from megadec.export.read.load import load_source
from megadec.export.read.source import ModelSource
from tests.support.sources import random_classifier, random_source

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=[True, False], ids=["qwen3-tied", "llama-untied"])
def exported(request, tmp_path_factory, tiny_tokenizer_path) -> tuple[ModelSource, Path]:
    """A random decoder with grouped-query attention and its export."""
    source = random_source(
        tiny_tokenizer_path, qk_norm=request.param, tied_embeddings=request.param, max_position_embeddings=300
    )
    folder = tmp_path_factory.mktemp("exports") / "model-onnx"
    parity = to_onnx(source, folder)
    assert parity.prompts == 50
    assert parity.greedy_tokens > 50
    return source, folder


@pytest.fixture(scope="module")
def ours(exported):
    return load_source(exported[0])[0]


@pytest.fixture(scope="module")
def theirs(exported) -> OnnxModel:
    return OnnxModel(exported[1])


def random_ids(*size: int) -> torch.Tensor:
    return torch.randint(3, 600, size, generator=torch.Generator().manual_seed(3))


def test_a_whole_sequence_gives_our_logits_up_to_the_end_of_the_context_and_no_further(ours, theirs):
    ids_BS = random_ids(1, 300)  # more than one piece
    with torch.inference_mode():
        wanted_SV = ours(ids_BS)[0]
    assert wanted_SV.std() > 0.1
    assert (theirs.logits(ids_BS[0].tolist()) - wanted_SV).abs().max() < TOLERANCE
    with pytest.raises(InputError, match="301 tokens do not fit"):
        theirs.logits([1] * 301)


@pytest.mark.parametrize("parts", [[1] * 12, [5, 7], [1, 4, 1, 6], [11, 1]])
def test_a_sequence_fed_in_parts_gives_the_logits_of_the_whole_whatever_another_session_is_fed(ours, theirs, parts):
    ids = random_ids(sum(parts)).tolist()
    with torch.inference_mode():
        wanted_SV = ours(torch.tensor([ids]))[0]
    session, other, end = theirs.session(), theirs.session(), 0
    for part in parts:
        other.feed([5])
        end += part
        found_V = session.feed(ids[end - part : end])
        assert found_V.dtype == torch.float64
        assert (found_V - wanted_SV[end - 1]).abs().max() < TOLERANCE


def test_padding_in_front_changes_no_logits_with_and_without_a_past(ours, theirs):
    """Two rows of other lengths, as Optimum batches them: the mask says what is padding, the positions begin behind."""
    ids_BS = random_ids(2, 9).numpy()
    padding = [0, 4]
    mask_BT = np.array([[0] * n + [1] * (9 - n) for n in padding])
    positions_BS = np.maximum(mask_BT.cumsum(1) - 1, 0)
    shape = theirs.shape
    names = [f"{layer}.{what}" for layer in range(shape.layers) for what in ("key", "value")]
    empty = np.zeros((2, shape.kv_heads, 0, shape.head_size), np.float32)
    past = {f"past_key_values.{name}": empty for name in names}
    found = []
    for part in (slice(0, 6), slice(6, 9)):
        tokens = {"input_ids": ids_BS[:, part], "position_ids": positions_BS[:, part]}
        outputs = theirs.runtime.run(None, {**tokens, "attention_mask": mask_BT[:, : part.stop], **past})
        by_name = dict(zip((output.name for output in theirs.runtime.get_outputs()), outputs, strict=True))
        past = {f"past_key_values.{name}": by_name[f"present.{name}"] for name in names}
        found.append(by_name["logits"])
    logits_BSV = np.concatenate(found, axis=1)
    assert np.isfinite(logits_BSV).all()
    for row, start in enumerate(padding):
        with torch.inference_mode():
            wanted_SV = ours(torch.from_numpy(ids_BS[row : row + 1, start:]))[0].numpy()
        assert np.abs(logits_BSV[row, start:] - wanted_SV).max() < TOLERANCE


def test_the_file_is_one_that_old_runtimes_read_and_stores_a_tied_weight_once(exported):
    source, folder = exported
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)
    beside = [entry for entry in model.graph.initializer if entry.data_location == onnx.TensorProto.EXTERNAL]
    assert len(beside) == len(source.names()) + 2  # and RoPE's two tables
    assert sum(entry.ByteSize() for entry in model.graph.initializer if entry not in beside) < 10_000
    weights = 4 * sum(int(np.prod(entry.dims)) for entry in beside)
    assert weights <= (folder / "model.onnx.data").stat().st_size < weights + 4096 * len(beside)


@pytest.fixture
def copy(exported, tmp_path) -> tuple[ModelSource, Path]:
    return exported[0], shutil.copytree(exported[1], tmp_path / "copy")


def test_one_changed_bit_of_a_weight_is_refused(copy):
    source, folder = copy
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[-1 - 4 * 700] ^= 0x80
    (folder / "model.onnx.data").write_bytes(data)
    with pytest.raises(ExportError, match=r"model.onnx: tensor '.*' is not what"):
        check_onnx(folder, source)


def test_another_tokenizer_is_refused(copy):
    source, folder = copy
    (folder / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes() + b"\n")
    with pytest.raises(ExportError, match=r"tokenizer\.model has sha256"):
        check_onnx(folder, source)


def test_a_graph_with_another_constant_is_refused_by_the_logits(copy):
    source, folder = copy
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    eps = next(entry for entry in model.graph.initializer if entry.name.endswith("1e-06"))
    eps.CopyFrom(onnx.numpy_helper.from_array(np.array(1.0, np.float32), eps.name))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for mode in ("quick", "full"):
        with pytest.raises(ExportError, match=r"logits of ids .* differ"):
            check_onnx(folder, source, parity=mode)


def test_a_cut_file_of_weights_is_refused(copy):
    source, folder = copy
    data = (folder / "model.onnx.data").read_bytes()
    (folder / "model.onnx.data").write_bytes(data[: len(data) // 2])
    with pytest.raises(ExportError, match=r"model\.onnx"):
        check_onnx(folder, source)
    with pytest.raises(ExportError, match="onnxruntime cannot load it"):
        OnnxModel(folder)


@pytest.mark.parametrize("layout", [True, False], ids=["qwen3-tied", "llama-untied"])
def test_int8_is_a_quarter_loses_little_and_says_so_and_a_changed_number_is_refused(
    tmp_path, tiny_tokenizer_path, layout
):
    source = random_source(tiny_tokenizer_path, qk_norm=layout, tied_embeddings=layout, hidden_size=64)
    folder = tmp_path / "model-onnx"
    parity = to_onnx(source, folder, dtype="int8", parity="quick")
    assert (parity.runtime, parity.prompts) == ("onnxruntime int8", 8)
    assert parity.source_bits_per_character == pytest.approx(parity.bits_per_character, rel=0.01)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    kinds = {entry.name: entry.data_type for entry in model.graph.initializer}
    quantized = {name for name, kind in kinds.items() if kind == onnx.TensorProto.UINT8}
    assert quantized == {name for name, size in source.sizes.items() if len(size) > 1}
    place = {
        item.key: item.value for item in next(e for e in model.graph.initializer if e.name in quantized).external_data
    }
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[int(place["offset"]) + 40] ^= 1
    (folder / "model.onnx.data").write_bytes(data)
    with pytest.raises(ExportError, match=r"model.onnx: tensor '.*' is not what .* as int8"):
        check_onnx(folder, source, "int8", "quick")


def test_int8_is_refused_where_rows_are_no_whole_blocks_and_of_a_classifier(tmp_path, tiny_tokenizer_path):
    for source, words in (
        (random_source(tiny_tokenizer_path), "a row of tensor 'embed_tokens.weight' has 48 values"),
        (random_classifier(tiny_tokenizer_path, hidden_size=64), "is a classifier, whose loss by it is not measured"),
    ):
        with pytest.raises(ConfigError, match=words):
            to_onnx(source, tmp_path / "model-onnx", dtype="int8")
    assert list(tmp_path.iterdir()) == []
