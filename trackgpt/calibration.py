"""The public score of a target: how good its mask is likely to be, given that the words may name the wrong thing.

TrackGPT's purport score S_p (paper section 3.4) sees a mask and the query that asked for it. Where the brain named the
wrong object, a mask that fits that object scores high. How sure the brain was of its words is what S_p cannot know, so
the public score joins the two, by Platt's scaling (Advances in Large Margin Classifiers, 1999) of two inputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from trackgpt.config import ScoreConfig

LEAST = 1e-3
"""Purport scores nearer to 0 and 1 count as this far from them."""
LEAST_CONFIDENCE = 1e-6
"""Smaller probabilities count as this one."""


def inputs(purport: ArrayLike, confidence: ArrayLike) -> np.ndarray:
    """What the weights of `ScoreConfig` are of: logit(S_p) and ln(confidence), float64 (n, 2), from two times (n,)."""
    score = np.clip(np.asarray(purport, np.float64), LEAST, 1 - LEAST)
    sure = np.clip(np.asarray(confidence, np.float64), LEAST_CONFIDENCE, 1)
    return np.stack([np.log(score / (1 - score)), np.log(sure)], axis=-1)


def public_score(purport: np.ndarray, confidence: np.ndarray | None, how: ScoreConfig) -> np.ndarray:
    """Score of each target, float32 (k,), which rises with its purport score, so that thresholds can be compared, too.

    Args:
        purport: S_p, or a threshold for it, float32 (k,) in [0, 1].
        confidence: `Cue.confidence`, or None where it is not known, as in a track that an older version saved.
        how: the weights; with the defaults, as without a confidence, the score is S_p to the bit.
    """
    if confidence is None or (how.bias, how.purport, how.words) == (0.0, 1.0, 0.0):
        return purport
    z = how.bias + inputs(purport, confidence) @ np.array([how.purport, how.words])
    return (1 / (1 + np.exp(-z))).astype(np.float32)
