"""A memory segmenter alone: it follows what it is shown, from a box, a mask or points, and reads no words.

What it computes with is a `trackgpt.perception.memory_segmenter.MemoryNetwork`. A network may offer `ablated(name)`,
itself with one part swapped, and `configured(settings)`, itself with other settings ("key=value").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trackgpt.arbiter import PointedArbiter
from trackgpt.errors import UsageError
from trackgpt.online import Tracker
from trackgpt.perception.memory_segmenter import MemoryNetwork, MemorySegmenter, SegmenterMemory
from trackgpt.reasoners.templates import clean_instruction
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prompt


@dataclass
class PointedConfig:
    """What run.json says of the model.

    Attributes:
        name: of the model.
        network: the class of its network.
    """

    name: str
    network: str


class Pointed:
    """A memory segmenter as a system (`trackgpt.online.System`): targets are pointed at, and nothing is ever asked."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.config = PointedConfig(name, type(network).__name__)
        self.network = network

    def check(self, text: str) -> str:
        """Words that name what is pointed at, without markup and control characters; they change nothing.

        Raises:
            UsageError: NL01 there are none.
        """
        return clean_instruction(text)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        """An online tracker over the loaded weights; several may share them.

        Args:
            ablation: "full", or one that the network offers.
            settings: "key=value" of the network.

        Raises:
            UsageError: the network has no such ablation or setting.
        """
        network: Any = self.network
        if ablation != "full":
            network = _offered(network, "ablated", f"ablation {ablation}: {self.config.name} has none")(ablation)
        if settings:
            refusal = f"setting {settings[0]}: {self.config.name} has none"
            network = _offered(network, "configured", refusal)(settings)
        perception = MemorySegmenter(network)
        return Tracker(_Unread(), perception, PointedArbiter(self.config.name), SegmenterMemory(), perception.kinds)


def _offered(network: Any, name: str, refusal: str) -> Any:
    if not hasattr(network, name):
        raise UsageError(refusal)
    return getattr(network, name)


class _Unread:
    """The reasoner of a system that has none; nothing is ever due."""

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """Never called."""
        raise AssertionError("a system that is pointed at asks nobody")
