"""From records of throughput to money: tokens per second that were measured, by how many ranks, on what, at what price.

A record's rate is the whole job's, each token counted once; so it must say how many ranks the job had, or nobody can
tell whether an instance has been left out of the price.
"""

from collections.abc import Sequence

from smml.cost.units.unit_economics import GlobalThroughput, Instances, Job
from smml.errors import UserError
from smml.measure import Record

UNIT = "tokens/s"
# Benches of strategies call it ranks; both mean the processes of the job.
WORLD_SIZE = ("world_size", "ranks")


def world_size(record: Record) -> int:
    """Ranks of the job that was measured; raises UserError where the record does not say, or says two things."""
    said = {name: record.inputs[name] for name in WORLD_SIZE if name in record.inputs}
    if not said:
        raise UserError(
            f"record {record.name} states no world_size in its inputs: its tokens per second cannot be priced; "
            "measure again with a bench that records the number of ranks."
        )
    for name, value in said.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"record {record.name} has {name} {value!r}; it must be a whole number above 0. Measure again."
            )
    if len(set(said.values())) > 1:
        raise UserError(
            f"record {record.name} has {' and '.join(f'{k} {v}' for k, v in said.items())}; they must be equal."
        )
    return next(iter(said.values()))


def throughput(record: Record) -> GlobalThroughput:
    """The job's tokens per second; raises UserError for a record of another unit or without world_size."""
    if record.unit != UNIT:
        raise UserError(
            f"record {record.name} is in {record.unit}, and only {UNIT} can be priced by the token; "
            f"give a record of {UNIT}."
        )
    world_size(record)
    return GlobalThroughput(record.value)


def job(record: Record, instances: Sequence[Instances]) -> Job:
    """The job that was measured, with every instance that is paid for it; raises UserError as `Job` does too."""
    return Job(tuple(instances), world_size(record), throughput(record))


def priced(record: Record, instances: Sequence[Instances], name: str | None = None) -> Record:
    """The record in USD/Mtoken: median, spread and prediction; dearest where it was slowest. Raises UserError.

    The shares of roofs, FLOPs and bytes stay what they were: of the call that was timed.
    """
    paid = job(record, instances).usd_per_hour
    if not paid > 0:
        raise UserError(
            f"price_usd_per_hour is {paid!r}: a record holds no price of nothing; give a number above 0."
        )

    def cost(rate: float) -> float:
        return paid / (rate * 3600) * 1e6

    rented = [f"{group.count} × {group.type}" for group in instances]
    return record.model_copy(
        update={
            "name": name or f"cost/{record.name}",
            "unit": "USD/Mtoken",
            "better": "lower",
            "value": cost(record.value),
            "p20": cost(record.p80),
            "p80": cost(record.p20),
            "predicted": None if record.predicted is None else cost(record.predicted),
            "inputs": record.inputs | {"instances": rented, "usd_per_hour": paid},
        }
    )
