"""What attention must do: FLOPs of the pairs that are visible, bytes that grow with the sequence and not its square."""

from smml.roofline import Work


def visible_pairs(queries: int, keys: int, causal: bool) -> int:
    """Pairs (query t, key s) of one head with s ≤ t where `causal`, else all."""
    if not causal:
        return queries * keys
    shorter = min(queries, keys)
    return shorter * (shorter + 1) // 2 + (queries - shorter) * keys


def work(
    *,
    batch: int,
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    head_dim: int,
    itemsize: int,
    causal: bool,
) -> Work:
    """Forward: 2 products of 2·d FLOPs a visible pair; q, k, v read, out and the float32 log-sum-exp written."""
    flops = 4 * batch * heads * visible_pairs(queries, keys, causal) * head_dim
    q = batch * heads * queries * head_dim * itemsize
    kv = 2 * batch * kv_heads * keys * head_dim * itemsize
    written = q + batch * heads * queries * 4
    return Work(flops, q + kv, written, written)


def backward_work(
    *,
    batch: int,
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    head_dim: int,
    itemsize: int,
    causal: bool,
) -> Work:
    """Backward: 5 products a visible pair (2.5 times forward): scores again, dP, dV, dQ, dK.

    Reads q, k, v, out, its gradient and the log-sum-exp; writes three gradients. Δ, kept in between, is written and
    read: B·H·T floats. (The kernels here compute scores and dP in both of their passes: 7 products for these 5.)
    """
    flops = 10 * batch * heads * visible_pairs(queries, keys, causal) * head_dim
    q = batch * heads * queries * head_dim * itemsize
    kv = 2 * batch * kv_heads * keys * head_dim * itemsize
    row = batch * heads * queries * 4
    return Work(flops, 3 * q + kv + 2 * row, q + kv + row, q + kv + row, 2)


def unfused_work(
    *, batch: int, heads: int, queries: int, keys: int, head_dim: int, itemsize: int
) -> Work:
    """Forward as three operations, each through memory: scores, their softmax, the weighted values; all pairs."""
    pairs = batch * heads * queries * keys
    q, kv = (batch * heads * rows * head_dim * itemsize for rows in (queries, keys))
    scores = pairs * itemsize
    return Work(
        (4 * head_dim + 5) * pairs, q + 2 * kv + 2 * scores, q + 2 * scores, q + 2 * scores, 3
    )


def extra_bytes(
    *, batch: int, heads: int, queries: int, keys: int, itemsize: int, fused: bool
) -> int:
    """Memory beside operands and result: the log-sum-exp alone, or the scores and their softmax."""
    rows = batch * heads * queries
    return 4 * rows if fused else 2 * rows * keys * itemsize
