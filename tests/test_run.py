"""The runner: failures do not stop the rest, interruptions lose nothing, copies are whole, profiles are checked."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from tiny_course import add_notebook

from smml.course import notebook as files
from smml.course.run import Options, executed, run
from smml.course.state import load
from smml.errors import UserError

APPEND = "from pathlib import Path\nwith Path({!r}).open('a') as f: f.write('ran ')"


def course(root: Path) -> list[files.Notebook]:
    return files.find(root)


def outputs(path: Path) -> str:
    node = nbformat.read(path, as_version=4)
    return " ".join(
        o.get("text", "") for c in node.cells if c.cell_type == "code" for o in c.outputs
    )


def test_a_failing_notebook_leaves_copy_and_traceback_and_stops_no_other(tmp_path):
    add_notebook(tmp_path, "01_good", "print('profile is', profile)")
    add_notebook(
        tmp_path, "02_bad", "print('before')", "raise ValueError('the reason')", "print('after')"
    )
    add_notebook(tmp_path, "03_good", "print(2 + 2)")
    state = run(course(tmp_path), Options(jobs=2))
    statuses = {name: o.status for name, o in state.notebooks.items()}
    assert statuses == {
        "00_module/01_good": "passed",
        "00_module/02_bad": "failed",
        "00_module/03_good": "passed",
    }
    assert "ValueError: the reason" in state.notebooks["00_module/02_bad"].error
    bad = executed("00_module/02_bad")
    assert "before" in outputs(bad)
    assert "after" not in outputs(bad)
    assert "the reason" in bad.with_suffix(".traceback.txt").read_text()
    assert "profile is auto" in outputs(executed("00_module/01_good"))
    assert load() == state
    assert state.finished


def busy(file: Path, until: int, message: str) -> tuple[str, str]:
    """Cells that count their executions in `file`, and assert that it is not the first few."""
    return APPEND.format(str(file)), (
        f"runs = Path({str(file)!r}).read_text().count('ran')\nassert runs >= {until}, {message!r}"
    )


def test_a_time_out_of_its_band_is_measured_again_but_not_for_ever(tmp_path, capsys):
    add_notebook(tmp_path, "01_busy", *busy(tmp_path / "busy", 2, "too far off: Run again"))
    add_notebook(tmp_path, "02_slow", *busy(tmp_path / "slow", 9, "too far off: run again"))
    add_notebook(tmp_path, "03_wrong", *busy(tmp_path / "wrong", 9, "the count is wrong"))
    found = run(course(tmp_path), Options()).notebooks
    assert [o.status for o in found.values()] == ["passed", "failed", "failed"]
    assert "run again" in found["00_module/02_slow"].error
    times = [(tmp_path / name).read_text().count("ran") for name in ("busy", "slow", "wrong")]
    assert times == [2, 3, 1]
    assert "01_busy, attempt 2" in capsys.readouterr().out
    assert not executed("00_module/01_busy").with_suffix(".traceback.txt").exists()


def test_a_mended_notebook_loses_its_traceback(tmp_path):
    add_notebook(tmp_path, "01_x", "1 / 0")
    run(course(tmp_path), Options())
    trace = executed("00_module/01_x").with_suffix(".traceback.txt")
    assert trace.exists()
    add_notebook(tmp_path, "01_x", "1 / 1")
    run(course(tmp_path), Options())
    assert not trace.exists()


def test_the_profile_is_injected_only_when_asked_for(tmp_path):
    add_notebook(tmp_path, "01_x", "print('profile', profile)")
    run(course(tmp_path), Options(profile="cpu"))
    assert "profile cpu" in outputs(executed("00_module/01_x"))


@pytest.mark.parametrize(
    ("profile", "named"), [("tpu", "allowed are auto, cpu, gpu"), ("gpu", "profile=auto")]
)
def test_a_profile_that_cannot_run_is_refused_before_anything_runs(tmp_path, profile, named):
    from smml.hardware import detect

    if profile == "gpu" and detect().gpus:
        profile = "cluster"
    marker = tmp_path / "marker"
    add_notebook(tmp_path, "01_x", APPEND.format(str(marker)))
    with pytest.raises(UserError, match=named):
        run(course(tmp_path), Options(profile=profile))
    assert not marker.exists()


def test_a_notebook_without_parameters_fails_with_what_to_do_and_the_rest_runs(tmp_path):
    add_notebook(tmp_path, "01_x", "print(1)", parameters=False)
    add_notebook(tmp_path, "02_y", "print(1)")
    state = run(course(tmp_path), Options())
    assert "tagged `parameters`" in state.notebooks["00_module/01_x"].error
    assert state.notebooks["00_module/02_y"].status == "passed"


def test_a_file_that_is_no_notebook_fails_with_its_name(tmp_path):
    add_notebook(tmp_path, "01_x", "print(1)").write_text('{"cells": [')
    add_notebook(tmp_path, "02_y", "print(1)")
    state = run(course(tmp_path), Options())
    assert "01_x.ipynb is not a notebook" in state.notebooks["00_module/01_x"].error
    assert state.notebooks["00_module/02_y"].status == "passed"


def test_a_notebook_over_its_time_is_ended_with_all_its_processes(tmp_path):
    child = "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])"
    add_notebook(
        tmp_path,
        "01_x",
        f"{child}\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))\np.wait()",
    )
    for seconds in (8, 24, 72):  # a busy machine needs longer to come to the cell
        outcome = run(course(tmp_path), Options(timeout_s=seconds)).notebooks["00_module/01_x"]
        if (tmp_path / "pid").exists():
            break
    assert outcome.status == "timeout"
    assert "--timeout" in outcome.error
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert executed("00_module/01_x").exists(), "what ran until then is kept"


def test_a_kernel_that_dies_is_a_failure_with_a_reason(tmp_path):
    add_notebook(tmp_path, "01_x", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    state = run(course(tmp_path), Options())
    assert state.notebooks["00_module/01_x"].status == "failed"
    assert "Kernel" in state.notebooks["00_module/01_x"].error


def start(root: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "smml.cli", "run", "--no-site", *arguments],
        # Ctrl-C reaches a child even where this process was started with it ignored, as pytest's workers are.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"SMML_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_kernels_keeps_what_passed_and_goes_on_from_there(
    tmp_path, how
):
    first, second = tmp_path / "first", tmp_path / "second"
    add_notebook(tmp_path, "01_a", APPEND.format(str(first)), measures=True)
    slow = f"import os, time\nopen({str(second)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300 * FACTOR)"
    add_notebook(
        tmp_path,
        "02_b",
        "import os\nFACTOR = 0 if os.environ.get('QUICK') else 1",
        slow,
        measures=True,
    )
    process = start(tmp_path)
    wait_for(second)
    time.sleep(0.5)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from there" in err
    assert not psutil.pid_exists(int(second.read_text())), "the kernel is gone"
    build = Path(os.environ["SMML_BUILD"])
    assert not list(build.rglob("*partial*"))
    assert not executed("00_module/02_b").exists(), "nothing half-written"
    statuses = {
        n: o["status"] for n, o in json.loads((build / "run.json").read_text())["notebooks"].items()
    }
    assert statuses == {"00_module/01_a": "passed", "00_module/02_b": "interrupted"}
    os.environ["QUICK"] = "1"
    try:
        again = start(tmp_path)
        out, _ = again.communicate(timeout=120)
    finally:
        del os.environ["QUICK"]
    assert again.returncode == 0
    assert "1 passed before the interruption" in out
    assert first.read_text() == "ran ", "the notebook that had passed did not run again"


def test_a_finished_run_starts_over_and_a_changed_notebook_runs_again(tmp_path):
    marker = tmp_path / "marker"
    add_notebook(tmp_path, "01_a", APPEND.format(str(marker)))
    run(course(tmp_path), Options())
    state = run(course(tmp_path), Options())
    assert marker.read_text() == "ran ran "
    state.finished = None  # as an interruption leaves it
    state.save()
    assert run(course(tmp_path), Options()).finished
    assert marker.read_text() == "ran ran ", "passed and unchanged: resumed"
    state.save()
    add_notebook(tmp_path, "01_a", APPEND.format(str(marker)), "1")
    run(course(tmp_path), Options())
    assert marker.read_text() == "ran ran ran ", "changed: runs again"
    state = load()
    state.finished = None
    state.save()
    run(course(tmp_path), Options(fresh=True))
    assert marker.read_text() == "ran ran ran ran "


def test_a_run_of_one_notebook_keeps_the_others_outcomes(tmp_path):
    add_notebook(tmp_path, "01_a", "1")
    add_notebook(tmp_path, "02_b", "1")
    run(course(tmp_path), Options())
    state = run(files.select(["02_b"], tmp_path), Options())
    assert set(state.notebooks) == {"00_module/01_a", "00_module/02_b"}


def test_records_that_a_run_did_not_write_again_are_dropped(tmp_path, folders):
    folder = folders / "build" / "records" / "00_module" / "01_a"
    folder.mkdir(parents=True)
    old = folder / "old.json"
    old.write_text("{}")
    os.utime(old, (1, 1))
    add_notebook(tmp_path, "01_a", f"open({str(folder / 'new.json')!r}, 'w').write('{{}}')")
    run(course(tmp_path), Options())
    assert [p.name for p in folder.iterdir()] == ["new.json"]


def test_measuring_notebooks_run_alone_and_the_others_side_by_side(tmp_path):
    span = "import time\nstart = time.time()\ntime.sleep(1.5)\nprint('span', start, time.time())"
    for name, measures in (("01_m", True), ("02_m", True), ("03_p", False), ("04_p", False)):
        add_notebook(tmp_path, name, span, measures=measures)
    run(course(tmp_path), Options(jobs=2))
    spans = {}
    for notebook in course(tmp_path):
        words = outputs(executed(notebook.name)).split()
        spans[notebook.path.stem] = (float(words[1]), float(words[2]))

    def overlap(a: str, b: str) -> bool:
        return max(spans[a][0], spans[b][0]) < min(spans[a][1], spans[b][1])

    assert not any(overlap("01_m", other) for other in ("02_m", "03_p", "04_p"))
    assert not any(overlap("02_m", other) for other in ("03_p", "04_p"))
    assert overlap("03_p", "04_p")


def test_a_damaged_state_says_what_to_delete(tmp_path, folders):
    add_notebook(tmp_path, "01_a", "1")
    (folders / "build").mkdir()
    (folders / "build" / "run.json").write_text("{broken")
    with pytest.raises(UserError, match=r"run\.json is damaged.*delete it"):
        run(course(tmp_path), Options())


def test_an_unknown_notebook_lists_what_there_is(tmp_path):
    add_notebook(tmp_path, "01_a", "1")
    with pytest.raises(UserError, match=r"no notebook matches '99'.*00_module/01_a"):
        files.select(["99"], tmp_path)
    assert [n.name for n in files.select(["00_module/01_a.ipynb"], tmp_path)] == ["00_module/01_a"]
    with pytest.raises(UserError, match="SMML_ROOT"):
        files.select([], tmp_path / "nowhere")
