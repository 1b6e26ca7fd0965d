"""What a config.json of others may hold at all, before it is read as a shape and as labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megadec.common.errors import ExportError
from megadec.common.schema import read_object, shown

# Keys that are more than compared; the fields of a shape are checked by the shape.
ROPE = {"rope_type": str, "type": str, "rope_theta": float, "factor": float}
CONFIG = {
    "model_type": str,
    "architectures": [str],
    "id2label": {str: str},
    "num_labels": int,
    "problem_type": str,
    "layer_types": [str],
    "rope_theta": float,
    "rope_parameters": ROPE,
    "rope_scaling": ROPE,
    "hidden_size": int,
    "num_attention_heads": int,
}
SINGLE_LABEL = "single_label_classification"
# transformers gives so many labels to a classifier that names none, and takes one alone for regression.
LEAST_LABELS = 2
MOST_LABELS = 1_000_000  # a list of more would cost memory before the weights are seen to have other sizes


def read_config(file: Path) -> dict[str, Any]:
    """The content of config.json. Raises ExportError naming the key that holds another kind of value, or a classifier
    that does not give a text one of several labels.
    """
    config = read_object(file, CONFIG, ExportError)
    _check_labels(config, file)
    return config


def _check_labels(config: Mapping[str, Any], file: Path) -> None:
    if not any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        return
    labels = len(config.get("id2label") or ()) or config.get("num_labels") or LEAST_LABELS
    problem = config.get("problem_type") or SINGLE_LABEL
    if problem != SINGLE_LABEL or not LEAST_LABELS <= labels <= MOST_LABELS:
        what = f"problem_type={shown(problem)} with {labels} labels"
        raise ExportError(f"{file}: {what}; megadec's classifiers give a text one of several labels")
