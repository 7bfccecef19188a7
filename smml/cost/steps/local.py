"""The fourteen steps on the machine at hand: each is a function that does a small piece of it and says what came out.

A step takes a folder and makes there what it needs of the steps before it, so that each also runs by itself.
"""

import hashlib
import http.client
import json
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import numpy as np

from smml import atomic
from smml.cost.decisions.decision import amount, dollars, hourly, seconds
from smml.cost.steps import model
from smml.errors import UserError

LEARNING_RATES = (10.0, 30.0, 100.0, 300.0)
# Above this population stability index a distribution is taken to have drifted.
DRIFT = 0.25


@dataclass(frozen=True)
class Outcome:
    """What a step says, and the figures behind it by name, units in the names."""

    said: str
    figures: dict[str, float]


def environment(folder: Path) -> Outcome:
    """Python and packages against what the lock asks for."""
    from smml.doctor import setup
    from smml.hardware import detect

    machine = detect()
    findings = [*setup.python(machine), *setup.packages(machine)]
    wrong = [finding for finding in findings if finding.level == "block"]
    said = "; ".join(f"{finding.subject} {finding.found}" for finding in findings)
    return Outcome(said, {"findings": len(findings), "blocking": len(wrong)})


def hardware(folder: Path) -> Outcome:
    """What computes here, and the EC2 type that stands for it."""
    from smml.cost.decisions.stand_in import stand_in
    from smml.hardware import detect

    machine = detect()
    rented = stand_in(machine, "cpu" if machine.accelerator is None else "cuda")
    cores = machine.cpu.usable_cores
    said = f"{machine.device_name}, {cores} cores; {rented.instance.name} stands for it at {hourly(rented.usd_per_hour)}"
    return Outcome(said, {"cores": cores, "usd_per_hour": rented.usd_per_hour})


def storage(folder: Path) -> Outcome:
    """A checkpoint's worth of bytes written and read back through fsspec, which speaks file:// and s3:// alike."""
    import fsspec

    content = np.random.default_rng(0).bytes(2**22)
    files, name = fsspec.filesystem("file"), str(folder / "object.bin")
    start = time.perf_counter()
    files.pipe_file(name, content)
    back = files.cat_file(name)
    took = time.perf_counter() - start
    if hashlib.sha256(back).digest() != hashlib.sha256(content).digest():
        raise UserError(f"what was read from {name} is not what was written; check that disk.")
    rate = 2 * len(content) / took
    return Outcome(
        f"{amount(len(content), 'B')} written and read back, {amount(rate, 'B/s')}",
        {"bytes": len(content), "bytes_per_s": rate},
    )


def preprocessing(folder: Path) -> Outcome:
    """The text tokenised into shards; a second run finds them and writes nothing."""
    written = model.write_shards(folder / "shards")
    before = [path.stat().st_mtime_ns for path in written]
    again = [path.stat().st_mtime_ns for path in model.write_shards(folder / "shards")]
    tokens = sum(len(np.load(path)) for path in written)
    return Outcome(
        f"{tokens:,} tokens in {len(written)} shards; run again, {sum(map(int.__ne__, before, again))} rewritten",
        {
            "tokens": tokens,
            "shards": len(written),
            "rewritten": sum(map(int.__ne__, before, again)),
        },
    )


def framework(folder: Path) -> Outcome:
    """Which frameworks are installed, without loading them."""
    found = {name: metadata.version(name) for name in ("numpy", "torch", "transformers")}
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    return Outcome(said, {"installed": len(found)})


def training(folder: Path) -> Outcome:
    """Half of the training, a checkpoint, the other half from it: the same weights as without the break."""
    train, _ = _tokens(folder)
    settings = model.Settings()
    half, losses = settings.steps // 2, []
    for done, weights, loss in model.train(train, settings):
        losses.append(loss)
        if done == half:
            checkpoint = model.save(folder / "checkpoint.npy", weights)
    *_, (_, resumed, _) = model.train(train, settings, np.load(checkpoint), half)
    model.save(folder / "weights.npy", weights)
    return Outcome(
        f"loss {losses[0]:.2f} to {losses[-1]:.2f} nats a character in {settings.steps} steps; resumed from step {half}, "
        f"weights differ by {np.abs(resumed - weights).max():g}",
        {
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "lowest_loss": model.lowest_loss(train),
            "resumed_differs": float(np.abs(resumed - weights).max()),
        },
    )


def tuning(folder: Path) -> Outcome:
    """One short training a learning rate, judged on what was held out."""
    train, held_out = _tokens(folder)
    short = model.Settings(steps=60)
    losses = {
        rate: model.mean_loss(model.trained(train, replace(short, learning_rate=rate)), held_out)
        for rate in LEARNING_RATES
    }
    best = min(losses, key=losses.__getitem__)
    tried = ", ".join(f"{rate:g}: {loss:.2f}" for rate, loss in losses.items())
    return Outcome(
        f"learning rate {best:g} is best of {tried}", {"best": best, "loss": losses[best]}
    )


def evaluation(folder: Path) -> Outcome:
    """Perplexity on the held-out text, beside guessing."""
    weights, (_, held_out) = _weights(folder), _tokens(folder)
    perplexity = float(np.exp(model.mean_loss(weights, held_out)))
    return Outcome(
        f"perplexity {perplexity:.1f} on {len(held_out):,} held-out characters, {model.VOCABULARY} by guessing",
        {"perplexity": perplexity, "guessing": model.VOCABULARY},
    )


def deployment(folder: Path) -> Outcome:
    """The model behind HTTP on the loopback address; a request is sent and answered."""
    weights = _weights(folder)

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"next": model.following(weights, asked["text"])}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the notebook's output is the step's own sentence."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        start = time.perf_counter()
        connection = http.client.HTTPConnection(*server.server_address, timeout=10)
        connection.request("POST", "/", json.dumps({"text": "a q"}))
        answer = json.loads(connection.getresponse().read())["next"]
        took = time.perf_counter() - start
        connection.close()
        server.shutdown()
    return Outcome(
        f"POST 'a q' answered {answer!r} after {seconds(took)}",
        {"latency_s": took, "answered_u": float(answer == "u")},
    )


def monitoring(folder: Path) -> Outcome:
    """Drift of what is asked against what was trained on: the same text is quiet, another one raises the alarm."""
    train, held_out = _tokens(folder)
    quiet = _stability_index(train, held_out)
    loud = _stability_index(train, model.tokenise("0123456789" * 1000))
    raised = [what for what, index in (("held-out", quiet), ("digits", loud)) if index > DRIFT]
    return Outcome(
        f"drift {quiet:.2f} for held-out text, {loud:.1f} for digits; alarm above {DRIFT}: {', '.join(raised) or 'none'}",
        {"quiet": quiet, "loud": loud},
    )


def scaling(folder: Path) -> Outcome:
    """Servers for ten and for a thousand times one server's rate, by the queue's formula, the answer within ten services."""
    from smml.cost.scaling.queueing import fewest_servers

    weights = _weights(folder)
    start = time.perf_counter()
    for _ in range(100):
        model.following(weights, "a q")
    service_s = (time.perf_counter() - start) / 100
    ten, thousand = (fewest_servers(k / service_s, service_s, 10 * service_s) for k in (10, 1000))
    return Outcome(
        f"{seconds(service_s)} an answer; ten times one server's rate needs {ten} servers, a thousand times {thousand:,}",
        {"service_s": service_s, "servers_10": ten, "servers_1000": thousand},
    )


def cost(folder: Path) -> Outcome:
    """What the training cost: its seconds at the price of the type that stands for this machine."""
    train, _ = _tokens(folder)
    start = time.perf_counter()
    model.trained(train, model.Settings())
    took = time.perf_counter() - start
    usd = took / 3600 * hardware(folder).figures["usd_per_hour"]
    return Outcome(f"{seconds(took)} of training, {dollars(usd)}", {"training_s": took, "usd": usd})


def security(folder: Path) -> Outcome:
    """Weights that only their owner reads, with a checksum; a changed byte is found."""
    _weights(folder)
    path = folder / "weights.npy"
    path.chmod(0o600)
    mode = stat.S_IMODE(path.stat().st_mode)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    atomic.write_text(folder / "weights.sha256", checksum + "\n")
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    found = hashlib.sha256(changed).hexdigest() != checksum
    return Outcome(
        f"mode {mode:o}, sha256 {checksum[:12]}…; one changed bit {'is' if found else 'is not'} found",
        {"others_may_read": float(bool(mode & 0o077)), "change_found": float(found)},
    )


def collaboration(folder: Path) -> Outcome:
    """The record of the training in a Git repository, cloned by a colleague, who has the same bytes."""
    if shutil.which("git") is None:
        raise UserError("git is not installed here: sudo apt-get install git.")
    mine, theirs = folder / "mine", folder / "theirs"
    for old in (mine, theirs):
        shutil.rmtree(old, ignore_errors=True)
    mine.mkdir(parents=True)
    settings = json.dumps(vars(model.Settings()))
    atomic.write_text(mine / "settings.json", settings)
    who = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
    for command in (
        ["git", "-C", str(mine), "init", "--quiet"],
        ["git", "-C", str(mine), "add", "settings.json"],
        ["git", "-C", str(mine), *who, "commit", "--quiet", "-m", "settings of the training"],
        ["git", "clone", "--quiet", str(mine), str(theirs)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    same = (theirs / "settings.json").read_text() == settings
    return Outcome(
        f"settings committed and cloned, {'the same' if same else 'other'} bytes",
        {"same": float(same)},
    )


LOCAL: tuple[Callable[[Path], Outcome], ...] = (
    environment,
    hardware,
    storage,
    preprocessing,
    framework,
    training,
    tuning,
    evaluation,
    deployment,
    monitoring,
    scaling,
    cost,
    security,
    collaboration,
)


def _tokens(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    model.write_shards(folder / "shards")
    return model.split(folder / "shards")


def _weights(folder: Path) -> np.ndarray:
    path = folder / "weights.npy"
    if not path.exists():
        model.save(path, model.trained(_tokens(folder)[0], model.Settings()))
    return np.load(path)


def _stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """Population stability index of two token streams: Σ (q − p)·ln(q ÷ p), half a count added to each."""
    p, q = (np.bincount(x, minlength=model.VOCABULARY) + 0.5 for x in (expected, found))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())
