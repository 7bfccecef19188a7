"""The bench of planner and simulators: what it records are errors, ratios and seconds of what it says."""

from smml.bench import planning
from smml.bench.figures import COSTS, judge


def test_records_decide_every_figure_of_cost(setting, monkeypatch):
    monkeypatch.setattr(planning, "CANDIDATES", 50)
    monkeypatch.setattr(planning, "RUNS", 2000)
    monkeypatch.setattr(planning, "REQUESTS", 200_000)
    monkeypatch.setattr(planning, "RATES", (0.1,))
    records = {record.name: record for record in planning.run(setting)}
    timed = ("plan/search/seconds", "spot/simulated-runs/seconds")
    assert records[timed[0]].inputs["candidates"] == 50
    assert all(records[name].unit == "s" for name in timed)
    reached = judge(records.values(), [f for f in COSTS if "(s)" not in f.name])
    assert {one.verdict for one in reached} == {"reached"}
    assert records["plan/error/published_runs/step-time/mean"].inputs["rows"] > 100


def test_a_search_starts_from_nothing(setting):
    from smml.plan import compute
    from smml.plan.cluster import cluster
    from smml.plan.layout import Job
    from smml.plan.search import search
    from smml.plan.shape import named_shape

    search(cluster("h100", 8), Job(named_shape("llama-3.1-8b"), 2048, 64))
    assert compute.layer_pass.cache_info().currsize
    planning._forget()
    assert not compute.layer_pass.cache_info().currsize
