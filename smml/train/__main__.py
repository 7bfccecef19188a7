"""python -m smml.train: train or fine-tune as configured, then write the model folder."""

import sys

from smml.errors import UserError
from smml.train.config import parse


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 2 for what the user can mend, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = parse(arguments)
        _train(config, arguments)
    except UserError as error:
        print(f"smml.train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\ninterrupted: the same command with --resume goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    return 0


def _train(config, arguments: list[str]) -> None:
    # Here, so that --help and a wrong field answer without the seconds that torch takes to import.
    from smml.hardware import ceilings, detect
    from smml.train import card
    from smml.train.loop import train
    from smml.train.precision import choose_device, choose_dtype, peak

    machine = detect()
    device = choose_device(config.device)
    # Ceilings are of the device that torch would choose: another one's say nothing here.
    known = ceilings(machine) if device.type == machine.torch_device else None
    dtype = choose_dtype(config.dtype, device, known)
    run = train(config, dtype=dtype, peak=peak(machine, known, dtype) if known else None)
    made = card.record(run, card.command_line(arguments), machine.device_name)
    folder = card.export(run, made)
    print(f"{config.steps} steps in {run.seconds:.0f} s; the model is in {folder}")


if __name__ == "__main__":
    sys.exit(main())
