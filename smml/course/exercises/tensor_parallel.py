"""Exercises of 02_multi_accelerator/05_tensor_parallel."""

from collections.abc import Callable
from math import gcd

from smml.course.checking import WrongAnswer, attempt, exercise, expect_close


@exercise(
    lambda batch, tokens, dim, itemsize: 2 * batch * tokens * dim * itemsize,
    lambda batch, tokens, dim, itemsize: batch * tokens * dim * itemsize,
    lambda batch, tokens, dim, itemsize: 4 * tokens * dim * itemsize,
    lambda batch, tokens, dim, itemsize: 4 * batch * dim * dim * itemsize,
)
def bytes_a_layer(answer: Callable[[int, int, int, int], float]) -> str:
    """Payload in bytes of the all-reduces of one layer in a training step, forward and backward."""
    for given in ((4, 128, 256, 4), (1, 8192, 4096, 2), (8, 1, 64, 2)):
        batch, tokens, dim, itemsize = given
        expect_close(
            f"bytes_a_layer{given}",
            attempt(answer, *given),
            4 * batch * tokens * dim * itemsize,
            "Attention ends with a partial sum of the stream [B, T, D], and so does feed-forward. In backward the "
            "gradient of what enters each of them is one too.",
            tolerance=1e-6,
        )
    return "four streams a layer, whatever the number of ranks"


@exercise(
    lambda kv_heads, feed_forward_dim, vocab_size: kv_heads,
    lambda kv_heads, feed_forward_dim, vocab_size: min(kv_heads, feed_forward_dim, vocab_size),
    lambda kv_heads, feed_forward_dim, vocab_size: gcd(feed_forward_dim, vocab_size),
)
def most_ranks(answer: Callable[[int, int, int], int]) -> str:
    """The largest number of ranks that can share a Llama of these sizes, whole key-value heads and equal parts."""
    for given in ((8, 14_336, 128_256), (8, 11_008, 32_004), (6, 1024, 1024), (40, 13_824, 32_000)):
        expect_close(
            f"most_ranks{given}",
            attempt(answer, *given),
            gcd(*given),
            "Every rank takes as many key-value heads as the others, as many columns of the feed-forward width and as "
            "many tokens of the vocabulary: which numbers divide all three?",
            tolerance=1e-6,
        )
    return "the greatest common divisor; in practice key-value heads set the limit"


@exercise(
    lambda heads, kv_heads, head_dim, dim, ranks: (heads * head_dim // ranks, dim),
    lambda heads, kv_heads, head_dim, dim, ranks: ((heads + 2 * kv_heads) * head_dim, dim // ranks),
    lambda heads, kv_heads, head_dim, dim, ranks: (
        (heads // ranks + 2 * kv_heads) * head_dim,
        dim,
    ),
)
def qkv_shape(answer: Callable[[int, int, int, int, int], tuple[int, int]]) -> str:
    """Shape [out, in] of a rank's part of the fused weight of queries, keys and values."""
    for given in ((8, 4, 32, 256, 4), (32, 8, 128, 4096, 8), (24, 12, 4, 96, 3)):
        heads, kv_heads, head_dim, dim, ranks = given
        found = attempt(answer, *given)
        right = ((heads + 2 * kv_heads) // ranks * head_dim, dim)
        if not isinstance(found, tuple | list) or tuple(found) != right:
            raise WrongAnswer(
                f"qkv_shape{given}: {found!r} is not right. The rows of q, of k and of v are each cut into heads of "
                "the ranks; every rank multiplies the whole stream."
            )
    return "its query, key and value heads' rows, all columns"
