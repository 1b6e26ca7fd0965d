"""config.json of a Hugging Face folder and our shape, both ways.

Every key of a file that is read either maps to a field, or must have the value that our decoder computes, or is known
not to touch the network; any other is refused by its name, because it may change what the model's own runtime computes.
RoPE stands twice in what we write, as `rope_parameters` (transformers 5) and as `rope_theta` with `rope_scaling`
(transformers 4, vLLM, llama.cpp), so that one folder serves them all; when read, the two must agree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ConfigError, ExportError
from megadec.decoder.rope_scaling import TYPE_KEY, RopeScaling, rope_scaling_of, yarn_magnitude
from megadec.decoder.shape import AttentionBias, DecoderShape
from megadec.export.read.tensor_names import FIELDS, Layout, layout_of

CLASSIFIER = "ForSequenceClassification"
# How many labels transformers gives a classifier whose config.json names none.
SILENT_LABELS = 2

# The `model_type`s that are read, and the layout that each is. mistral is llama with a window, which must not matter.
MODEL_TYPES: dict[str, Layout] = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

# What transformers assumes where config.json is silent and the value is not the same as ours.
SILENT = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "initializer_range": 0.02, "rope_theta": 10000.0}
SILENT_OF_TYPE: dict[str, dict[str, int]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {"num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
}
# What a value of `attention_bias` means; the first where there is none. Qwen2 has the biases without the key.
BIASES: dict[str, dict[bool, AttentionBias]] = {
    "llama": {False: "none", True: "qkvo"},
    "mistral": {False: "none"},
    "qwen2": {True: "qkv"},
    "qwen3": {False: "none"},
}

# Keys whose other values would make another network: all values that mean the same, the first of which we write. None
# means the first everywhere.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0,),
    "pretraining_tp": (1,),
    "quantization_config": (None,),
    "use_mrope": (False,),
    "rope_interleaved": (False,),
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "is_decoder": (False, True),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
}
# Read elsewhere: what chooses the layout, RoPE, the window, and which kind of model it is.
READ_APART = {
    "model_type", "attention_bias", "rope_parameters", "rope_scaling", "sliding_window", "use_sliding_window",
    "max_window_layers", "layer_types", "architectures", "id2label", "label2id", "num_labels",
}  # fmt: skip
# What says nothing of the network: where the file comes from, how the weights are stored, what training did, what
# generation does, and what the Python object gives back.
HARMLESS = {
    "_name_or_path", "_commit_hash", "transformers_version", "transformers.js_config", "auto_map", "is_llama_config",
    "unsloth_fixed", "unsloth_version", "model_name", "finetuning_task", "task_specific_params", "tokenizer_class",
    "torch_dtype", "dtype", "torchscript", "use_bfloat16", "tf_legacy_loss", "_attn_implementation_autoset",
    "_attn_implementation", "attn_implementation", "_flash_attn_2_enabled", "chunk_size_feed_forward",
    "attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "dropout",
    "embd_pdrop", "resid_pdrop", "tie_encoder_decoder", "cross_attention_hidden_size", "problem_type",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id",
    "max_sequence_length", "use_cache", "return_dict", "return_dict_in_generate", "output_attentions",
    "output_hidden_states", "output_scores", "prefix", "max_length", "max_new_tokens", "min_length", "do_sample",
    "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p",
    "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "suppress_tokens",
    "begin_suppress_tokens", "exponential_decay_length_penalty",
}  # fmt: skip

WRITTEN: dict[Layout, dict[str, Any]] = {
    "llama": {"mlp_bias": False},
    "qwen2": {"use_sliding_window": False, "sliding_window": None},
    "qwen3": {"attention_bias": False, "use_sliding_window": False, "sliding_window": None},
}


def config_of(
    shape: DecoderShape, dtype: torch.dtype, bos_id: int, end: int | list[int], labels: Sequence[str] | None = None
) -> dict[str, Any]:
    """The content of config.json; with labels that of a classifier. end: the id or ids that end an answer."""
    layout = layout_of(shape)
    dtype_name = str(dtype).removeprefix("torch.")
    scaling = {} if shape.rope_scaling is None else {"rope_scaling": shape.rope_scaling.to_dict()}
    config = {
        "architectures": [layout.capitalize() + ("ForCausalLM" if labels is None else CLASSIFIER)],
        "model_type": layout,
        **{row.hugging_face: getattr(shape, row.ours) for row in FIELDS},
        "hidden_act": FIXED["hidden_act"][0],
        **({"attention_bias": shape.attention_bias != "none"} if layout == "llama" else {}),
        **WRITTEN[layout],
        "attention_dropout": 0.0,
        "rope_parameters": {"rope_theta": shape.rope_theta, TYPE_KEY: "default", **scaling.get("rope_scaling", {})},
        **scaling,
        "use_cache": labels is None,
        "bos_token_id": bos_id,
        "eos_token_id": end,
        "torch_dtype": dtype_name,
        "dtype": dtype_name,
    }
    if labels is not None:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
        # transformers reads the logits behind the last id that is not this one; no text holds `</s>`.
        config["pad_token_id"] = end
    return config


def labels_of(config: Mapping[str, Any], file: Path) -> list[str] | None:
    """The labels of a classifier in their order; None for another model. Raises ExportError for a gap in them."""
    if not any(name.endswith(CLASSIFIER) for name in config.get("architectures") or ()):
        return None
    named = config.get("id2label")
    if named is None:
        return [f"LABEL_{number}" for number in range(config.get("num_labels") or SILENT_LABELS)]
    labels = [named.get(str(number)) for number in range(len(named))] if isinstance(named, Mapping) else [None]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) != len(labels):
        raise ExportError(f"{file}: id2label={named!r} does not give each of the numbers from 0 on a label of its own")
    return [str(label) for label in labels]


def shape_of(config: Mapping[str, Any], file: Path) -> DecoderShape:
    """The shape that a config.json describes. Raises ExportError naming the key that we cannot express."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise ExportError(f"{file}: model_type={model_type!r}; megadec reads {', '.join(MODEL_TYPES)}")
    given = {key: value for key, value in config.items() if value is not None}
    known = {**SILENT, **SILENT_OF_TYPE[model_type], **given}
    try:
        _check_keys(given, model_type)
        _check_window(config, model_type)
        known["rope_theta"], scaling = _rope(given, known["rope_theta"])
        heads, width = known.get("num_attention_heads"), known.get("hidden_size")
        known.setdefault("num_key_value_heads", heads)
        if isinstance(heads, int) and isinstance(width, int) and heads > 0:
            known.setdefault("head_dim", width // heads)
        for row in FIELDS:
            if known.get(row.hugging_face) is None:
                raise ConfigError(f"{row.hugging_face!r} is missing; a {model_type} model needs it")
        return DecoderShape(
            **{row.ours: known[row.hugging_face] for row in FIELDS},
            rope_scaling=scaling,
            attention_bias=_bias(given, model_type),
            qk_norm=MODEL_TYPES[model_type] == "qwen3",
        )
    except ConfigError as error:
        raise ExportError(f"{file}: {error}") from error


def _check_keys(given: Mapping[str, Any], model_type: str) -> None:
    """Raise ConfigError for a key that is not known, and for one with another value than our decoder computes."""
    fields = {row.hugging_face for row in FIELDS}
    for key, value in given.items():
        if key in FIXED:
            if value not in FIXED[key]:
                raise ConfigError(f"{key}={value!r}; megadec's decoder can only be {FIXED[key][0]!r} there")
        elif key not in fields | READ_APART | HARMLESS:
            raise ConfigError(
                f"{key}={value!r} is not a key that megadec knows of a {model_type} model, and it may change what the"
                " network computes; where transformers does not read it, remove it from a copy of the folder"
            )


def _check_window(config: Mapping[str, Any], model_type: str) -> None:
    """Raise ConfigError when a token would not see all tokens before it: our decoder has no window."""
    # Here null is not the same as silence. Qwen writes the width of a window that it does not use.
    window = config.get("sliding_window", SILENT_OF_TYPE[model_type].get("sliding_window"))
    window = None if model_type in ("qwen2", "qwen3") and not config.get("use_sliding_window") else window
    context = config.get("max_position_embeddings")
    if window is not None and not (isinstance(window, int) and isinstance(context, int) and window >= context):
        raise ConfigError(
            f"sliding_window={window!r} is less than max_position_embeddings={context!r}, and megadec's decoder has no"
            f" window; a copy of the folder with max_position_embeddings={window!r} is the same model up to there"
        )
    allowed = {"full_attention"} if window is None else {"full_attention", "sliding_attention"}
    if others := set(config.get("layer_types") or ()) - allowed:
        raise ConfigError(f"layer_types has {sorted(others)}; megadec's decoder has full_attention only")


def _bias(given: Mapping[str, Any], model_type: str) -> AttentionBias:
    meanings = BIASES[model_type]
    stated = given.get("attention_bias", next(iter(meanings)))
    if not isinstance(stated, bool) or stated not in meanings:
        raise ConfigError(f"attention_bias={stated!r}; a {model_type} model can only have {next(iter(meanings))}")
    return meanings[stated]


def _rope(given: Mapping[str, Any], theta: Any) -> tuple[Any, RopeScaling | None]:
    """RoPE's base and scaling. Raises ConfigError where two places disagree, or name what we cannot express."""
    named = {"rope_theta": given["rope_theta"]} if "rope_theta" in given else {}
    scalings: dict[str, RopeScaling | None] = {}
    for key in ("rope_parameters", "rope_scaling"):
        if not given.get(key):
            continue
        if not isinstance(given[key], Mapping):
            raise ConfigError(f"{key}={given[key]!r} is not keys such as {{'rope_type': 'linear', 'factor': 2.0}}")
        values = {name: value for name, value in given[key].items() if value is not None}
        if "rope_theta" in values:
            named[f"{key}.rope_theta"] = values.pop("rope_theta")
        scalings[key] = _scaling(values, key, given.get("max_position_embeddings"))
    for name, stated in named.items():
        if stated != (first := next(iter(named.values()))):
            raise ConfigError(f"{next(iter(named))}={first!r} but {name}={stated!r}; the two must agree")
    if len(set(scalings.values())) > 1:
        raise ConfigError(
            f"rope_scaling={given['rope_scaling']!r} but rope_parameters={given['rope_parameters']!r};"
            " the two must agree"
        )
    return next(iter(named.values()), theta), next(iter(scalings.values()), None)


def _scaling(values: dict[str, Any], key: str, context: Any) -> RopeScaling | None:
    """The scaling in a mapping without its base. Raises ConfigError naming what we cannot express."""
    types = [values.pop(name) for name in (TYPE_KEY, "type") if name in values]
    if any(one != types[0] for one in types):
        raise ConfigError(f"{key}.rope_type={types[0]!r} but {key}.type={types[1]!r}; the two must agree")
    if (part := values.pop("partial_rotary_factor", 1.0)) != 1.0:
        raise ConfigError(f"{key}.partial_rotary_factor={part!r}; megadec's decoder rotates the whole head")
    kind = types[0] if types else "default"
    if kind == "default":
        if values:
            raise ConfigError(
                f"{key}.{min(values)}={values[min(values)]!r} with rope_type 'default', which has no such key"
            )
        return None
    if kind in ("llama3", "yarn"):
        values.setdefault("original_max_position_embeddings", context)
    mscales = ("mscale", "mscale_all_dim")  # DeepSeek's way to say attention_factor
    if kind == "yarn" and all(isinstance(values.get(name), int | float) for name in ("factor", *mscales)):
        one, other = (yarn_magnitude(values["factor"], values.pop(name)) for name in mscales)
        values.setdefault("attention_factor", one / other)
    return rope_scaling_of({**values, TYPE_KEY: kind}, key)
