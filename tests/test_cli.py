"""The command line: every command answers, every mistake of a user is one line with what to do."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

from make_record import MACHINE, made
from tiny_course import add_notebook

from smml.measure.compare import baseline_folder


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    """stderr of a command that failed on a user's mistake: one line, exit code 2, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("smml: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_help_names_every_command_and_version_the_version(smml):
    helped = smml("--help").stdout
    assert all(
        name in helped for name in ("doctor", "run", "bench", "compare", "lab", "site", "format")
    )
    assert smml("--version").stdout.startswith("smml 0.")


def test_doctor_finds_this_machine_ready(smml):
    done = smml("doctor")
    assert done.returncode == 0, done.stdout
    assert "ready for make run" in done.stdout.splitlines()[-1]


def test_unknown_profile_notebook_and_bench_are_one_line(smml):
    assert "allowed are auto, cpu, gpu" in one_line_error(smml("run", "--profile", "tpu"))
    assert "no notebook matches" in one_line_error(smml("run", "99_nothing"))
    assert "there are: gemm" in one_line_error(smml("bench", "gem"))


def test_a_profile_without_its_hardware_says_what_is_missing(smml):
    message = one_line_error(smml("run", "--profile", "cluster"))
    assert "Slurm" in message
    assert "profile=auto" in message


def test_compare_without_records_or_baselines_says_how_to_make_them(smml, folders):
    assert "smml bench all" in one_line_error(smml("compare"))
    made().save(folders / "run")
    assert "--accept" in one_line_error(smml("compare", str(folders / "run")))


def test_compare_fails_on_a_slow_record_and_names_it(smml, folders):
    made("a").save(folders / "run")
    made("b", seconds=2e-3).save(folders / "run")
    for name in ("a", "b"):
        made(name).save(baseline_folder(MACHINE.fingerprint))
    done = smml("compare", str(folders / "run"))
    assert done.returncode == 1
    assert "slower       b" in done.stdout
    assert "ok           a" in done.stdout
    assert "1 slower" in done.stdout


def test_a_corrupt_record_is_one_line_with_its_path(smml, folders):
    path = made().save(folders / "run")
    path.write_text(path.read_text()[:100])
    message = one_line_error(smml("compare", str(folders / "run")))
    assert str(path) in message


def test_accept_stores_baselines_that_compare_then_finds(smml, folders):
    made().save(folders / "run")
    assert smml("compare", str(folders / "run"), "--accept").returncode == 0
    assert smml("compare", str(folders / "run")).returncode == 0


def test_run_ends_with_one_line_that_counts_and_says_where_to_look(smml, tmp_path):
    add_notebook(tmp_path, "01_good", "1")
    add_notebook(tmp_path, "02_bad", "1 / 0")
    done = smml("run", "--no-site", SMML_ROOT=str(tmp_path))
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("1 passed, 1 failed in ")
    assert "notebooks" in last
    assert "ZeroDivisionError" in done.stdout


def test_format_strips_outputs_and_names_broken_rules(smml, tmp_path):
    path = add_notebook(tmp_path, "01_x", "!ls")
    before = path.read_text()
    checked = smml("format", "--check", SMML_ROOT=str(tmp_path))
    assert checked.returncode == 1
    assert "shell escape" in checked.stdout
    assert path.read_text() == before
    smml("format", SMML_ROOT=str(tmp_path))
    assert json.loads(path.read_text())["cells"][0]["id"] == "cell-00"


def test_lab_starts_a_jupyterlab_that_lists_the_notebooks(tmp_path):
    """A real JupyterLab on a free port of the loopback, asked over its own API."""
    environ = os.environ | {"JUPYTER_TOKEN": "test", "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "smml.cli", "lab", "--no-browser"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        deadline, address = time.monotonic() + 90, None
        while address is None and time.monotonic() < deadline and process.poll() is None:
            for file in tmp_path.glob("jpserver-*.json"):
                text = file.read_text()
                address = json.loads(text)["url"] if text.strip().endswith("}") else None
            time.sleep(0.2)
        assert address, "JupyterLab did not start"
        names = []
        while not names and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(
                    f"{address}api/contents?token=test", timeout=5
                ) as answer:
                    names = [item["name"] for item in json.load(answer)["content"]]
            except urllib.error.URLError:
                time.sleep(0.3)
        assert "00_getting_started" in names
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_plot_draws_from_records_alone_and_says_what_is_missing(smml, folders):
    made("ceiling/gemm/float32", 1.0, unit="FLOP/s", amount=3e11).save(folders / "run")
    made("gemm/64/float32", inputs={"dtype": "float32"}).save(folders / "run")
    picture = folders / "roof.png"
    command = ("plot", str(folders / "run"), "--out", str(picture))
    assert "smml bench ceilings" in one_line_error(smml(*command))
    made("ceiling/bandwidth", 1.0, amount=2e10).save(folders / "run")
    done = smml(*command)
    assert done.stdout.endswith("1 kernels of Test CPU, float32, " + done.stdout[-11:])
    assert picture.read_bytes().startswith(b"\x89PNG")
