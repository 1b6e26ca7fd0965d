"""config.json and the shape say the same, both ways."""

import json
from pathlib import Path

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.decoder.flops import parameter_count
from megadec.decoder.shape import DecoderShape, preset_names
from megadec.export.huggingface.layouts import in_layout
from megadec.export.read.huggingface_config import config_of, labels_of, shape_of
from tests.support.decoders import LLAMA3, YARN
from tests.support.sources import TINY_SHAPE, random_source

FILE = Path("model/config.json")


def config_for(labels: list[str] | None = None, **changes) -> dict:
    """The content of config.json as it is read again."""
    shape = DecoderShape.from_mapping({**TINY_SHAPE, **changes})
    return json.loads(json.dumps(config_of(shape, torch.bfloat16, 1, 2, labels)))


CHANGES: tuple[dict, ...] = (
    {"tied_embeddings": False},
    {"rope_theta": 123456.0},
    {"qk_norm": False},
    {"qk_norm": True, "rope_scaling": YARN},
    {"qk_norm": False, "attention_bias": "qkv", "rope_scaling": LLAMA3},
    {"qk_norm": False, "attention_bias": "qkvo", "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
)
SHAPES = [DecoderShape.from_mapping({**TINY_SHAPE, **changes}) for changes in CHANGES]


@pytest.mark.parametrize("shape", [*SHAPES, *map(DecoderShape.from_preset, preset_names())])
def test_a_shape_comes_back_from_its_config(shape):
    config = config_for(**shape.to_dict())
    assert shape_of(config, FILE) == shape
    # Old and new readers find RoPE's base and scaling.
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == shape.rope_theta
    wanted = config.get("rope_scaling", {"rope_type": "default"})
    assert {**config["rope_parameters"], **wanted} == config["rope_parameters"]


@pytest.mark.parametrize(
    ("changes", "wanted", "words"),
    [
        ({}, "llama", "--layout llama"),
        ({"qk_norm": False}, "qwen3", "--layout qwen3"),
        ({"qk_norm": False, "attention_bias": "qkv"}, "qwen2", r"tokenizer\.model is a sentencepiece model"),
    ],
)
def test_a_layout_that_cannot_express_the_model_is_refused(tiny_tokenizer_path, changes, wanted, words):
    with pytest.raises(ExportError, match=words):
        in_layout(random_source(tiny_tokenizer_path, **changes), wanted)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor is missing"),
        ({"rope_scaling": "yarn"}, "rope_scaling='yarn'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "4"}}, "rope_scaling.factor='4'"),
        ({"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 4}}, "rope_scaling.rope_type"),
        ({"rope_parameters": {"rope_theta": 1e4, "factor": 4.0}}, "rope_parameters.factor"),
        ({"rope_theta": 5e5}, "rope_theta"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"use_sliding_window": True, "sliding_window": 32}, "sliding_window=32"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"model_type": "gemma"}, "model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"intermediate_size": 65}, "intermediate_size"),
    ],
)
@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_config_that_our_decoder_cannot_be_is_refused_by_its_key(changes, key, qk_norm):
    with pytest.raises(ExportError, match=rf"model/config\.json.*{key}"):
        shape_of({**config_for(qk_norm=qk_norm), **changes}, FILE)


def test_a_config_as_transformers_4_wrote_it_is_read():
    """Llama 2's own file, shortened: no head_dim, no rope_parameters; what is not there has transformers' default."""
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "vocab_size": 32000,
        "pretraining_tp": 1,
    }
    shape = shape_of(config, FILE)
    assert (shape.qk_norm, shape.head_size, shape.kv_heads, shape.rope_theta) == (False, 16, 4, 10000.0)
    assert (shape.norm_eps, shape.tied_embeddings) == (1e-05, False)


# The sizes and peculiarities of published files; each as the library of its time wrote it.
COMMON = {"architectures": ["X"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02}
SAVED = {"torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": True, "tie_word_embeddings": False}
LLAMA_31 = {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192}
PUBLISHED = {
    "Llama-2-7b": {
        "_name_or_path": "meta-llama/Llama-2-7b-hf", "model_type": "llama", "hidden_size": 4096, "vocab_size": 32000,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "num_attention_heads": 32, "rms_norm_eps": 1e-05,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1, "rope_scaling": None,
    },
    "Llama-3.1-8B": {
        "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0, "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": LLAMA_31, "rope_theta": 500000.0, "vocab_size": 128256, "eos_token_id": [128001, 128009],
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2", "attention_dropout": 0.0, "hidden_size": 3584, "intermediate_size": 18944,
        "max_position_embeddings": 131072, "max_window_layers": 28, "num_attention_heads": 28, "vocab_size": 152064,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "use_mrope": False, "use_sliding_window": False,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3", "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128, "hidden_size": 1024,
        "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "rms_norm_eps": 1e-06,
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "use_sliding_window": False, "vocab_size": 151936,
    },
    "Mistral-7B-v0.3": {
        "model_type": "mistral", "attention_dropout": 0.0, "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768,
    },
    "MiniMind in the Llama layout": {
        "model_type": "llama", "hidden_size": 768, "intermediate_size": 2048, "max_position_embeddings": 32768,
        "num_attention_heads": 8, "num_hidden_layers": 16, "num_key_value_heads": 2, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "vocab_size": 6400, "tie_word_embeddings": True, "dtype": "float16", "head_dim": 96,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_as_they_are_published_are_read(name):
    config = {**COMMON, **SAVED, **PUBLISHED[name]}
    shape = shape_of(config, FILE)
    assert shape.attention_bias == ("qkv" if config["model_type"] == "qwen2" else "none")
    assert (shape.rope_scaling is None) == (config.get("rope_scaling") is None)
    assert shape.query_size == config.get("head_dim", shape.hidden_size // shape.heads) * shape.heads
    assert parameter_count(shape) > 5e6


def test_the_window_of_mistral_is_refused_where_it_hides_a_token_and_the_way_out_is_named():
    config = {**COMMON, **SAVED, **PUBLISHED["Mistral-7B-v0.3"], "sliding_window": 4096}
    with pytest.raises(ExportError, match=r"a copy of the folder with max_position_embeddings=4096 is the same model"):
        shape_of(config, FILE)
    assert shape_of({**config, "max_position_embeddings": 4096}, FILE).max_position_embeddings == 4096


def test_qwen3_may_name_the_width_of_a_window_that_it_does_not_use():
    config = {**config_for(qk_norm=True), "use_sliding_window": False, "sliding_window": 4096}
    assert shape_of(config, FILE).qk_norm


@pytest.mark.parametrize("qk_norm", [True, False])
def test_labels_come_back_from_the_config_of_a_classifier(qk_norm):
    labels = [f"第{number}类" for number in range(12)]  # 10 stands before 2 as text
    config = config_for(labels, qk_norm=qk_norm)
    assert labels_of(config, FILE) == labels
    assert shape_of(config, FILE) == shape_of(config_for(qk_norm=qk_norm), FILE)
    assert [config["label2id"][label] for label in labels] == list(range(12))


def test_a_classifier_whose_config_names_no_labels_has_those_of_transformers_and_a_language_model_none():
    config = {**config_for(), "architectures": ["LlamaForSequenceClassification"]}
    assert labels_of(config, FILE) == ["LABEL_0", "LABEL_1"]
    assert labels_of({**config, "num_labels": 3}, FILE) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert labels_of({**config_for(), "id2label": {"0": "LABEL_0"}}, FILE) is None


@pytest.mark.parametrize("named", [{"0": "a", "2": "b"}, {"0": "a", "1": "a"}, ["a", "b"], {"0": 5}])
def test_labels_with_a_gap_or_twice_the_same_are_refused(named):
    config = {**config_for(), "architectures": ["Qwen3ForSequenceClassification"], "id2label": named}
    with pytest.raises(ExportError, match=r"config\.json: id2label"):
        labels_of(config, FILE)
