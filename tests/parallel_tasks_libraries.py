"""Tasks for the tests of libraries: the mistakes that a user of one makes, and that its proof must find."""

from accelerate import Accelerator

from smml.parallel import proof
from smml.parallel.libraries.accelerate import AccelerateDDP
from smml.parallel.strategy import adamw
from smml.parallel.strategy_tasks import PROOF, PROOF_BATCH, PROOF_TOKENS, config


class NeverSynchronised(AccelerateDDP):
    """Every backward is taken for that of a micro-batch."""

    def backward(self, data):
        with self.accelerator.no_sync(self.module):
            return super().backward(data)


class NotToldOfTheCPU(AccelerateDDP):
    """Accelerator() with no argument, under torchrun."""

    def _prepare(self, plugin):
        self.accelerator = Accelerator()
        from smml.llama.model import Llama

        self.llama = Llama(self.config, seed=self.seed)
        self.module, self.optimizer = self.accelerator.prepare(
            self.llama, adamw(list(self.llama.parameters()))
        )


def problems(strategy: str) -> list[str]:
    """What the proof of one of the above finds."""
    kind = globals()[strategy]
    with _named(kind):
        return proof.prove(strategy, config(PROOF), PROOF_BATCH, PROOF_TOKENS, {}).problems()


def _named(kind):
    """`kind` by its name among the strategies, for as long as it lasts."""
    from unittest import mock

    from smml.parallel import strategies

    entry = {kind.__name__: f"{__name__}:{kind.__name__}"}
    return mock.patch.dict(strategies.STRATEGIES, entry)
