"""`python -m train.score_calibration FOLDER`: fit the public score of a trained TrackGPT to the IoU of its masks.

Videos of SynthTrack's train split that training never draws are followed without asking again. Every target on every
frame gives its purport score and the brain's confidence in its words. `trackgpt.calibration` is fitted to the IoU of
the frame with the truth by maximum likelihood, which is logistic regression on a share instead of a class. Masks and
answers stay as they are: only the model's config.json is written. Two minutes on a core for 60 videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from scipy.optimize import minimize

from eval.commands.rethinking import Truth
from eval.kits.synthtrack import TRACKED, SynthTrack
from eval.run_folder import progress
from trackgpt import ending
from trackgpt.calibration import inputs
from trackgpt.config import ScoreConfig
from trackgpt.errors import UsageError
from trackgpt.files import replacing
from trackgpt.hub import find, load_trackgpt
from trackgpt.online import follow_all
from trackgpt.settings import write_json
from trackgpt.systems.trackgpt import CONFIG_FILE, TrackGPT
from trackgpt.types import Prompt

SEED = 777_778
"""Beside the validation seed 777,777, whose videos are for measuring what was fitted here."""
SHRINKAGE = 1e-3
"""Weight of the squared weights in the mean loss."""


class Observed(NamedTuple):
    """Targets on frames: each float64 (n,).

    Attributes:
        purport: S_p.
        confidence: see `trackgpt.types.Cue`.
        iou: of the frame, all targets together, with the truth.
        share: what the row counts, so that the targets of a frame count 1 together.
    """

    purport: np.ndarray
    confidence: np.ndarray
    iou: np.ndarray
    share: np.ndarray


app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="A model folder, whose config.json is written")],
    seed: Annotated[int, typer.Option(help="Chooses the videos, of the train split")] = SEED,
    videos: Annotated[int, typer.Option(min=2, help="How many")] = 60,
) -> None:
    """Write the fitted numbers into the folder's config.json, replacing those that are there."""
    place = find(folder) / CONFIG_FILE
    model = load_trackgpt(find(folder), "cpu")
    score = fitted(observed(model, seed, videos))
    score = replace(score, fitted_on=f"SynthTrack, train split, seed {seed}, {videos} videos")
    with replacing(place) as new:
        write_json(replace(model.config, score=score), new)
    typer.echo(f"bias={score.bias} purport={score.purport} words={score.words} out={place}")


def observed(model: TrackGPT, seed: int, videos: int) -> Observed:
    """What a model's scores are worth on so many videos of the train split, followed without asking again."""
    kit = SynthTrack(seed, videos, "train")
    rows = [row for task in progress(kit.tasks(), "videos", videos) for row in _observed(model, kit, task)]
    return Observed(*np.array(rows, np.float64).reshape(-1, 4).T)


def _observed(model: TrackGPT, kit: SynthTrack, task: str) -> Iterator[tuple[float, float, float, float]]:
    case = kit.case(task)
    said = [one for one in case.expressions if one.kind in TRACKED]
    truths = [Truth(case, one) for one in said]
    followed = follow_all(model.tracker("no-rethinking"), case.clip.frames, [[Prompt(one.text)] for one in said])
    for t, several in enumerate(followed):
        for truth, (seen, _) in zip(truths, several, strict=True):
            iou, share = truth.look(t, seen), 1 / max(1, len(seen.ids))
            for k in range(len(seen.ids)):
                yield float(seen.own_scores["purport"][k]), float(seen.own_scores["confidence"][k]), iou, share


def fitted(rows: Observed) -> ScoreConfig:
    """The weights under which the public score explains the IoUs best.

    Raises:
        UsageError: the brain found nothing to follow, or S_p does not rise with the IoU, so that there is no score.
    """
    if not len(rows.iou):
        raise UsageError("the model followed nothing; train it first")
    given = np.column_stack([np.ones(len(rows.iou)), inputs(rows.purport, rows.confidence)])
    share = rows.share / rows.share.sum()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = given @ weights
        slope = given.T @ (share * (1 / (1 + np.exp(-z)) - rows.iou))
        free = np.r_[0, weights[1:]]
        likelihood = share @ (rows.iou * z - np.logaddexp(0, z))
        return float(SHRINKAGE * free @ free - likelihood), slope + 2 * SHRINKAGE * free

    bias, purport, words = (round(float(weight), 3) for weight in minimize(loss, np.zeros(3), jac=True).x)
    if purport <= 0 or words < 0:
        raise UsageError(
            f"purport {purport}, words {words}; wanted more than 0 and at least 0, since better scores should mean "
            "better masks; train the purport score first (configs/trackgpt/foundation/11_score.yaml)"
        )
    return ScoreConfig(bias, purport, words)


if __name__ == "__main__":
    ending.run(
        "train.score_calibration", lambda: app(prog_name="python -m train.score_calibration", standalone_mode=False)
    )
