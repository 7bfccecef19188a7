"""USD per million input, output and cached input tokens: one hour's bill split by the seconds that each of them takes.

A machine is rented by the hour, and sold by the token. Whoever takes more of its seconds carries more of its price: a
token that is read shares one pass with its whole prompt (FLOPs), a token that is written waits for a step of its own
(bytes), and one that was read before is only looked up, and pays rent for the memory that keeps it. The three prices times
the hour's traffic are the hour's bill, whatever stood idle.
"""

import math
from dataclasses import dataclass

from smml.errors import UserError

HOUR_S = 3600


@dataclass(frozen=True)
class Traffic:
    """Tokens of one hour, each counted once: read anew, written, and found in the cache. Raises UserError."""

    input_tokens: float
    output_tokens: float
    cached_input_tokens: float = 0

    def __post_init__(self) -> None:
        _not_negative(**vars(self))
        if not any(vars(self).values()):
            raise UserError(
                "input_tokens, output_tokens and cached_input_tokens are 0: an hour without tokens has a bill and "
                "nobody to carry it; give the tokens of an hour with traffic."
            )

    @property
    def tokens(self) -> float:
        """All of them."""
        return self.input_tokens + self.output_tokens + self.cached_input_tokens


@dataclass(frozen=True)
class TokenSeconds:
    """Seconds of one server (a model replica) that one token takes, of each kind. Raises UserError naming the field.

    input_s   of reading: the pass over the prompts ÷ their tokens
    output_s  of writing: a step ÷ the sequences in it
    cached_s  of looking up: the keys and values of one token brought to where they are used
    """

    input_s: float
    output_s: float
    cached_s: float = 0

    def __post_init__(self) -> None:
        _positive(input_s=self.input_s, output_s=self.output_s)
        _not_negative(cached_s=self.cached_s)

    def of(self, traffic: Traffic) -> float:
        """Seconds that all tokens of an hour take on one server."""
        return (
            traffic.input_tokens * self.input_s
            + traffic.output_tokens * self.output_s
            + traffic.cached_input_tokens * self.cached_s
        )


@dataclass(frozen=True)
class TokenPrices:
    """USD per million tokens of each kind, and the share of the paid time in which a token was being made."""

    input_usd_per_million: float
    output_usd_per_million: float
    cached_usd_per_million: float
    utilization: float

    def usd(self, traffic: Traffic) -> float:
        """What this traffic costs at these prices; of the traffic that they were made for, the hour's whole bill."""
        paid = (
            traffic.input_tokens * self.input_usd_per_million
            + traffic.output_tokens * self.output_usd_per_million
            + traffic.cached_input_tokens * self.cached_usd_per_million
        )
        return paid / 1_000_000


def token_prices(
    usd_per_hour: float,
    traffic: Traffic,
    seconds: TokenSeconds,
    *,
    servers: int = 1,
    cache_memory_share: float = 0,
) -> TokenPrices:
    """Prices under which one hour's traffic pays that hour's whole bill, `usd_per_hour` of all `servers` together.

    Cached tokens alone pay `cache_memory_share` of the bill, the share of the memory that is kept for them; the rest is
    split by seconds. Raises UserError where a field is impossible and where the traffic takes more than the hour has.
    """
    _positive(servers=servers)
    _not_negative(usd_per_hour=usd_per_hour)
    if not 0 <= cache_memory_share < 1:
        raise UserError(
            f"cache_memory_share is {cache_memory_share!r}; it is a share: give 0 or more and below 1."
        )
    cached = traffic.cached_input_tokens
    if cache_memory_share and not cached:
        raise UserError(
            f"cache_memory_share is {cache_memory_share!r} and cached_input_tokens is 0: nobody pays for that memory; "
            "give the tokens that were found in it, or no share."
        )
    busy = seconds.of(traffic)
    if busy > servers * HOUR_S:
        raise UserError(
            f"the traffic of an hour takes {busy:,.0f} s and servers is {servers}, which have {servers * HOUR_S:,} s; "
            f"give {servers_needed(traffic, seconds)} servers, with their price, or less traffic."
        )
    rent = usd_per_hour * cache_memory_share
    # A cache that is read in no time leaves nothing to divide where only cached tokens came: then all is rent.
    a_second = (usd_per_hour - rent) / busy if busy else 0
    if not busy:
        rent = usd_per_hour
    million = 1_000_000
    return TokenPrices(
        a_second * seconds.input_s * million,
        a_second * seconds.output_s * million,
        (a_second * seconds.cached_s + (rent / cached if cached else 0)) * million,
        busy / (servers * HOUR_S),
    )


def servers_needed(traffic: Traffic, seconds: TokenSeconds, most_utilization: float = 1) -> int:
    """Fewest servers that make an hour's tokens in an hour, each busy for `most_utilization` of it at most.

    Whoever waits in a queue wants it below 1. Raises UserError naming the field.
    """
    if not 0 < most_utilization <= 1:
        raise UserError(
            f"most_utilization is {most_utilization!r}; it is a share: give above 0, at most 1."
        )
    return max(1, math.ceil(seconds.of(traffic) / (HOUR_S * most_utilization)))


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} is {value!r}; give a number above 0.")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"{name} is {value!r}; give 0 or more.")
