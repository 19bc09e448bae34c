"""Which tracker a run evaluates: a model of the package, and the ablation of it that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trackgpt.online import System, Tracker


@dataclass(frozen=True)
class Choice:
    """A tracker by description, so that every process can make its own.

    Attributes:
        model: shipped name or folder.
        variant: one of the system's ablations (see `trackgpt.online.System.tracker`).
        settings: "key=value" of the system's rules of asking again, e.g. "cooldown=3".
        device: see `trackgpt.hub.load_model`.
        threads: of the arithmetic, in each process; 0 leaves torch's choice.
        dtype: see `trackgpt.config.Execution`.
    """

    model: str
    variant: str = "full"
    settings: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"

    def load(self) -> Tracker:
        """Load the model, and compose its tracker; all tracks of this process share it.

        Raises:
            UsageError: there is no such variant or setting.
            ModelError: see `load_model`.
        """
        return self.open().tracker(self.variant, self.settings)

    def open(self) -> System:
        """Load the model, of which trackers of other variants can be composed, too.

        Raises:
            ModelError: see `load_model`.
        """
        import torch

        from trackgpt.hub import load_model

        if self.threads:
            torch.set_num_threads(self.threads)
        return load_model(self.model, self.device, dtype=self.dtype)
