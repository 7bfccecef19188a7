"""`smml doctor`: is this machine ready for `make run`, and what to do about what is not."""

import warnings

from smml.doctor import machine as fitness, setup
from smml.doctor.finding import Finding, exit_code, render
from smml.hardware.machine import Machine

__all__ = ["Finding", "examine", "exit_code", "render"]


def examine(machine: Machine) -> list[Finding]:
    """Every check, in the order in which a reader would mend things. Only what stops `make run` is "block"."""
    checks = (
        setup.python,
        setup.compiler,
        setup.packages,
        setup.torch,
        setup.triton,
        setup.folders,
    )
    checks += (fitness.memory, fitness.cpu, fitness.gpus, fitness.notes, fitness.efa)
    checks += (fitness.catalogue, fitness.ceilings, setup.browser, fitness.aws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what the catalogue lacks becomes a finding
        return [finding for check in checks for finding in check(machine)]
