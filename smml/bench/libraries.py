"""Libraries beside our own strategies: what each claims to hold and holds, and the speed of those that keep their word."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from smml.bench import strategies
from smml.bench.setting import Setting
from smml.measure import Record
from smml.parallel.launch import Workers, ranks_here

# A Llama of which a step takes half a second on a core, and whose heads 2 or 4 ranks divide.
MODEL: dict[str, Any] = {
    **{"dim": 256, "layers": 2, "heads": 8, "kv_heads": 4, "head_dim": 32},
    **{"feed_forward_dim": 1024, "tie_embeddings": False},
}
BATCH, TOKENS = 8, 128
COMPILE_S = 600.0  # for the operator that DeepSpeed compiles at its first use on a CPU


@dataclass(frozen=True)
class Peer:
    """A strategy of a library, the one of ours that does the same, and its options."""

    library: str
    ours: str
    options: dict[str, Any] = field(default_factory=dict)


FREED = {  # DeepSpeed's stage 3 shards every parameter, and frees each after it was used
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
}
PEERS = {
    "accelerate-ddp": Peer("accelerate", "data"),
    "accelerate-fsdp2": Peer("accelerate", "zero-3"),
    "accelerate-fsdp2#insist": Peer("accelerate", "zero-3", {"insist": True}),
    "deepspeed-zero-1": Peer("deepspeed", "zero-1"),
    "deepspeed-zero-1#clipping": Peer("deepspeed", "zero-1", {"clipping": 1.0}),
    "deepspeed-zero-2": Peer("deepspeed", "zero-2"),
    "deepspeed-zero-3": Peer("deepspeed", "zero-3"),
    "deepspeed-zero-3#freed": Peer("deepspeed", "zero-3", {"settings": FREED}),
    "deepspeed-autotp": Peer("deepspeed", "tensor"),
}


def run(setting: Setting) -> Iterator[Record]:
    """Tokens a second of every installed library that keeps its word, and ours ÷ theirs; on two ranks, or one a GPU."""
    with Workers(ranks_here(2)) as workers:
        proofs = findings(workers)
        yield from speeds(setting, workers, [n for n, p in proofs.items() if not p["problems"]])


def installed() -> dict[str, Peer]:
    """The peers whose library is here."""
    found = {library: importlib.util.find_spec(library) for library in ("accelerate", "deepspeed")}
    return {name: peer for name, peer in PEERS.items() if found[peer.library]}


def findings(workers: Workers) -> dict[str, dict[str, Any]]:
    """The proof of each installed peer on its worst rank: the one where most does not hold."""
    peers = installed()
    if any(peer.library == "deepspeed" for peer in peers.values()):
        task = "smml.parallel.libraries.deepspeed:compile_operators"
        workers.run(task, timeout_s=COMPILE_S)
    return {
        name: max(
            strategies.findings(workers, name.partition("#")[0], peer.options),
            key=lambda proof: len(proof["problems"]),
        )
        for name, peer in peers.items()
    }


def kept(proof: dict[str, Any]) -> float:
    """Bytes that a rank should hold by the library's claim ÷ those that it holds: 1 where it keeps its word."""
    return sum(proof["predicted"].values()) / sum(proof["held"].values())


def speeds(setting: Setting, workers: Workers, names: list[str]) -> Iterator[Record]:
    """Tokens a second of each of these peers and of ours, in turns, theirs predicted to be ours; then ours ÷ theirs.

    Each is proved again, as before every clock. Pair by pair, since DeepSpeed's engines do not all bear each other.
    """
    sizes = {"batch": BATCH, "tokens": TOKENS}
    for name in names:
        peer = PEERS[name]
        pair = {peer.ours: {}, name: peer.options}
        timings = strategies.seconds(workers, pair, MODEL, samples=5, **sizes)
        yield from strategies.records(
            setting,
            workers,
            f"libraries/{name}",
            timings,
            predicted_s={name: timings[peer.ours].p50},
            ours=peer.ours,
            **sizes,
        )
