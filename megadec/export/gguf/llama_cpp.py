"""A GGUF file in llama.cpp: token ids, logits, text. The door to llama.cpp's Python binding, cyllama (it has wheels).

Keys and values are kept in float32, twice the memory of llama.cpp's habit: in float16 they alone move the logits of a
float32 model by 1e-3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megadec.common.errors import ExportError, needs_extra
from megadec.decoding.session import check_ids

# Tokens that one call of llama.cpp computes; its buffer holds so many rows of logits.
BATCH_TOKENS = 256
FENCE = "。"

_FLOAT32 = 0  # GGML_TYPE_F32
_NO_FLASH_ATTENTION = 0


class LlamaCppModel:
    """A language model in llama.cpp, on the CPU."""

    def __init__(self, path: Path, session_tokens: int | None = None) -> None:
        """Map the file. session_tokens: room of a session, None: the whole context, whose keys may take gigabytes.

        Raises ExportError, MissingExtraError.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise ExportError(f"{path} does not exist; a GGUF file was expected")
        library: Any = _llama_cpp()
        options = library.LlamaModelParams()
        options.n_gpu_layers = 0

        class Model(library.LlamaModel):
            # cyllama 0.2.18 asks a model for it when logits are read, and its own class has none.
            n_vocab = property(lambda model: model.get_vocab().n_vocab)

        self.library = library
        try:
            self.model = Model(str(path), options)
        except (ValueError, RuntimeError, OSError) as error:
            raise ExportError(f"{path}: llama.cpp cannot load it: {error}") from error
        self._vocabulary = self.model.get_vocab()
        self.vocabulary_size: int = self._vocabulary.n_vocab
        self.max_position_embeddings: int = min(self.model.n_ctx_train, session_tokens or self.model.n_ctx_train)
        self.bos_id: int = self._vocabulary.token_bos()
        self.eos_id: int = self._vocabulary.token_eos()
        self._fence = self.encode(FENCE)

    def session(self) -> "LlamaCppSession":
        """One sequence, empty so far. Sessions share the weights and nothing else."""
        return LlamaCppSession(self)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits [S, V] behind each of `ids`, float32. Raises InputError."""
        return torch.stack(self.session().feed_all(ids)).float()

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """The ids of `text`, in which nothing is read as a special token; with `<s>` in front if `add_special`."""
        return list(self._vocabulary.tokenize(text, add_special, False))

    def encode_template(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are themselves."""
        return list(self._vocabulary.tokenize(text, False, True))

    def ends(self, piece_id: int) -> bool:
        """Whether llama.cpp ends an answer at this id."""
        return bool(self._vocabulary.is_eog(piece_id))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; `<s>` and `</s>` give nothing, bytes that are no UTF-8 give U+FFFD."""
        # The binding strips blanks from both ends; between two full stops there are none.
        text = str(self._vocabulary.detokenize([*self._fence, *ids, *self._fence]))
        return text.removeprefix(FENCE).removesuffix(FENCE)


class LlamaCppSession:
    """One sequence: the keys and values of the tokens that it was fed."""

    def __init__(self, model: LlamaCppModel) -> None:
        """Raises ExportError where there is no memory for the keys and values."""
        self._model = model
        self.length = 0
        options = model.library.LlamaContextParams()
        options.n_ctx = model.max_position_embeddings
        options.n_batch = options.n_ubatch = BATCH_TOKENS
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        options.type_k = options.type_v = _FLOAT32
        options.flash_attn_type = _NO_FLASH_ATTENTION
        self._batch = model.library.LlamaBatch(n_tokens=BATCH_TOKENS, embd=0, n_seq_max=1)
        try:
            self._context = model.library.LlamaContext(model.model, options)
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"{model.path}: llama.cpp has no memory for {options.n_ctx} tokens: {error}") from error

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64; they follow what was fed before. Raises InputError."""
        return self.feed_all(ids, every=False)[-1]

    def feed_all(self, ids: Sequence[int], every: bool = True) -> list[Tensor]:
        """Logits [V] behind each of `ids`, float64, or only behind the last of each piece. Raises InputError."""
        check_ids(ids, self._model.vocabulary_size, self._model.max_position_embeddings, self.length)
        found: list[Tensor] = []
        for start in range(0, len(ids), BATCH_TOKENS):
            piece = ids[start : start + BATCH_TOKENS]
            wanted = range(len(piece)) if every else [len(piece) - 1]
            self._batch.clear()
            for place, piece_id in enumerate(piece):
                self._batch.add(int(piece_id), self.length + place, [0], place in wanted)
            try:
                self._context.decode(self._batch)
            except (ValueError, RuntimeError) as error:
                raise ExportError(
                    f"{self._model.path}: llama.cpp failed after {self.length} tokens: {error}"
                ) from error
            self.length += len(piece)
            found += [torch.tensor(self._context.get_logits_ith(place), dtype=torch.float64) for place in wanted]
        return found


def _llama_cpp() -> Any:
    """The binding, silent: what llama.cpp would log is compared, or becomes an error, here."""
    with needs_extra("cyllama", "gguf"):
        from cyllama.llama import llama_cpp
    llama_cpp.disable_logging()
    llama_cpp.llama_backend_init()
    return llama_cpp
