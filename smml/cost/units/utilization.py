"""USD per GPU-hour USED: what an hour costs is the price list's; how much of it counts is yours."""

import math
from dataclasses import dataclass

from smml.cost.units.bill import Bill
from smml.cost.units.unit_economics import Job
from smml.errors import UserError


@dataclass(frozen=True)
class PaidHours:
    """One hour of a fleet, and what shares of it are used. Raises UserError naming the field.

    usd_per_hour    of all devices together
    devices         that are paid for: accelerators, or instances where they have none
    devices_in_use  of them that run a rank
    duty_cycle      share of the hour in which a job runs (a service: in which a token is being made)
    goodput         share of the job's time that counts: failures, checkpoints and repeated work left out
    """

    usd_per_hour: float
    devices: int
    devices_in_use: int
    duty_cycle: float = 1.0
    goodput: float = 1.0

    def __post_init__(self) -> None:
        if not (self.usd_per_hour >= 0 and math.isfinite(self.usd_per_hour)):
            raise UserError(f"usd_per_hour is {self.usd_per_hour!r}; give 0 or more.")
        for name in ("devices", "devices_in_use"):
            if not getattr(self, name) >= 1:
                raise UserError(f"{name} is {getattr(self, name)!r}; give a number of 1 or more.")
        if self.devices_in_use > self.devices:
            raise UserError(
                f"devices_in_use is {self.devices_in_use} and devices is {self.devices}; no more can be used than paid."
            )
        for name in ("duty_cycle", "goodput"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; it is a share: give above 0, at most 1."
                )

    @classmethod
    def of(cls, job: Job, *, duty_cycle: float = 1.0, goodput: float = 1.0) -> "PaidHours":
        """The hours of a job: its accelerators and ranks, or its instances where these have no accelerators.

        Raises UserError where the number of accelerators is not known.
        """
        if job.accelerators is None:
            unknown = [group.type for group in job.instances if group.accelerators is None]
            raise UserError(
                f"instances: how many accelerators {', '.join(unknown)} has is not known; give PaidHours its devices."
            )
        if job.accelerators:
            held, used = job.accelerators, job.world_size
        else:
            held = used = sum(group.count for group in job.instances)
        return cls(job.usd_per_hour, held, used, duty_cycle, goodput)

    @property
    def used(self) -> float:
        """Share of the paid device-hours that counts."""
        return self.devices_in_use / self.devices * self.duty_cycle * self.goodput

    @property
    def usd_per_device_hour_paid(self) -> float:
        """What the invoice says: price ÷ devices."""
        return self.usd_per_hour / self.devices

    @property
    def usd_per_device_hour_used(self) -> float:
        """What a device-hour costs that counts: price ÷ (devices × used)."""
        return self.usd_per_device_hour_paid / self.used

    @property
    def bill(self) -> Bill:
        """Where the hour's USD go: used; lost to failures; jobs that do not run; devices that no rank uses."""
        allocated = self.usd_per_hour * self.devices_in_use / self.devices
        running = allocated * self.duty_cycle
        return Bill(
            {
                "used": running * self.goodput,
                "failures": running * (1 - self.goodput),
                "idle time": allocated * (1 - self.duty_cycle),
                "idle devices": self.usd_per_hour * (1 - self.devices_in_use / self.devices),
            }
        )
