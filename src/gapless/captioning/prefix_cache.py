"""The cache of a decoder in `generate`: keys and values of the tokens so far and, computed once, of the prefix.

The cache of transformers copies all tokens for each new one, and for beams twice. This one has a buffer for the longest
caption, and reorders beams by one copy into a second buffer. The generated tokens are the same.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache


class WordLayer(DynamicLayer):
    """Keys and values of one layer, `[row, head, token, size]`: views of one buffer, `[token, row, head, both sizes]`.

    Args:
        room: the number of tokens that the buffer is made for; it doubles when there are more.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        rows, heads, _, self.key_size = key_states.shape
        self.buffer = key_states.new_empty(self.room, rows, heads, self.key_size + value_states.shape[-1])
        self.spare = self.buffer[:0]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        while end > len(self.buffer):
            self.buffer = torch.cat([self.buffer, torch.empty_like(self.buffer)])
        into = self.buffer[start:end]
        into[..., : self.key_size] = key_states.permute(2, 0, 1, 3)
        into[..., self.key_size :] = value_states.permute(2, 0, 1, 3)
        return self.show(end)

    def show(self, num_words: int) -> tuple[Tensor, Tensor]:
        """Set `keys` and `values`, which transformers reads, to the first tokens of the buffer, and return them."""
        words = self.buffer[:num_words].permute(1, 2, 0, 3)
        self.keys, self.values = words[..., : self.key_size], words[..., self.key_size :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order; they are copied to the spare buffer, which changes places with the other."""
        num_words = self.get_seq_length()
        if not num_words:
            return
        shape = (len(self.buffer), len(indices), *self.buffer.shape[2:])
        if self.spare.shape != shape:
            self.spare = self.buffer.new_empty(shape)
        # One flat index over tokens and rows: torch copies in parallel along the first dimension only.
        words = torch.arange(num_words, device=indices.device)[:, None]
        flat = (words * self.buffer.shape[1] + indices).flatten()
        torch.index_select(self.buffer[:num_words].flatten(0, 1), 0, flat, out=self.spare[:num_words].flatten(0, 1))
        self.buffer, self.spare = self.spare, self.buffer
        self.show(num_words)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.get_seq_length():
            self.batch_select_indices(torch.arange(self.buffer.shape[1], device=self.device).repeat_interleave(repeats))


class PrefixCache(EncoderDecoderCache):
    """A cache of the tokens and of the prefix; the default cache of a decoder holds the tokens only.

    Args:
        room: the number of tokens to expect.
    """

    def __init__(self, room: int) -> None:
        words: Any = DynamicCache()
        words.layer_class_to_replicate = partial(WordLayer, room)
        super().__init__(words, DynamicCache())

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the beams. The prefix stays: only beams of one image change places, and they share its prefix."""
        self.self_attention_cache.reorder_cache(beam_idx)
