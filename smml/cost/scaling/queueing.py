"""How long requests wait for one of c servers, in closed form: Erlang B and C, M/M/c quantiles, Pollaczek–Khinchine.

Requests arrive at random (Poisson) and are served in their order. Rates in requests a second, times in s.
Source of the formulas: L. Kleinrock, Queueing Systems, volume 1, 1975, sections 3.5, 3.6 and 5.6.
"""

import math
from collections.abc import Sequence

from smml.errors import UserError


def offered_load(rate_per_s: float, service_s: float) -> float:
    """Servers that are busy on average, in erlangs: rate × mean service time. Raises UserError if either is not positive."""
    for name, value in (("rate_per_s", rate_per_s), ("service_s", service_s)):
        if not value > 0:
            raise UserError(f"{name} is {value!r}; give a number above 0.")
    return rate_per_s * service_s


def erlang_b(servers: int, load: float) -> float:
    """Share of requests that find all servers busy where nobody waits; `load` in erlangs."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """Probability that a request must wait in M/M/c. Raises UserError where the servers cannot carry the load."""
    if not load < servers:
        raise UserError(
            f"{servers} servers cannot carry a load of {load:g} erlangs: the queue would grow for ever. "
            f"Give {math.floor(load) + 1} or more."
        )
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked))


def mean_wait_s(rate_per_s: float, service_s: float, servers: int) -> float:
    """Mean wait before service in M/M/c: C ÷ (c/S − λ)."""
    waiting = erlang_c(servers, offered_load(rate_per_s, service_s))
    return waiting / (servers / service_s - rate_per_s)


def mean_wait_one_server_s(rate_per_s: float, service_s: float, variation: float) -> float:
    """Mean wait in M/G/1; `variation` is the service time's variance over its mean squared: 0 in M/D/1, 1 in M/M/1."""
    load = offered_load(rate_per_s, service_s)
    erlang_c(1, load)  # raises where one server cannot carry the load
    return (1 + variation) / 2 * load * service_s / (1 - load)


def wait_quantile_s(quantile: float, rate_per_s: float, service_s: float, servers: int) -> float:
    """Wait that the share `quantile` of requests does not exceed in M/M/c: P(W > t) = C·exp(−(c/S − λ)·t)."""
    waiting = erlang_c(servers, offered_load(rate_per_s, service_s))
    longer = 1 - _share(quantile)
    return max(0.0, math.log(waiting / longer) / (servers / service_s - rate_per_s))


def response_quantile_s(
    quantile: float, rate_per_s: float, service_s: float, servers: int
) -> float:
    """Wait and service that the share `quantile` of requests does not exceed in M/M/c, by bisection."""
    return day_response_quantile_s(quantile, [rate_per_s], service_s, [servers])


def day_response_quantile_s(
    quantile: float, rates_per_s: Sequence[float], service_s: float, servers: Sequence[int]
) -> float:
    """The same of all requests of a day, from its rate and its servers in each of N equal parts.

    Each part is taken as if it lasted for ever: the pointwise stationary approximation (L. Green and P. Kolesar,
    Management Science 37(1), 1991), good where the load changes slowly against the service. Raises UserError where a
    part's servers cannot carry its load.
    """
    longer = 1 - _share(quantile)
    waiting = [
        erlang_c(count, offered_load(rate, service_s))
        for rate, count in zip(rates_per_s, servers, strict=True)
    ]
    parts = list(zip(rates_per_s, servers, waiting, strict=True))
    total = sum(rates_per_s)

    def exceed(time_s: float) -> float:
        return sum(
            rate * _exceeds(time_s, rate, service_s, count, wait) for rate, count, wait in parts
        )

    low, high = 0.0, service_s
    while exceed(high) > longer * total:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if exceed(middle) > longer * total else (low, middle)
    return high


def fewest_servers(
    rate_per_s: float, service_s: float, target_s: float, quantile: float = 0.99
) -> int:
    """Fewest servers in M/M/c whose `quantile` of wait and service stays within `target_s`.

    Raises UserError where service alone takes longer.
    """
    alone = -service_s * math.log(1 - _share(quantile))
    if alone >= target_s:
        raise UserError(
            f"target_s is {target_s:g}, and the p{100 * quantile:g} of service alone is {alone:.3g} s: no number of "
            "servers will do. Allow more time, or serve faster."
        )
    servers = math.floor(offered_load(rate_per_s, service_s)) + 1
    while response_quantile_s(quantile, rate_per_s, service_s, servers) > target_s:
        servers += 1
    return servers


def _exceeds(
    time_s: float, rate_per_s: float, service_s: float, servers: int, waiting: float
) -> float:
    """Share of requests whose wait and service take longer than `time_s` in M/M/c."""
    work, drain = 1 / service_s, servers / service_s - rate_per_s
    own = math.exp(-work * time_s)
    # The wait is exponential too; where both rates agree the sum of the two is an Erlang-2 time.
    if abs(drain - work) < 1e-9 * work:
        both = (1 + work * time_s) * own
    else:
        both = (drain * own - work * math.exp(-drain * time_s)) / (drain - work)
    return (1 - waiting) * own + waiting * both


def _share(quantile: float) -> float:
    if not 0 < quantile < 1:
        raise UserError(f"quantile is {quantile!r}; give a share between 0 and 1, such as 0.99.")
    return quantile
