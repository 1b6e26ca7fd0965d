"""The Python interface: what the commands do, as typed functions; megadec/__init__.py offers the functions.

    import megadec
    model = megadec.load("exports/demo-hf")
    print(model.generate("石桥", max_new_tokens=40))

Options are the dataclasses that the command lines are made of; every function raises MegadecError for what is wrong.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megadec.common.config import to_yaml
from megadec.common.errors import ConfigError, TrainingError
from megadec.common.processes import free_port
from megadec.corpus.options import PrepareOptions
from megadec.corpus.prepare import prepare
from megadec.corpus.vocabulary.train import TokenizerOptions, train_tokenizer
from megadec.decoding.continuation import Continuation
from megadec.decoding.generate import continue_alone, generate_text
from megadec.decoding.sampling import Sampling
from megadec.engine.runs.common import CommonRun
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.seq2seq import PairsRun
from megadec.export.commands import ConvertOptions
from megadec.export.commands import convert_model as convert
from megadec.finetune.task import FineTuneRun
from megadec.serve.load import ServedClassifier, ServedModel, is_classifier, open_classifier, open_language_model
from megadec.serve.options import ServeOptions

__all__ = [
    "ConvertOptions", "FineTuneRun", "Model", "PairsRun", "PrepareOptions", "PretrainRun", "Sampling", "ServeOptions",
    "TokenizerOptions", "convert", "load", "prepare", "run_server", "train", "train_tokenizer",
]  # fmt: skip
VERBS: Mapping[type[CommonRun], str] = {PretrainRun: "pretrain", FineTuneRun: "finetune", PairsRun: "seq2seq"}


class Model:
    """A trained model in memory: a language model continues texts, a classifier labels them. Make one with `load`."""

    def __init__(self, opened: ServedModel | ServedClassifier) -> None:
        self._opened = opened

    def generate(self, prompt: str, **sampling: Any) -> str:
        """The text that follows `prompt`. sampling: fields of `Sampling`, such as max_new_tokens=40, temperature=0.

        Raises ConfigError for a classifier and an unknown or wrong field, InputError for a prompt that does not fit.
        """
        return "".join(self.stream(prompt, **sampling))

    def stream(self, prompt: str, **sampling: Any) -> Iterator[str]:
        """`generate`, piece by piece as it is drawn, in whole characters."""
        found = self._language_model("generate")
        try:
            how = Sampling(**sampling)
        except TypeError as error:
            raise ConfigError(f"{error}; the fields are {', '.join(Sampling.__dataclass_fields__)}") from error
        return generate_text(found.model, found.tokenizer, prompt, how)

    def loss(self, text: str) -> float:
        """The mean loss in nats of the text's tokens and of `</s>` behind them, as training measures it.

        Raises ConfigError for a classifier, InputError for a text that is longer than the model's context.
        """
        found = self._language_model("loss")
        ids = [found.tokenizer.bos_id, *found.tokenizer.encode(text), found.tokenizer.eos_id]
        scored = Continuation(ids, Sampling(max_new_tokens=0), prompt_logprobs=True)
        list(continue_alone(found.model, scored))
        return -sum(one.log_probability for one in scored.prompt_scores) / len(scored.prompt_scores)

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Label -> probability for each text. Raises ConfigError for a language model, InputError for an empty text."""
        if not isinstance(self._opened, ServedClassifier):
            raise ConfigError(f"{self._opened.name} continues text and has no labels; classify needs a classifier")
        return [dict(found) for found in self._opened.classifier.classify(texts)]

    @property
    def labels(self) -> list[str]:
        """A classifier's labels in its order; none for a language model."""
        return list(self._opened.classifier.labels) if isinstance(self._opened, ServedClassifier) else []

    def _language_model(self, wanted: str) -> ServedModel:
        if isinstance(self._opened, ServedClassifier):
            raise ConfigError(f"{self._opened.name} is a classifier; {wanted} needs a language model")
        return self._opened


def load(folder: Path | str, *, dtype: torch.dtype = torch.float32, device: str | None = None) -> Model:
    """The model of a run, a checkpoint, or a Hugging Face, megadec, GGUF or ONNX folder.

    dtype and device (cuda where there is one) are those of our own decoder; GGUF and ONNX hold theirs, and others are
    refused. Raises ConfigError, CheckpointError, ModelFolderError, TokenizerError, and MissingExtraError for a runtime
    that is missing.
    """
    path = Path(folder)
    if is_classifier(path):
        return Model(open_classifier(path, dtype, device))
    return Model(open_language_model(path, None, dtype, device))


def train(run: CommonRun, deepspeed: Path | str | Mapping[str, Any], *, ranks: int = 1) -> Path:
    """Train on this machine with `ranks` processes of the deepspeed launcher, and return the run's folder.

    run: a `PretrainRun`, `FineTuneRun` or `PairsRun`. deepspeed: a DeepSpeed file, or what it would hold. Where
    the folder holds the same run already, it goes on from its newest checkpoint. Raises ConfigError for a run of
    another kind; TrainingError when the launcher ends with another status than 0, its messages on standard error.
    """
    if type(run) not in VERBS:
        raise ConfigError(f"{type(run).__name__} cannot be trained; one of {', '.join(k.__name__ for k in VERBS)} can")
    with tempfile.TemporaryDirectory(prefix="megadec-") as made:
        config, settings = Path(made) / "run.yaml", Path(made) / "deepspeed.json"
        config.write_text(to_yaml(run), encoding="utf-8")
        if isinstance(deepspeed, Mapping):
            settings.write_text(json.dumps(dict(deepspeed)), encoding="utf-8")
        else:
            settings = Path(deepspeed).resolve()
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", str(ranks)]
        verb = ["--module", "megadec", VERBS[type(run)], "--deepspeed", str(settings), "--config", str(config)]
        status = subprocess.call([*launcher, "--master_port", str(free_port()), *verb])
    if status:
        raise TrainingError(f"{run.name}: the launcher ended with status {status}; its messages are above")
    return run.folder


def run_server(options: ServeOptions) -> None:
    """Answer over HTTP until SIGTERM or SIGINT; see `megadec serve`. Needs the extra `serve`."""
    from megadec.serve.server import serve

    serve(options)
