"""Scaling laws: of speed with devices (Amdahl, Gustafson), of loss with parameters and tokens (Chinchilla). Pure."""

from dataclasses import dataclass

from smml.errors import UserError


def amdahl_speedup(serial_share: float, ranks: int) -> float:
    """Speed-up of a fixed problem of which `serial_share` does not split (AFIPS 1967); at most 1 ÷ serial_share."""
    _share(serial_share, ranks)
    return 1 / (serial_share + (1 - serial_share) / ranks)


def gustafson_speedup(serial_share: float, ranks: int) -> float:
    """Speed-up of a problem that grows with the ranks, `serial_share` of the parallel run's time (CACM 31(5), 1988)."""
    _share(serial_share, ranks)
    return serial_share + (1 - serial_share) * ranks


def serial_share(speedup: float, ranks: int) -> float:
    """The share that Amdahl's law needs for a measured speed-up (A. Karp, H. Flatt, CACM 33(5), 1990)."""
    if ranks < 2:
        raise UserError(f"ranks is {ranks!r}: one rank shows no share; give 2 or more.")
    if not speedup > 0:
        raise UserError(f"speedup is {speedup!r}: give a number above 0.")
    return (1 / speedup - 1 / ranks) / (1 - 1 / ranks)


@dataclass(frozen=True)
class LossLaw:
    """loss(N, D) = E + A ÷ N^α + B ÷ D^β, nats a token; N parameters, D training tokens."""

    source: str
    irreducible: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token after `tokens` tokens. Raises UserError naming what is not positive."""
        _positive(parameters=parameters, tokens=tokens)
        return self.irreducible + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss for 6·N·D = `flops` (arXiv:2203.15556, equation 4)."""
        _positive(flops=flops)
        total = self.alpha + self.beta
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        parameters = balance * (flops / 6) ** (self.beta / total)
        return parameters, flops / 6 / parameters


# Approach 3 as printed; its exponents contradict the paper's own approaches 1 and 2, ...
CHINCHILLA_PRINTED = LossLaw("arXiv:2203.15556, approach 3", 1.69, 406.4, 410.7, 0.34, 0.28)
# ... and the same data fitted again, which agrees with them: about 20 tokens a parameter.
CHINCHILLA = LossLaw("arXiv:2404.10102, corrected fit", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def _share(serial: float, ranks: int) -> None:
    if not 0 <= serial <= 1:
        raise UserError(f"serial_share is {serial!r}: give a number from 0 to 1.")
    if not isinstance(ranks, int) or isinstance(ranks, bool) or ranks < 1:
        raise UserError(f"ranks is {ranks!r}: give a whole number of 1 or more.")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} is {value!r}: give a number above 0.")
