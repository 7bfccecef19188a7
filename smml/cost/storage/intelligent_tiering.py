"""S3 Intelligent-Tiering day by day: in which of its access tiers objects lie that are read now and then."""

import numpy as np
from numpy.typing import NDArray

from smml.data.service_rules import rule

# As the price list names them; the two that must be activated and restored from are left out.
TIERS = ("frequent", "infrequent", "archive-instant")


def is_monitored(bytes_each: float) -> bool:
    """Whether an object is watched, moved and charged for it; a smaller one stays frequent."""
    return bytes_each >= rule("s3_tiering_minimum_size").value


def tier_shares(reads_per_day: NDArray[np.float64], bytes_each: float) -> NDArray[np.float64]:
    """Share of the objects in each tier on each day of their life, [days] → [days, 3] as `TIERS`.

    Reads of a day are Poisson, independent of each other; what was read is frequent again. The days since the last
    access are followed exactly, as a distribution; the upload counts as an access.
    """
    days = len(reads_per_day)
    shares = np.zeros((days, len(TIERS)))
    if not is_monitored(bytes_each):
        shares[:, 0] = 1.0
        return shares
    infrequent = int(rule("s3_tiering_infrequent_after").value)
    archive = int(rule("s3_tiering_archive_instant_after").value)
    idle = np.zeros(days + 1)  # share of the objects by days without access before this one
    idle[0] = 1.0
    for day, reads in enumerate(reads_per_day):
        shares[day] = idle[:infrequent].sum(), idle[infrequent:archive].sum(), idle[archive:].sum()
        untouched = np.exp(-reads)
        idle[1:] = idle[:-1] * untouched
        idle[0] = 1 - untouched
    return shares
