"""What a track remembers between frames. TrackGPT remembers one online query per target, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class QueryMemory:
    """The online queries Q_t (paper section 3.4), constant in size however long the video is.

    Attributes:
        online: float32 (k, c), or None before the first frame of a cue: the decoder then starts from its learned
            embedding.
    """

    online: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self.online is None else self.online.nbytes
