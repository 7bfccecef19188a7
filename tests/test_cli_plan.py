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


def test_a_report_is_written_and_a_folder_of_others_refused(smml, tmp_path):
    folder = tmp_path / "report"
    shown = smml("plan", "llama-3.2-1b", "8", "--tokens", "1e10", "--report", str(folder))
    assert shown.returncode == 0, shown.stderr
    assert f"report  {folder / 'index.md'}" in shown.stdout
    assert (folder / "cost.md").read_text().splitlines()[2].startswith("# Cost: ")
    (folder / "mine.txt").write_text("mine")
    refused = smml("plan", "llama-3.2-1b", "8", "--report", str(folder))
    assert refused.returncode == 2
    assert "holds mine.txt" in refused.stderr
    assert refused.stdout == ""
