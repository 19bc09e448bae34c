"""Which tracker a run evaluates: a model of the package, and the ablation of it that is wanted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackgpt.errors import UsageError

if TYPE_CHECKING:
    from trackgpt.types import Tracker

VARIANTS = {
    "full": "propagation and rethinking (the system)",
    "no-rethinking": "the brain reads the first frame only",
    "no-propagation": "Q_t is the learned embedding on every frame",
    "first-frame": "neither: the first frame's queries on every frame",
}
"""Table 3 of the TrackGPT paper, each a swap of one part."""


@dataclass(frozen=True)
class Choice:
    """A tracker by description, so that every process can make its own.

    Attributes:
        model: shipped name or folder.
        variant: one of `VARIANTS`.
        settings: "key=value" of the loop's configuration (`RethinkConfig`), e.g. "cooldown=3".
        device: see `trackgpt.hub.load_model`.
        threads: of the arithmetic, a process; 0 leaves torch's choice.
    """

    model: str
    variant: str = "full"
    settings: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1

    def tracker(self) -> Tracker:
        """Load the model and make its tracker.

        Raises:
            UsageError: there is no such variant or setting.
            ModelError: see `load_model`.
        """
        import torch

        from trackgpt.arbiter import PurportArbiter
        from trackgpt.config import RethinkConfig, read
        from trackgpt.hub import load_model

        if self.variant not in VARIANTS:
            raise UsageError(f"--variant {self.variant}: not one of {', '.join(VARIANTS)}")
        if self.threads:
            torch.set_num_threads(self.threads)
        model = load_model(self.model, self.device)
        base = [f"{key}={value}" for key, value in dataclasses.asdict(model.config.rethink).items()]
        model.config.rethink = read(RethinkConfig, None, base + list(self.settings))
        if self.variant in ("no-propagation", "first-frame"):
            model.segmenter.mask_decoder.propagate = False
        tracker = model.tracker()
        if self.variant in ("no-rethinking", "first-frame"):
            still = dataclasses.replace(tracker.arbiter.config, enabled=False, search_every=10**9)
            tracker.arbiter = PurportArbiter(still)
        return tracker
