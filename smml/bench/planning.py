"""How fast and how right the planner and the simulators of cost are: search, spot runs, goodput, published runs, queues."""

import time
from collections.abc import Callable, Iterator
from itertools import islice, product

import numpy as np

from smml.bench.computed import record as computed
from smml.bench.setting import Setting
from smml.cost.scaling import queueing
from smml.cost.scaling.queue_simulator import fixed
from smml.cost.spot.run import Market, SpotJob, expected, simulate as spot_runs
from smml.errors import UserError
from smml.measure import MIN_SAMPLES, Record, Timing, record
from smml.plan import communication, compute, goodput, step
from smml.plan.calibration import FITTED, OTHERS, compare, read_folder, summary
from smml.plan.cluster import cluster
from smml.plan.layout import Job
from smml.plan.search import candidates, search
from smml.plan.shape import named_shape

CANDIDATES, RUNS, REQUESTS, SEEDS = 10_000, 10_000, 500_000, range(MIN_SAMPLES)
# Sequences long enough to be cut among devices as well, so that there are layouts enough.
SEARCHED, SEARCHED_GPUS, SEQUENCE, BATCH = "llama-3.1-70b", 1024, 32_768, 2048
# Llama 3 405B (arXiv:2407.21783): its devices and storage; its rate of failures is the planner's own.
MODEL, GPUS = "llama-3.1-405b", 16_384
STORAGE_BYTES_PER_S, DETECTION_S, RESTART_S = 2e12, 60, 480
HOURS, INTERVALS, RATES = 100.0, (0.25, 1.0), (0.01, 0.1, 0.5)


def run(setting: Setting) -> Iterator[Record]:
    """Seconds of a search and of simulated spot runs on one core; the planner's errors; simulations ÷ closed forms."""
    place, job = cluster("h100", SEARCHED_GPUS), Job(named_shape(SEARCHED), SEQUENCE, BATCH)
    layouts = list(islice(candidates(place, job), CANDIDATES))
    if len(layouts) < CANDIDATES:
        raise UserError(f"{SEARCHED} on {SEARCHED_GPUS} has {len(layouts)} layouts: take more.")
    made = lambda: search(place, job, layouts=layouts)  # noqa: E731
    yield _timed(
        setting, "plan/search/seconds", made, {"candidates": len(layouts), "gpus": SEARCHED_GPUS}
    )
    interrupted, market = SpotJob(HOURS, 1.0, 60.0, 300.0), Market(10.0, 0.1)
    made = lambda: spot_runs(interrupted, market, runs=RUNS)  # noqa: E731
    yield _timed(setting, "spot/simulated-runs/seconds", made, {"runs": RUNS})
    yield from _errors(setting)
    yield from _goodput(setting)
    for rate, interval in product(RATES, INTERVALS):
        job, market = SpotJob(HOURS, interval, 60.0, 300.0), Market(10.0, rate)
        closed = expected(job, market).usd
        found = [spot_runs(job, market, runs=RUNS, seed=s).usd.mean / closed for s in SEEDS]
        name = f"spot/cost/simulated-to-closed-form/rate-{rate:g}/interval-{interval:g}"
        yield _ratio(setting, name, found)
    for servers in (1, 4):
        found = [_waits(servers, seed) for seed in SEEDS]
        yield _ratio(setting, f"queue/wait/simulated-to-closed-form/servers-{servers}", found)


def _timed(setting: Setting, name: str, call: Callable[[], object], inputs: dict) -> Record:
    call()
    samples = []
    for _ in SEEDS:
        _forget()
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return record(
        name,
        Timing(tuple(samples)),
        machine=setting.machine_id,
        source=setting.source,
        inputs=inputs,
    )


def _forget() -> None:
    """What the planner keeps between searches, so that each one is a first."""
    for kept in (one for part in (communication, compute, step) for one in vars(part).values()):
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()


def _errors(setting: Setting) -> Iterator[Record]:
    for folder in (FITTED, OTHERS):
        again = [summary(compare(read_folder(folder))) for _ in SEEDS]  # computed, so all alike
        for kind, (*_, rows) in again[0].items():
            for number, what in enumerate(("mean", "largest")):
                samples = [100 * one[kind][number] for one in again]
                name = f"plan/error/{folder}/{kind.replace(' ', '-')}/{what}"
                yield computed(setting, name, samples, None, "%", {"rows": rows})


def _goodput(setting: Setting) -> Iterator[Record]:
    mean = goodput.mean_time_between_failures_s(GPUS)
    pause = goodput.checkpoint_seconds(named_shape(MODEL).parameters, STORAGE_BYTES_PER_S)
    reliability = goodput.Reliability(mean, pause, DETECTION_S, RESTART_S)
    interval = goodput.daly_interval_s(reliability)
    closed = goodput.expected_goodput(reliability, interval)
    found = [goodput.simulate(reliability, interval, failures=4000, seed=s).goodput for s in SEEDS]
    inputs = {"devices": GPUS, "interval_s": interval, "checkpoint_s": pause}
    shares = [100 * one for one in found]
    yield computed(setting, "plan/goodput/llama-3", shares, 100 * closed, "%", inputs)
    yield _ratio(setting, "plan/goodput/simulated-to-closed-form", [one / closed for one in found])


def _waits(servers: int, seed: int) -> float:
    """Mean wait of a simulated M/M/c ÷ Erlang's, at the load that the drawn requests really have."""
    generator = np.random.default_rng(seed)
    arrived = np.cumsum(generator.exponential(1.0, REQUESTS))
    served = generator.exponential(0.6 * servers, REQUESTS)
    closed = queueing.mean_wait_s(REQUESTS / arrived[-1], served.mean(), servers)
    return fixed(arrived, served, servers).wait_s.mean() / closed


def _ratio(setting: Setting, name: str, samples: list[float]) -> Record:
    return computed(setting, name, samples, None, "×", {})
