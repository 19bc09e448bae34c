"""What a track remembers between frames. TrackGPT remembers one online query per target, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trackgpt.types import Cue, Verdict


@dataclass(frozen=True)
class QueryMemory:
    """The online queries Q_t (TrackGPT section 3.4), constant in size however long the video is.

    Attributes:
        online: float32 (k, c), or None before the first frame of a cue: the decoder then starts from its learned
            embedding.
    """

    online: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self.online is None else self.online.nbytes

    def heed(self, verdict: Verdict, cue: Cue | None, looked: Any = None) -> QueryMemory:
        """The queries of the targets that go on; none where new ones take their place."""
        if verdict.cue is None:
            return self
        return (
            QueryMemory() if self.online is None or not verdict.rows else QueryMemory(self.online[list(verdict.rows)])
        )
