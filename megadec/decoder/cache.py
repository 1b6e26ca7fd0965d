"""Keys and values of the tokens seen so far, for generation.

Room is allocated ahead and doubled when it is short (up to the context), so a short answer does not pay for the whole
context and a long one is copied a few times only.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from megadec.decoder.shape import DecoderShape, check_context

FIRST_CAPACITY_TOKENS = 256


class KeyValueCache:
    """Keys and values [layers, batch, kv_heads, capacity, head_size] of `length` tokens, the same for each sequence.

    All sequences advance together: the prompts of a batch are of equal length.
    """

    def __init__(self, shape: DecoderShape, batch: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.length = 0
        capacity = min(FIRST_CAPACITY_TOKENS, shape.max_position_embeddings)
        size = (shape.layers, batch, shape.kv_heads, capacity, shape.head_size)
        self._keys = torch.zeros(size, device=device, dtype=dtype)
        self._values = torch.zeros(size, device=device, dtype=dtype)

    @property
    def capacity_tokens(self) -> int:
        """Tokens for which there is room without growing."""
        return self._keys.shape[3]

    def reserve(self, new_tokens: int) -> None:
        """Make room for `new_tokens` more tokens. Raises InputError beyond the decoder's context."""
        needed = self.length + new_tokens
        check_context(needed, self.shape.max_position_embeddings)
        if needed > self.capacity_tokens:
            capacity = min(max(needed, 2 * self.capacity_tokens), self.shape.max_position_embeddings)
            room = (0, 0, 0, capacity - self.capacity_tokens)
            self._keys, self._values = pad(self._keys, room), pad(self._values, room)

    def append(self, layer: int, k_BKSD: Tensor, v_BKSD: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values behind the others; return all of them, [B, kv_heads, length + S, D]."""
        end = self.length + k_BKSD.shape[2]
        self._keys[layer, :, :, self.length : end] = k_BKSD
        self._values[layer, :, :, self.length : end] = v_BKSD
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def advance(self, new_tokens: int) -> None:
        """Count `new_tokens` as seen, once all layers have appended them."""
        self.length += new_tokens

    def select(self, rows_N: Tensor) -> None:
        """Keep these sequences, in this order; one may be taken more than once (int64)."""
        self._keys, self._values = self._keys[:, rows_N], self._values[:, rows_N]
