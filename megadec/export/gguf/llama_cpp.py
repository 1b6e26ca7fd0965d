"""A GGUF file in llama.cpp: token ids, logits, text. The door to llama.cpp's Python binding, cyllama (it has wheels).

Keys and values are kept in float32, twice the memory of llama.cpp's habit: in float16 they alone move the logits of a
float32 model by 1e-3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ExportError, needs_extra
from megadec.decoding.session import check_ids

# Tokens that one call of llama.cpp computes; its buffer holds so many rows of logits.
BATCH_TOKENS = 256
# llama.cpp rounds the room of a sequence up to it.
CONTEXT_STEP = 256
FENCE = "。"

_FLOAT32 = 0  # GGML_TYPE_F32
_NO_FLASH_ATTENTION = 0


class LlamaCppModel:
    """A language model in llama.cpp, on the CPU."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises ExportError, MissingExtraError."""
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
        self.max_position_embeddings: int = self.model.n_ctx_train
        self.bos_id: int = self._vocabulary.token_bos()
        self.eos_id: int = self._vocabulary.token_eos()
        self._fence = self.encode(FENCE)
        stated = [value for key, value in self.model.metadata().items() if key.endswith(".attention.key_length")]
        head_size = int(stated[0]) if stated else self.model.n_embd // self.model.n_head
        # Of keys and values, in float32.
        self.token_bytes = 2 * self.model.n_layer * self.model.n_head_kv * head_size * 4

    def session(self) -> "LlamaCppSession":
        """One sequence, empty so far. Sessions share the weights and nothing else."""
        return LlamaCppSession(self, 1, self.max_position_embeddings)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Logits [S, V] behind each of `ids`, float32. Raises InputError."""
        return LlamaCppSession(self, 1, len(ids)).feed_rows([ids])[0]

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
    """Some sequences, one where a text is generated: the keys and values of the tokens that each was fed."""

    def __init__(self, model: LlamaCppModel, sequences: int, tokens: int) -> None:
        """tokens: the most that a sequence will hold. Raises ExportError where there is no memory for them."""
        self._model = model
        self._lengths = [0] * sequences
        self._batch = model.library.LlamaBatch(n_tokens=BATCH_TOKENS, embd=0, n_seq_max=1)
        self._context = open_context(model, sequences, tokens)

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Logits [V] behind the last of `ids`, float64; they follow what was fed before. Raises InputError."""
        return torch.from_numpy(self._feed([ids], every=False)[0][-1])

    def feed_rows(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits [S, V] behind each id of each sequence's row, float32. Raises InputError."""
        return [torch.from_numpy(np.array(found, dtype=np.float32)) for found in self._feed(rows, every=True)]

    def _feed(self, rows: Sequence[Sequence[int]], every: bool) -> list[list[np.ndarray]]:
        """Logits [V] behind each id of each row, float64, or behind its last one alone."""
        for ids, length in zip(rows, self._lengths, strict=True):
            check_ids(ids, self._model.vocabulary_size, self._model.max_position_embeddings, length)
        tokens = [(row, place, one) for row, ids in enumerate(rows) for place, one in enumerate(ids)]
        found: list[list[np.ndarray]] = [[] for _ in rows]
        for start in range(0, len(tokens), BATCH_TOKENS):
            piece = tokens[start : start + BATCH_TOKENS]
            wanted = [every or place == len(rows[row]) - 1 for row, place, _ in piece]
            self._batch.clear()
            for (row, place, one), is_wanted in zip(piece, wanted, strict=True):
                self._batch.add(int(one), self._lengths[row] + place, [row], is_wanted)
            try:
                self._context.decode(self._batch)
            except (ValueError, RuntimeError) as error:
                raise ExportError(
                    f"{self._model.path}: llama.cpp failed after {max(self._lengths)} tokens: {error}"
                ) from error
            for number, (row, _, _) in enumerate(piece):
                if wanted[number]:
                    found[row].append(np.array(self._context.get_logits_ith(number)))
        self._lengths = [length + len(ids) for ids, length in zip(rows, self._lengths, strict=True)]
        return found


def open_context(model: LlamaCppModel, sequences: int, tokens: int) -> Any:
    """llama.cpp's context for so many sequences of so many tokens. Raises ExportError where there is no memory."""
    options = model.library.LlamaContextParams()
    options.n_seq_max = sequences
    options.n_ctx = sequences * (tokens + -tokens % CONTEXT_STEP)
    options.n_batch = options.n_ubatch = BATCH_TOKENS
    options.n_threads = options.n_threads_batch = torch.get_num_threads()
    options.type_k = options.type_v = _FLOAT32
    options.flash_attn_type = _NO_FLASH_ATTENTION
    try:
        return model.library.LlamaContext(model.model, options)
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{model.path}: llama.cpp has no memory for {options.n_ctx} tokens: {error}") from error


def quantize(whole: Path, output: Path, file_type: int) -> None:
    """Write the float32 file `whole` again as `output` in one of llama.cpp's quantized formats (`llama_ftype`).

    Raises ExportError, also where the disk is full, and MissingExtraError.
    """
    library: Any = _llama_cpp()
    options = library.LlamaModelQuantizeParams()
    options.ftype = file_type
    options.nthread = torch.get_num_threads()
    try:
        library.model_quantize(str(whole), str(output), options)
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{whole}: llama.cpp cannot quantize it: {error}") from error


def _llama_cpp() -> Any:
    """The binding, silent: what llama.cpp would log is compared, or becomes an error, here."""
    with needs_extra("cyllama", "gguf"):
        from cyllama.llama import llama_cpp
    llama_cpp.disable_logging()
    llama_cpp.llama_backend_init()
    return llama_cpp
