"""Which tracker a run evaluates: a model of the package, and the ablation of it that is wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackgpt.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from trackgpt.config import RethinkConfig
    from trackgpt.online import ReasoningTracker
    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.types import Cue, EncodedFrame, Prompt

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
        dtype: see `trackgpt.config.Execution`.
    """

    model: str
    variant: str = "full"
    settings: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"

    def load(self) -> Contestant:
        """Load the model.

        Raises:
            UsageError: there is no such variant or setting.
            ModelError: see `load_model`.
        """
        import torch

        from trackgpt.config import RethinkConfig
        from trackgpt.hub import load_model
        from trackgpt.settings import read

        if self.variant not in VARIANTS:
            raise UsageError(f"--variant {self.variant}: not one of {', '.join(VARIANTS)}")
        if self.threads:
            torch.set_num_threads(self.threads)
        model = load_model(self.model, self.device, dtype=self.dtype)
        base = [f"{key}={value}" for key, value in dataclasses.asdict(model.config.rethink).items()]
        model.config.rethink = read(RethinkConfig, None, base + list(self.settings))
        if self.variant in ("no-propagation", "first-frame"):
            model.segmenter.mask_decoder.propagate = False
        rethink = model.config.rethink
        if self.variant in ("no-rethinking", "first-frame"):
            rethink = dataclasses.replace(rethink, enabled=False, search_every=10**9)
        return Contestant(model, rethink)


class Contestant:
    """A loaded model that makes trackers.

    Args:
        model: with the variant's perception.
        rethink: the variant's rules of rethinking.
    """

    def __init__(self, model: TrackGPT, rethink: RethinkConfig) -> None:
        self.model, self.rethink = model, rethink
        self._parts = model.tracker()

    def tracker(self) -> ReasoningTracker:
        """A fresh tracker; all share the weights."""
        from trackgpt.arbiter import PurportArbiter

        tracker = self.model.tracker()
        tracker.arbiter = PurportArbiter(self.rethink)
        return tracker

    def encode(self, frames: Sequence[np.ndarray]) -> list[EncodedFrame]:
        """See `trackgpt.online.Perception.encode`."""
        return self._parts.perception.encode(frames)

    def reason_many(self, frame: np.ndarray, prompts: Sequence[Prompt]) -> list[Cue]:
        """See `trackgpt.online.Reasoner.reason_many`."""
        return self._parts.reasoner.reason_many(frame, prompts)
