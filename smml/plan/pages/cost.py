"""The cost: USD by part, a run and a million tokens, whose price, other offers, and how far off all that may be. Pure."""

from smml.data import Quantity
from smml.data.prices import prices
from smml.plan.amounts import GIB, count, usd
from smml.plan.budget import DAY_S, budget
from smml.plan.calibration import OTHERS, compare, read_folder, summary
from smml.plan.pages.table import table
from smml.plan.planning import Plan
from smml.plan.price import REGION

STORAGE = "s3/standard/storage"
KEPT = 2  # the checkpoint before stays until the newest is whole
MONTH_S = 365.25 / 12 * DAY_S


def cost(plan: Plan) -> str:
    """The page as Markdown."""
    spent = plan.budget
    return "\n\n".join(
        (
            f"# Cost: {usd(spent.usd)}",
            _price(plan),
            "## By part",
            table(("what", "USD"), [(what, usd(amount)) for what, amount in parts(plan)]),
            *_storage_source(),
            "## By token",
            _by_token(plan),
            "## Other offers",
            _offers(plan),
            "## What would save most",
            _savings(plan),
            "## How far off",
            _error(plan),
        )
    )


def parts(plan: Plan) -> list[tuple[str, float | None]]:
    """USD by what it is spent on; None where no price is known. What has a price adds up to the run's bill and storage."""
    spent, place = plan.budget, plan.step.cluster
    pauses = spent.training_s / plan.interval_s * plan.reliability.checkpoint_s
    shares = {
        "steps that count": spent.training_s,
        "checkpoints' pauses": pauses,
        "failures: lost work, detection, restart": spent.wall_s - spent.training_s - pauses,
    }
    working = None if spent.usd is None else spent.usd * place.gpus / place.billed_gpus
    found = [
        (what, None if working is None else working * seconds / spent.wall_s)
        for what, seconds in shares.items()
    ]
    if place.billed_gpus > place.gpus:
        idle = None if working is None else spent.usd - working
        found.append(("accelerators paid for and idle", idle))
    found.append((f"storage of {KEPT} checkpoints", storage_usd(plan)))
    return found


def storage_usd(plan: Plan) -> float | None:
    """USD of keeping KEPT checkpoints in object storage while the run lasts; None where no price is known."""
    price = _storage_price()
    if price is None:
        return None
    # AWS bills storage by 2^30 bytes and writes GB.
    return KEPT * plan.checkpoint_bytes / GIB * price.value * plan.budget.wall_s / MONTH_S


def _storage_price() -> Quantity | None:
    rows = prices(region=REGION, kind="on-demand")
    return next((row.price for row in rows if row.item == STORAGE), None)


def _storage_source() -> list[str]:
    price = _storage_price()
    if price is None:
        return []
    return [f"Storage: {STORAGE} in {REGION}, [{price.source}]({price.url}), {price.date}."]


def _price(plan: Plan) -> str:
    place, spent = plan.step.cluster, plan.budget
    rows = [("accelerators paid for", f"{place.billed_gpus:,}")]
    if place.price_usd_per_gpu_hour is None:
        rows.append(("an accelerator-hour", "no price given"))
    else:
        rows.append(("an accelerator-hour", f"{place.price_usd_per_gpu_hour:,.4g} USD"))
    if plan.offer is not None:
        rows += [
            ("offer", str(plan.offer)),
            ("source", f"[{plan.offer.source}]({plan.offer.url})"),
            ("date", str(plan.offer.date)),
        ]
    elif place.price_usd_per_gpu_hour is not None:
        rows.append(("source", "as given to the plan"))
    rows.append(("accelerator-hours paid for", f"{spent.billed_gpu_hours:,.0f}"))
    rows.append(("the accelerators of the run", usd(spent.usd)))
    return table(("", ""), rows)


def _by_token(plan: Plan) -> str:
    spent = plan.budget
    price = spent.usd_per_million_tokens
    rows = [
        ("tokens", count(spent.tokens)),
        ("a million tokens", "no price given" if price is None else f"{price:.4g} USD"),
    ]
    return table(("", ""), rows)


def _offers(plan: Plan) -> str:
    if not plan.offers:
        return "No price of this accelerator has a source."
    worst = summary(compare(read_folder()))["step time"][1]
    rows = []
    for offer in plan.offers:
        place = plan.step.cluster.at_price(offer.usd_per_gpu_hour, offer.accelerators)
        amount = budget(plan.step.on(place), plan.budget.tokens, plan.goodput).usd
        rows.append(
            (
                f"[{offer}]({offer.url})",
                f"{offer.usd_per_gpu_hour:,.4g}",
                f"{amount:,.0f}",
                f"{amount * (1 - worst):,.0f} to {amount * (1 + worst):,.0f}",
                str(offer.date),
            )
        )
    headers = (
        "offer",
        "USD an accelerator-hour",
        "USD the run",
        "± the planner's error",
        "read for",
    )
    note = "The step is that of the planned cluster; spot adds interruptions of its own, which are not in these figures."
    return table(headers, rows) + "\n\n" + note


def _savings(plan: Plan) -> str:
    if not plan.advice:
        return "Nothing that was tried shortens the step."
    rows = [
        (
            c.what,
            f"{c.saved:.1%}",
            usd(None if plan.budget.usd is None else plan.budget.usd * c.saved),
        )
        for c in plan.advice
    ]
    return table(("change, each alone", "of the step", "of the bill, at the same price"), rows)


def _error(plan: Plan) -> str:
    mean, worst, count_ = summary(compare(read_folder()))["step time"]
    further, most, others = summary(compare(read_folder(OTHERS)))["step time"]
    if plan.budget.usd is None:
        return f"The step may be {mean:.1%} off in the mean, {worst:.1%} at most, on {count_} published steps; no price given."
    return (
        f"On {count_} published steps the planner is {mean:.1%} off in the mean and {worst:.1%} at most: "
        f"{usd(plan.budget.usd * (1 - worst))} to {usd(plan.budget.usd * (1 + worst))}. On {others} others "
        f"it is {further:.1%} off in the mean and {most:.0%} at most."
    )
