"""Hugging Face folders as other tools write them: tiny models with random weights, made by transformers, in a table."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from megadec.common.tokenizer import Tokenizer
from tests.support.foreign_tokenizers import SETTINGS, qwen, write_files

# Four query heads share two key-value heads; 96 positions, of which the scaled ones have learned 24.
SIZES = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96, "initializer_range": 0.1,
}  # fmt: skip
ABSENT = object()

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 = {**LLAMA3, "original_max_position_embeddings": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
THETA = {"rope_theta": 10000.0}
# What published files have beside the network's own keys.
EXTRAS = {
    "_name_or_path": "/data/model", "auto_map": {"AutoConfig": "configuration.Config"}, "use_mrope": False,
    "attention_dropout": 0.1, "max_sequence_length": 2048, "max_window_layers": 1, "temperature": 0.7,
    "unsloth_fixed": True, "quantization_config": None,
}  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """config: of transformers' class. written: keys changed in config.json after that, ABSENT for those taken away.

    padded: rows of the embedding that no piece has. labels: of a classifier, 0 for a language model. refused: what the
    refusal names; None where the folder is read.
    """

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    shard_bytes: int = 10**9
    padded: int = 0
    labels: int = 0
    refused: str | None = None


def old(scaling: dict[str, Any] | None) -> dict[str, Any]:
    """RoPE as transformers 4 writes it."""
    if scaling is not None:
        scaling = {"type" if key == "rope_type" else key: value for key, value in scaling.items()}
    return {"rope_parameters": ABSENT, "rope_scaling": scaling, **THETA, "torch_dtype": "float32", "dtype": ABSENT}


def rope(**scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {**THETA, **scaling}}


READ = {
    "llama-tied": Foreign("llama", {"tie_word_embeddings": True}),
    "llama-untied-sharded": Foreign("llama", shard_bytes=40_000),
    "llama-bf16": Foreign("llama", dtype=torch.bfloat16),
    "llama-padded": Foreign("llama", padded=40),
    "llama-biases": Foreign("llama", {"attention_bias": True}),
    "llama-head-dim": Foreign("llama", {"head_dim": 24}),
    "llama2-file": Foreign(
        "llama", {"num_key_value_heads": 4},
        {**old(None), "rope_theta": ABSENT, "head_dim": ABSENT, "num_key_value_heads": ABSENT, **EXTRAS},
    ),
    "llama-linear": Foreign("llama", written=rope(type="linear", factor=4.0)),
    "llama-linear-old": Foreign("llama", written=old({"type": "linear", "factor": 4.0})),
    "llama-llama3": Foreign("llama", rope(**LLAMA3)),
    "llama-llama3-old": Foreign("llama", written={**old(LLAMA3), "rope_scaling": LLAMA3}),
    "llama-yarn-old": Foreign("llama", written=old(YARN)),
    "llama-yarn-untruncated": Foreign("llama", rope(**YARN, truncate=False)),
    "llama-yarn-mscale": Foreign("llama", rope(**YARN, mscale=1.0, mscale_all_dim=0.8)),
    "mistral": Foreign("mistral", {"sliding_window": None}),
    "mistral-wide-window": Foreign("mistral", {"sliding_window": 96, "head_dim": 24}),
    "qwen2-tied": Foreign("qwen2", {"tie_word_embeddings": True}, EXTRAS),
    "qwen2-bf16-sharded-padded": Foreign("qwen2", dtype=torch.bfloat16, shard_bytes=40_000, padded=8),
    "qwen2-yarn-old": Foreign("qwen2", written=old(YARN)),
    "qwen2-wide-window": Foreign("qwen2", {"use_sliding_window": True, "sliding_window": 96, "max_window_layers": 1}),
    "qwen3-tied": Foreign("qwen3", {"tie_word_embeddings": True, "head_dim": 16}, EXTRAS),
    "qwen3-yarn": Foreign("qwen3", {"head_dim": 16, **rope(**YARN, attention_factor=1.5, beta_fast=16.0)}),
    "qwen3-linear": Foreign("qwen3", {"head_dim": 16, **rope(rope_type="linear", factor=2.0)}),
}  # fmt: skip

REFUSED = {
    "dynamic": Foreign("llama", rope(rope_type="dynamic", factor=2.0), refused="rope_parameters.rope_type='dynamic'"),
    "dynamic-old": Foreign("qwen2", written=old({"type": "dynamic", "factor": 2.0}), refused="rope_scaling.rope_type"),
    "longrope": Foreign(
        "llama",
        written=rope(rope_type="longrope", short_factor=[1.0] * 8),
        refused="rope_parameters.rope_type='longrope'",
    ),
    "yarn-unknown-key": Foreign("qwen3", written=rope(**YARN, finetune=2), refused="rope_parameters.finetune"),
    "partial-rope": Foreign("llama", written=rope(partial_rotary_factor=0.5), refused="partial_rotary_factor"),
    "two-ropes": Foreign(
        "llama", written={**rope(rope_type="linear", factor=2.0), "rope_scaling": YARN}, refused="rope_scaling="
    ),
    "mistral-window": Foreign("mistral", {"sliding_window": 32}, refused="sliding_window=32"),
    "mistral-silent-window": Foreign(
        "mistral", written={"sliding_window": ABSENT, "max_position_embeddings": 8192}, refused="sliding_window=4096"
    ),
    "qwen2-window": Foreign("qwen2", {"use_sliding_window": True, "sliding_window": 32}, refused="sliding_window=32"),
    "unknown-key": Foreign("llama", written={"attn_logit_softcapping": 30.0}, refused="attn_logit_softcapping=30.0"),
    "other-network": Foreign("llama", {"mlp_bias": True}, refused="mlp_bias=True"),
}


def make_foreign(folder: Path, case: Foreign, tokenizer_path: Path) -> Path:
    """Write the folder of a case: what transformers saves, its tokenizer, and the changed keys.

    Qwen2 has byte-level BPE, which transformers takes it for whatever its files say; the others a tokenizer.model.
    """
    import transformers

    files = {"tokenizer_config.json": SETTINGS}
    if case.model_type == "qwen2":
        tokenizer_path, files = qwen(folder, tokenizer_path)
    write_files(folder, tokenizer_path, {name: files[name] for name in files if name != "config.json"})
    rows = Tokenizer.load(folder).vocabulary_size + case.padded
    config = transformers.AutoConfig.for_model(case.model_type, **{**SIZES, "vocab_size": rows, **case.config})
    torch.manual_seed(11)
    if case.labels:
        config.num_labels = case.labels
    kind = transformers.AutoModelForSequenceClassification if case.labels else transformers.AutoModelForCausalLM
    model = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # transformers begins with norms of 1 and biases of 0
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    model.to(case.dtype).save_pretrained(folder, max_shard_size=case.shard_bytes)
    file = folder / "config.json"
    content = {**json.loads(file.read_text()), **case.written}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ABSENT}))
    return folder
