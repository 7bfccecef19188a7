"""Checks of money against prices with a source: what dollars buy, what staying on costs, what a discount is."""

from itertools import pairwise
from statistics import median

from smml.cost.audit.checks import WORDS, Finding, Given, check
from smml.cost.audit.physics import held, text_tokens, tokens_for
from smml.cost.decisions.decision import HOURS_PER_MONTH, dollars, hourly
from smml.cost.decisions.standing import barred
from smml.data import instances, limits
from smml.data.prices import price
from smml.data.spot_history import spot_history
from smml.errors import UserError
from smml.plan.shape import named_shape


@check("token", model=WORDS, usd="USD", instance=WORDS, mfu="1")
def training_tokens_for_dollars(
    claimed: float, model: str, usd: float, instance: str, mfu: float | None = None
) -> Finding:
    """How many tokens the money trains on: at 100 % of the peak, at a realistic share, and on the best type there is."""
    shape, entry = named_shape(model), held(instance)
    realistic = limits.limit("model_flops_utilization").value if mfu is None else mfu
    if not 0 < realistic <= 1:
        raise UserError(f"mfu is {realistic:g}; it is a share: give 0 < mfu <= 1")
    full = tokens_for(shape, usd, entry, 1.0)
    if full is None:
        return Finding(
            "not checkable", f"an instance that trains and has a price; {instance} does not"
        )
    others = {
        name: tokens
        for name, one in instances().items()
        if barred(one) is None and (tokens := tokens_for(shape, usd, one, 1.0)) is not None
    }
    best = max(others, key=others.__getitem__)
    paid, bill = entry.price_usd_per_hour, usd * claimed / (full * realistic)
    said = (
        f"{dollars(usd)} ÷ {hourly(paid.value)} ({instance}, {paid.date}) = {usd / paid.value:,.0f} h; at 6N FLOPs a token "
        f"{text_tokens(full)} at 100 % of the peak, {text_tokens(full * realistic)} at {realistic:.0%}. The claim takes "
        f"{claimed / full:,.3g} times the former and costs {dollars(bill)} at the latter. No type of the catalogue buys "
        f"more than {text_tokens(others[best])} ({best}, 100 %)"
    )
    if claimed > others[best]:
        return Finding("physically impossible", said, full)
    return Finding(
        "agrees" if claimed <= full * realistic else "contradicts", said, full * realistic
    )


@check("USD/month", instance=WORDS, instances="1", hours="h", region=WORDS, kind=WORDS)
def always_on(
    claimed: float,
    instance: str,
    instances: float = 1,
    hours: float = HOURS_PER_MONTH,
    region: str = "us-east-1",
    kind: str = "on-demand",
) -> Finding:
    """What `instances` of a type cost a month when each is up for `hours` of it; a bill may be higher, not lower."""
    held(instance)
    try:
        found = price(instance, region, kind)
    except UserError as error:
        return Finding("not checkable", f"a price with a source: {error}")
    bill = instances * hours * found.value
    said = (
        f"{instances:,.0f} × {hourly(found.value)} ({instance}, {kind}, {region}, {found.date}) × {hours:,.0f} h = "
        f"{dollars(bill)} a month; {dollars(claimed)} pay for {claimed / (instances * found.value):,.0f} h"
    )
    verdict = "agrees" if claimed >= bill * 0.99 else "contradicts"
    return Finding(verdict, said, bill, (f"the price of {instance}",))


@check("1", item=WORDS, kind=WORDS, region=WORDS)
def discount(claimed: float, item: str, kind: str, region: str = "us-east-1") -> Finding:
    """1 − price of that kind ÷ price on demand, from the dated snapshot; of spot the median of the recorded zones."""
    try:
        full = price(item, region)
        if kind == "spot":
            zones = [row.price for row in spot_history(item, region)]
            if not zones:
                raise UserError(f"no spot price of {item} in {region} was recorded")
            less, date = median(zone.value for zone in zones), max(zone.date for zone in zones)
        else:
            less, date = price(item, region, kind).value, price(item, region, kind).date
    except UserError as error:
        return Finding("not checkable", f"a price with a source: {error}")
    share = 1 - less / full.value
    how = f"{kind}, median of {len(zones)} recorded zones" if kind == "spot" else kind
    said = (
        f"{item}, {region}: {how} {hourly(less)} ({date}), on demand {hourly(full.value)} ({full.date}): "
        f"1 − {less:.4g} ÷ {full.value:.4g} = {share:.0%}"
    )
    return Finding(None, said, share, (f"the price of {item}",))


@check("USD/month", loads="request/month[]", costs="USD/month[]", explained_by="1")
def monotone(
    claimed: float, loads: list[Given], costs: list[Given], explained_by: float = 0.0
) -> Finding:
    """Whether a larger load costs no less than a smaller one: what carries the larger carries the smaller too.

    `explained_by` is a discount that only the larger scale can have (a volume price); one open to all explains nothing.
    """
    if len(loads) != len(costs) or len(loads) < 2:
        raise UserError(
            f"check.monotone has {len(loads)} loads and {len(costs)} costs: give two or more, as many of each"
        )
    if explained_by >= 1 or min(loads) <= 0 or min(costs) <= 0:
        raise UserError("check.monotone: loads and costs must be above 0 and explained_by below 1")
    rows = sorted(zip(loads, costs, strict=True))
    for (small, low), (large, high) in pairwise(rows):
        if high < low * (1 - explained_by):
            said = (
                f"{large:,.0f} requests/month for {dollars(high)}, but {small:,.0f} for {dollars(low)}: what carries "
                f"{large / small:,.3g} times the load carries the smaller one too, so that costs {dollars(high)} at most. "
                f"A request would cost {dollars(low / small)} and then {dollars(high / large)}, "
                f"{low / small / (high / large):.3g} times less"
            )
            named = tuple(one.text for one in (low, high) if one.text)
            return Finding("contradicts", said, low * (1 - explained_by), named)
    listed = ", ".join(f"{load:,.0f} → {dollars(cost)}" for load, cost in rows)
    return Finding("agrees", f"costs rise with load: {listed}")
