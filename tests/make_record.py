"""Records for tests, made from the samples that a test names."""

from smml.measure import MachineId, Record, Timing, record

MACHINE = MachineId(fingerprint="test-cpu-2c-8gib-abcdef", device="Test CPU")


def made(
    name: str = "copy/float32", seconds: float = 1e-3, spread: float = 0.02, **fields
) -> Record:
    """A record in B/s of a call that took `seconds`, evenly spread by ± `spread`."""
    timing = Timing(tuple(seconds * (1 + spread * (i - 5) / 5) for i in range(11)))
    defaults = {
        "machine": MACHINE,
        "source": "bench/elementwise",
        "unit": "B/s",
        "amount": 1e6,
        "flops": 1e5,
        "bytes": 1e6,
        "predicted_s": seconds,
    }
    return record(name, timing, **(defaults | fields))
