"""What is kept while a run lasts and after it, in GB-hours: data, checkpoints as they come and go, weights; and its price."""

import math
from dataclasses import dataclass

from smml.cost.decisions.decision import HOURS_PER_MONTH
from smml.cost.units.bill import usd
from smml.data import Quantity
from smml.data.prices import price
from smml.errors import UserError

# AWS's storage "GB" is 2^30 bytes (Amazon S3 FAQs, "How will I be charged"); a GB of transfer is taken as 10^9, which
# is the dearer reading.
STORED_GB, SENT_GB = 2**30, 1e9
STORAGE_ITEM, TRANSFER_ITEM = "s3/standard/storage", "transfer/internet-out"


@dataclass(frozen=True)
class StoragePrices:
    """USD/GB-month of what lies there, USD/GB of what leaves; raises UserError for other units and currencies."""

    storage: Quantity
    transfer_out: Quantity

    def __post_init__(self) -> None:
        usd(self.storage, "USD/GB-month", "storage")
        usd(self.transfer_out, "USD/GB", "transfer_out")

    @classmethod
    def of(
        cls,
        region: str = "us-east-1",
        storage: str = STORAGE_ITEM,
        transfer_out: str = TRANSFER_ITEM,
    ) -> "StoragePrices":
        """The dated prices of smml.data in a region; raises UserError that names the item or region without one."""
        return cls(price(storage, region), price(transfer_out, region))

    def keeping(self, bytes_hours: float) -> float:
        """USD of so many bytes × hours."""
        return bytes_hours / STORED_GB / HOURS_PER_MONTH * self.storage.value

    def sending(self, sent_bytes: float) -> float:
        """USD of so many bytes out of the region."""
        return sent_bytes / SENT_GB * self.transfer_out.value


@dataclass(frozen=True)
class Kept:
    """Bytes of a run, and how long they lie there. Raises UserError naming the field.

    checkpoint_bytes   of one checkpoint; the newest `checkpoints_kept` are kept, the others removed
    data_bytes         of the training set, kept while the run lasts and `data_hours_before` it
    weights_bytes      of the result, kept `weights_hours_after` the run
    sent_bytes         out of the region: the result to those who use it
    """

    checkpoint_bytes: float
    checkpoints_kept: int = 3
    data_bytes: float = 0.0
    data_hours_before: float = 0.0
    weights_bytes: float = 0.0
    weights_hours_after: float = 0.0
    sent_bytes: float = 0.0

    @classmethod
    def of_model(cls, parameters: float, tokens: float, checkpoints_kept: int = 3) -> "Kept":
        """Checkpoints of 12 B a parameter (see `checkpoint_seconds`), 4 B a token of data, and the result in bf16.

        The result is kept for a month and sent out of the region once.
        """
        weights = 2 * parameters
        return cls(
            12 * parameters,
            checkpoints_kept,
            4 * tokens,
            weights_bytes=weights,
            weights_hours_after=HOURS_PER_MONTH,
            sent_bytes=weights,
        )

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value!r}; give 0 or more.")
        if self.checkpoints_kept < 1:
            raise UserError(f"checkpoints_kept is {self.checkpoints_kept!r}; give 1 or more.")


def checkpoint_bytes_hours(
    checkpoint_bytes: float, kept: int, every_hours: float, hours: float
) -> float:
    """Bytes × hours of checkpoints written every `every_hours` of a run of `hours`, the newest `kept` of them kept.

    The i-th is written at i·e and lies there until k more are written or the run ends: Σ min(k·e, T − i·e).
    """
    written = math.floor(hours / every_hours)
    whole = min(written, max(0, math.floor(hours / every_hours - kept)))
    rest = written - whole
    ages = rest * hours - every_hours * (written * (written + 1) - whole * (whole + 1)) / 2
    return checkpoint_bytes * (whole * kept * every_hours + max(ages, 0.0))
