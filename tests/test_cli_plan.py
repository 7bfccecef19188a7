"""`smml plan` as a reader calls it."""


def test_a_plan_is_printed_and_bad_input_named(smml):
    shown = smml("plan", "llama-3.1-8b", "8", "--tensor-parallel", "2")
    assert shown.returncode == 0, shown.stderr
    for part in ("layout:", "tp2", "memory  [", "MFU", "what would help most"):
        assert part in shown.stdout
    refused = smml("plan", "llama-9b")
    assert refused.returncode == 2
    assert "model is 'llama-9b'" in refused.stderr


def test_errors_of_the_calibration_stay_within_their_figures(smml):
    shown = smml("plan", "--errors")
    assert shown.returncode == 0, shown.stderr
    assert "gpt-1t" in shown.stdout
    assert "step time: mean error" in shown.stdout
