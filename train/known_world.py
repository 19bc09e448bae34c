"""`python -m train.known_world FOLDER`: tell a trained nano, or a policy made of it, what SynthTrack looks like.

Frames of SynthTrack's train split are told from domain-randomised ones (see `trackgpt.synthtrack.randomised`) by
Fisher's linear discriminant; the limit is the 99.9 % quantile of SynthTrack's frames that the discriminant was not
fitted on. No photograph is looked at. Frames of both worlds come in sizes from 160 pixels up and compressed as JPEG, so
that neither tells them apart. It takes five minutes on a core, and the same machine writes the same file again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from trackgpt import ending
from trackgpt.errors import ModelError
from trackgpt.hub import ASSETS, find, load_trackgpt
from trackgpt.perception.encoders import Features
from trackgpt.perception.known_world import KNOWN_WORLD_FILE, KnownWorld, encoded, statistics
from trackgpt.reasoners.vlm import is_vlm_grounder
from trackgpt.reasoners.vlm_policy import VlmPolicy
from trackgpt.synthtrack.clips import frame_size
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.synthtrack.render import render
from trackgpt.synthtrack.world import ASPECTS, make_scene
from trackgpt.systems.trackgpt import QueryPerception

FIRST_SEED = 40_000_000
"""Scenes from here on are drawn for this alone."""
FRAMES = 36
SHORTEST, LONGEST, LONGEST_OTHER = 160, 960, 640
"""Longest sides of frames, pixels."""
QUALITIES = (30, 100)
QUANTILE = 0.999
SHRINKAGE = 0.02
"""Share of the covariance that its diagonal takes the place of."""
FOLDS = 4

app = typer.Typer(add_completion=False, context_settings=ending.HELP, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="A TrackGPT, or a policy of its brain")] = ASSETS / "nano",
    scenes: Annotated[int, typer.Option(help="One frame is drawn of each")] = 2400,
    others: Annotated[int, typer.Option(help="Domain-randomised frames")] = 1000,
) -> None:
    """Write the file beside the weights, replacing the one that is there."""
    folder = find(folder)
    encode = encoder_of(folder)
    seeds = range(FIRST_SEED, FIRST_SEED + max(scenes, others))
    own = _seen(encode, map(drawn_frame, seeds[:scenes]))
    known = tell_apart(own, _seen(encode, map(other_frame, seeds[:others])))
    known.write(folder / KNOWN_WORLD_FILE)
    typer.echo(f"scenes={scenes} others={others} out={folder / KNOWN_WORLD_FILE}")


def tell_apart(own: np.ndarray, others: np.ndarray) -> KnownWorld:
    """The discriminant of two worlds, scaled so that 0 is the mean of the own one and 1 its limit.

    Args:
        own: (n, d), `statistics` of frames.
        others: (m, d), those of another world.
    """
    unseen = np.empty(len(own))
    for fold in range(FOLDS):
        mine, theirs = (np.arange(len(each)) * FOLDS // len(each) == fold for each in (own, others))
        weights = _discriminant(own[~mine], others[~theirs])
        unseen[mine] = (own[mine] - own[~mine].mean(0)) @ weights
    weights = _discriminant(own, others) / np.quantile(unseen, QUANTILE)
    return KnownWorld(weights.astype(np.float32), float(own.mean(0) @ weights))


def _discriminant(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Fisher's direction from one to the other, (d,)."""
    scale = own.std(0) + 1e-9
    own, others = own / scale, others / scale
    within = (np.cov(own.T) + np.cov(others.T)) / 2
    within = (1 - SHRINKAGE) * within + SHRINKAGE * np.diag(np.diag(within))
    return np.linalg.solve(within, others.mean(0) - own.mean(0)) / scale


def drawn_frame(seed: int, split: str = "train") -> np.ndarray:
    """A frame of a SynthTrack scene, uint8 RGB (height, width, 3); moment, size and compression are the seed's."""
    rng = np.random.default_rng([seed, 9])
    scene = make_scene(seed, split=split, frames=FRAMES)
    size = frame_size(scene.aspect, _length(rng, LONGEST))
    frame, _ = render(scene, int(rng.integers(FRAMES)), *size)
    return _compressed(frame, rng)


def other_frame(seed: int) -> np.ndarray:
    """A frame of the domain-randomised world in one of SynthTrack's aspects, uint8 RGB (height, width, 3)."""
    rng = np.random.default_rng([seed, 9])
    side = _length(rng, LONGEST_OTHER)
    height, width = frame_size(ASPECTS[int(rng.integers(len(ASPECTS)))], side)
    top, left = (side - height) // 2, (side - width) // 2
    frame = randomised_clip(seed, 1, side).frames[0]
    return _compressed(frame[top : top + height, left : left + width], rng)


def _length(rng: np.random.Generator, most: int) -> int:
    return int(np.exp(rng.uniform(np.log(SHORTEST), np.log(most))))


def _compressed(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=int(rng.integers(QUALITIES[0], QUALITIES[1] + 1)))
    return np.array(Image.open(file))


def encoder_of(folder: Path) -> Callable[[np.ndarray], Features]:
    """What a model of a folder computes of a frame: its perception, or the vision tower of a policy.

    Raises:
        ModelError: it is neither, or has another tower.
    """
    if not is_vlm_grounder(folder):
        perception: QueryPerception = load_trackgpt(folder, "cpu").tracker().perception
        return lambda frame: perception.encode([frame])[0].features
    tower = VlmPolicy.from_pretrained(folder).tower
    if tower is None:
        raise ModelError(f"{folder}: its vision tower has no maps at strides 4 and 8; wanted nano's", "MD06")
    return lambda frame: encoded(tower.encoder, tower.config.image_size, frame)


def _seen(encode: Callable[[np.ndarray], Features], frames: Iterable[np.ndarray]) -> np.ndarray:
    """`statistics` of frames, (n, d)."""
    return np.array([statistics(encode(frame), frame.shape[:2]) for frame in frames])


if __name__ == "__main__":
    ending.run("train.known_world", lambda: app(prog_name="python -m train.known_world", standalone_mode=False))
