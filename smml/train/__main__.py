"""python -m smml.train: train or fine-tune as configured, then write the model folder.

SIGTERM, which schedulers and spot handlers send ahead of a kill, ends the step, writes a checkpoint and leaves.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from smml.errors import UserError
from smml.train.config import parse


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 2 for what the user can mend, 130 when interrupted, 143 when asked to stop by SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = parse(arguments)
        stopped = _train(config, arguments)
    except UserError as error:
        print(f"smml.train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\ninterrupted: the same command with --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    if stopped is None:
        return 0
    print(
        f"stopped after step {stopped}, which a checkpoint holds: the same command with --resume goes on",
        file=sys.stderr,
    )
    return 128 + signal.SIGTERM


@contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM came, for the loop to ask after each step; a second one ends the process at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(config, arguments: list[str]) -> int | None:
    """Trains and exports; the step after which SIGTERM stopped it, None where it came to the end."""
    # Here, so that --help and a wrong field answer without the seconds that torch takes to import.
    from smml.hardware import ceilings, detect
    from smml.train import card
    from smml.train.loop import Stopped, train
    from smml.train.precision import choose_device, choose_dtype, peak

    machine = detect()
    device = choose_device(config.device)
    # Ceilings are of the device that torch would choose: another one's say nothing here.
    known = ceilings(machine) if device.type == machine.torch_device else None
    dtype = choose_dtype(config.dtype, device, known)
    share_of = peak(machine, known, dtype) if known else None
    with _sigterm() as stop:
        try:
            run = train(config, dtype=dtype, peak=share_of, stop=stop)
        except Stopped as stopped:
            return stopped.step
    made = card.record(run, card.command_line(arguments), machine.device_name)
    folder = card.export(run, made)
    print(f"{config.steps} steps in {run.seconds:.0f} s; the model is in {folder}")
    return None


if __name__ == "__main__":
    sys.exit(main())
