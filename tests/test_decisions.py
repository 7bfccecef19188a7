"""Decisions as notebooks show them: every reason and rejection, no accidental formula, every price on the axes."""

from smml.cost.decisions.decision import Decision, Price, Rejected
from smml.cost.decisions.workload import Workload
from smml.course.decisions import compared, counted, explained, prices_over_volume

DECISION = Decision(
    "2 × g6.xlarge",
    ["GPU is the cheapest that does it."],
    [Rejected("cpu", "c5 costs $10 instead of $2", True), Rejected("g4ad", "withdrawn")],
    Price(2.0, "month"),
)


def test_a_decision_shows_choice_price_reasons_and_rejections():
    text = explained(DECISION).data
    assert text.startswith(r"**Choice: 2 × g6.xlarge**, \$2.00 a month.")
    assert "- GPU is the cheapest" in text
    assert r"| CPU | yes | c5 costs \$10 instead of \$2 |" in text
    assert "| g4ad | no | withdrawn |" in text
    assert "$" not in text.replace(r"\$", "")


def test_only_the_rejections_asked_for_are_shown():
    assert "g4ad" not in explained(DECISION, ("cpu",)).data
    assert "rejected" not in explained(DECISION, ()).data


def test_without_a_choice_the_reasons_stand_alone():
    text = explained(Decision(None, ["Over budget."])).data
    assert text == "**Choice: none**.\n\n- Over budget."


SERVICE = Workload("real-time inference", 1e8, tokens_per_s=100, average_load=0.5, batch_size=8)


def test_what_a_service_asks_for_is_counted():
    text = counted(SERVICE).data
    for figure in ("100 M", "200 MFLOP", "1.6 GFLOP", "200 MB", "8 FLOP/byte", "131 Mtokens"):
        assert f"| {figure} |" in text, figure


def test_each_workload_shows_every_kind_and_marks_the_choice():
    hopeless = Workload("real-time inference", 1e8, tokens_per_s=100, latency_s=1e-9)
    first, second = compared({"easy": SERVICE, "hopeless": hopeless}).data.splitlines()[2:]
    cpu, gpu, neuron = first.split(" | ")[1:]
    assert cpu.startswith(r"**2 × t3.small**, \$")
    assert gpu.startswith("1 × g")
    assert neuron.startswith("1 × inf2.xlarge")
    assert second.count("latency unreachable") == 2
    assert "**" not in second


def test_every_known_price_is_drawn():
    figure = prices_over_volume([1, 10, 100], {"cpu": [1, 5, 50], "gpu": [None, 9, 9]}, "t")
    axis = figure.axes[0]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    assert drawn == {"CPU": [1, 10, 100], "GPU": [10, 100]}
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert "USD a month" in axis.get_ylabel()
    assert len({line.get_linestyle() for line in axis.lines}) == 2
