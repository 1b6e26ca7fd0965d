"""The GGUF file is the model: llama.cpp gives our ids, logits and text, and whatever differs is refused."""

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from megadec.common.errors import ConfigError, ExportError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.session import Feed
from megadec.engine.zero.state_files import StateFiles
from megadec.export.gguf.batched import BatchedLlamaCpp
from megadec.export.gguf.llama_cpp import BATCH_TOKENS, LlamaCppModel
from megadec.export.gguf.writer import GGUF_DTYPES, MODEL_FILE, check_gguf, to_gguf, write_gguf
from megadec.export.parity.compare import TEXTS
from megadec.export.read.load import load_source
from megadec.export.read.source import ModelSource
from tests.support.sources import InMemory, random_classifier, random_source
from tests.support.state_files import write_state_files

gguf = pytest.importorskip("gguf")
pytest.importorskip("cyllama")

# Four query heads share two key-value heads; rows are multiples of 32, which q8_0 wants.
SIZES = {"hidden_size": 64, "max_position_embeddings": 320}
LAYOUTS = {
    "qwen3-tied": {"qk_norm": True, "tied_embeddings": True},
    "llama-untied": {"qk_norm": False, "tied_embeddings": False},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def exported(request, tmp_path_factory, tiny_tokenizer_path) -> tuple[ModelSource, Path]:
    """A random decoder with grouped-query attention and its float32 export. Tests that change files copy them."""
    source = random_source(tiny_tokenizer_path, **SIZES, **LAYOUTS[request.param])
    folder = tmp_path_factory.mktemp("exports") / "model-gguf"
    parity = to_gguf(source, folder)
    assert (parity.runtime, parity.prompts, parity.texts) == ("llama.cpp float32", 50, len(TEXTS) + 597)
    assert parity.greedy_tokens > 300
    assert parity.largest_logit_difference < 1e-4
    return source, folder


def test_the_folder_says_what_it_is_and_what_it_was_compared_on(exported):
    source, folder = exported
    assert {file.name for file in folder.iterdir()} == {"model.gguf", "tokenizer.model", "megadec.json"}
    content = json.loads((folder / "megadec.json").read_text())
    assert content["source"] == source.provenance
    assert content["parity"]["runtime"] == "llama.cpp float32"
    assert content["parity"]["tolerance"] == GGUF_DTYPES["float32"].tolerance
    assert content["tokenizer"]["sha256"] == Tokenizer.load(folder).sha256


def test_a_session_fed_in_pieces_gives_our_logits_and_refuses_more_than_fits(exported):
    source, folder = exported
    model = LlamaCppModel(folder / MODEL_FILE)
    ids = torch.randint(3, model.vocabulary_size, (BATCH_TOKENS + 20,)).tolist()
    with torch.inference_mode():
        wanted_SV = load_source(source)[0](torch.tensor([ids]))[0]
    session, other = model.session(), model.session()
    for start, end in ((0, 1), (1, 9), (9, BATCH_TOKENS + 19), (BATCH_TOKENS + 19, BATCH_TOKENS + 20)):
        last_V = session.feed(ids[start:end])
        assert (last_V - wanted_SV[end - 1]).abs().max() < 1e-4
        other.feed([5])  # a session of its own: what one is fed, another does not see
    assert last_V.dtype == torch.float64
    with pytest.raises(InputError, match="321 tokens do not fit"):
        session.feed([5] * (321 - len(ids)))


def test_many_sequences_in_one_call_are_each_by_itself(exported):
    source, folder = exported
    model = BatchedLlamaCpp(LlamaCppModel(folder / MODEL_FILE), 3, 2**30)
    chance = random.Random(6)
    rows = [
        [chance.randrange(3, model.vocabulary_size) for _ in range(tokens)] for tokens in (BATCH_TOKENS + 20, 7, 40)
    ]
    with torch.inference_mode():
        decoder = load_source(source)[0]
        wanted = [decoder(torch.tensor([ids]))[0] for ids in rows]
    for _ in range(2):  # the second time in places that others have left
        sequences = [model.begin(ids, 1) for ids in rows]
        assert model.begin([1], 1) is None
        found = model.forward([Feed(one, ids[:-2], 3) for one, ids in zip(sequences, rows, strict=True)])
        for step in (2, 1):
            feeds = [Feed(one, [ids[-step]], 1) for one, ids in zip(sequences, rows, strict=True)]
            found = torch.cat((found, model.forward(feeds)))
        for row, logits_SV in enumerate(wanted):
            own = torch.cat((found[3 * row : 3 * row + 3], found[9 + row][None], found[12 + row][None]))
            assert (own - logits_SV[-5:]).abs().max() < 1e-4
        for one in sequences:
            model.end(one)
        assert model.cache_use().used_blocks == 0


def test_nothing_is_printed_by_llama_cpp(exported, capfd):
    _, folder = exported
    model = LlamaCppModel(folder / MODEL_FILE)
    model.session().feed([1, 5])
    with pytest.raises(ExportError, match=r"tokenizer\.model: llama\.cpp cannot load it"):
        LlamaCppModel(folder / "tokenizer.model")
    assert capfd.readouterr() == ("", "")


# Bytes of a matrix beside float32: q8_0 has a scale for 32 numbers of a byte; q4_k_m of rows of 64, which no block of
# 256 divides, has Q5_0 and, of the embedding and of some others, Q8_0.
SHARES = {"float16": 0.5, "bfloat16": 0.5, "q8_0": 34 / 128, "q4_k_m": 0.23}


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [("float16", "qwen3-tied"), ("bfloat16", "llama-untied"), ("q8_0", "llama-untied"), ("q4_k_m", "qwen3-tied")],
)
def test_every_format_passes_within_its_tolerance_and_the_smaller_ones_are_smaller_and_say_what_they_lost(
    tmp_path, tiny_tokenizer_path, dtype, layout
):
    source = random_source(tiny_tokenizer_path, **SIZES, **LAYOUTS[layout])
    parity = to_gguf(source, tmp_path / "model-gguf", dtype=dtype, parity="quick")
    assert (parity.runtime, parity.mode, parity.prompts) == (f"llama.cpp {dtype}", "quick", 8)
    assert parity.greedy_tokens > 8
    assert parity.bits_per_character > 1
    if dtype in ("q8_0", "q4_k_m"):
        assert parity.source_bits_per_character == pytest.approx(parity.bits_per_character, rel=0.1)
        assert parity.source_bits_per_character != parity.bits_per_character
    else:
        assert parity.source_bits_per_character is None
    whole_bytes = sum(4 * np.prod(size) for size in source.sizes.values())
    stored = sum(tensor.n_bytes for tensor in gguf.GGUFReader(tmp_path / "model-gguf" / MODEL_FILE).tensors)
    assert stored / whole_bytes == pytest.approx(SHARES[dtype], rel=0.05)
    assert {file.name for file in (tmp_path / "model-gguf").iterdir()} == {
        MODEL_FILE,
        "tokenizer.model",
        "megadec.json",
    }


def test_rows_without_a_piece_are_never_a_text(tmp_path, tiny_tokenizer_path):
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    size = tokenizer.vocabulary_size
    to_gguf(random_source(tiny_tokenizer_path, vocabulary_size=size + 24), tmp_path / "model-gguf")
    model = LlamaCppModel(tmp_path / "model-gguf" / MODEL_FILE)
    assert model.vocabulary_size == size + 24
    assert max(model.encode(f"[PAD{size}] [PAD{size + 1}]")) < size


# Tampering: the writer has written, and the file is changed before it is checked.


@pytest.fixture
def fresh(tmp_path, tiny_tokenizer_path) -> Callable[[str], tuple[ModelSource, Path]]:
    """What `to_gguf` writes before its check, in a format and the llama layout."""

    def write(dtype: str) -> tuple[ModelSource, Path]:
        source = random_source(tiny_tokenizer_path, **SIZES, **LAYOUTS["llama-untied"])
        write_gguf(tmp_path, Tokenizer.load(tiny_tokenizer_path), source, dtype)
        shutil.copyfile(tiny_tokenizer_path, tmp_path / "tokenizer.model")
        return source, tmp_path

    return write


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "q8_0"])
def test_one_changed_weight_is_refused(fresh, dtype):
    source, folder = fresh(dtype)
    tensor = next(each for each in gguf.GGUFReader(folder / MODEL_FILE).tensors if each.name == "blk.1.attn_k.weight")
    with open(folder / MODEL_FILE, "r+b") as stream:
        stream.seek(tensor.data_offset + tensor.n_bytes // 2 + 4)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))  # the last bit of one number
    with pytest.raises(ExportError, match=r"'layers.1.self_attn.k_proj.weight': what the file holds is not what"):
        check_gguf(folder, source, dtype)


def test_a_wrong_scale_of_one_block_of_4_bits_is_refused(tmp_path, tiny_tokenizer_path):
    source = random_source(tiny_tokenizer_path, **{**SIZES, "hidden_size": 256, "intermediate_size": 256})
    write_gguf(tmp_path, Tokenizer.load(tiny_tokenizer_path), source, "q4_k_m")
    shutil.copyfile(tiny_tokenizer_path, tmp_path / "tokenizer.model")
    tensors = gguf.GGUFReader(tmp_path / MODEL_FILE).tensors
    tensor = next(each for each in tensors if each.name == "blk.1.attn_k.weight")
    assert tensor.tensor_type.name == "Q4_K"
    with open(tmp_path / MODEL_FILE, "r+b") as stream:
        stream.seek(tensor.data_offset + 1)  # the exponent of the first block's scale
        stream.write(bytes([tensor.data.reshape(-1)[1] ^ 0x0C]))
    with pytest.raises(ExportError, match=r"k_proj.weight': what the file holds is not what .* Q4_K"):
        check_gguf(tmp_path, source, "q4_k_m", "quick")


@pytest.mark.parametrize("key", ["tokenizer.ggml.tokens", "llama.rope.freq_base"])
def test_another_piece_of_the_tokenizer_and_another_base_of_rope_are_refused(fresh, key):
    source, folder = fresh("float32")
    field = gguf.GGUFReader(folder / MODEL_FILE, "r+").get_field(key)
    field.parts[field.data[-1]][0] += 1
    with pytest.raises(ExportError, match=f"'{re.escape(key)}' is not what"):
        check_gguf(folder, source, "float32")


def test_a_cut_file_and_another_tokenizer_beside_it_are_refused(fresh):
    source, folder = fresh("float32")
    content = (folder / MODEL_FILE).read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 40):
        (folder / MODEL_FILE).write_bytes(content[:size])
        with pytest.raises(ExportError, match="is not a whole GGUF file"):
            check_gguf(folder, source, "float32")
    (folder / "tokenizer.model").write_bytes(source.tokenizer_path.read_bytes() + b"\n")
    with pytest.raises(ExportError, match=r"tokenizer\.model has sha256"):
        check_gguf(folder, source, "float32")


def test_what_gguf_cannot_express_is_refused_before_anything_is_written(tmp_path, tiny_tokenizer_path):
    source = random_source(tiny_tokenizer_path)
    cases = [
        (random_classifier(tiny_tokenizer_path), "float32", r"is a classifier: .* --to hf or --to onnx"),
        (source, "q8_0", r"a row of tensor 'embed_tokens.weight' has 48 values; q8_0 packs blocks of 32"),
        (source, "q4_k_m", r"dtype=q4_k_m: a row of tensor 'embed_tokens.weight' has 48 values"),
    ]
    for model, dtype, words in cases:
        with pytest.raises(ConfigError, match=words):
            to_gguf(model, tmp_path / "model-gguf", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_beyond_float16_is_refused(tmp_path, tiny_tokenizer_path):
    source = random_source(tiny_tokenizer_path)
    reader = InMemory(source.shape)
    reader.tensors["layers.1.mlp.down_proj.weight"][2, 3] = 70000.0
    with pytest.raises(ExportError, match=r"'layers.1.mlp.down_proj.weight' has a value that F16 cannot hold"):
        to_gguf(replace(source, reader=reader), tmp_path / "model-gguf", dtype="float16")


def test_writing_a_checkpoint_takes_the_memory_of_a_few_tensors(tmp_path, tiny_tokenizer_path):
    sizes = {"hidden_size": 512, "head_size": 128, "intermediate_size": 2048, "layers": 10}
    source = random_source(tiny_tokenizer_path, **sizes)
    write_state_files(tmp_path, {name: torch.full(size, 0.5) for name, size in source.sizes.items()})
    source = replace(source, reader=StateFiles(tmp_path))
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    largest_bytes, whole_bytes = 4 * 512 * 2048, 4 * sum(np.prod(size) for size in source.sizes.values())
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before_bytes = memory_bytes("VmRSS")
    write_gguf(tmp_path, tokenizer, source, "float32")
    assert memory_bytes("VmHWM") - before_bytes < 6 * largest_bytes < whole_bytes / 6
    assert (tmp_path / MODEL_FILE).stat().st_size > whole_bytes


def memory_bytes(key: str) -> int:
    """A figure of this process, such as its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))
