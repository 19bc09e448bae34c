"""Whether workers make samples as fast as a step consumes them; measured one by one, because both share the cores."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from train.feed import make
from train.plan import Plan
from train.stages import Stage

SECONDS = 3.0
FEWEST = 4


@dataclass(frozen=True)
class Supply:
    """Samples/s that one worker makes, and that one process consumes while it never waits."""

    made: float
    consumed: float

    @property
    def workers(self) -> int:
        """How many workers feed the process, given a core each."""
        return math.ceil(self.consumed / self.made)

    def text(self, plan: Plan) -> str:
        """As text, with the number of workers that the plan has."""
        return (
            f"one worker makes {self.made:.1f} samples/s, a process consumes {self.consumed:.1f}: "
            f"ratio {self.made / self.consumed:.2f}, so {self.workers} worker(s) with a core each keep it fed; "
            f"plan.workers is {plan.workers}"
        )


def samples_per_second(stage: Stage, seed: int, first: int) -> float:
    """Samples/s that this process makes, alone and with one thread, from sample `first` of a run on.

    The sets are opened before the clock starts, and samples are new, as a worker's are; files may be in memory already.

    Raises:
        TrackGPTError: whatever the samples raise.
    """
    made, began = -1, time.monotonic()
    while made < FEWEST or time.monotonic() - began < SECONDS:
        sample = make(stage, seed, first + made + 1)
        if sample.error is not None:
            raise sample.error
        made += 1
        if made == 0:
            began = time.monotonic()
    return made / (time.monotonic() - began)
