"""What a SynthTrack scene is: plain data in units of the frame, so that it renders at any resolution.

Coordinates: x in [0, 1] from left to right, y in [0, 1] from top to bottom, lengths in units of the shorter frame side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Actor:
    """One sprite of a scene and its motion.

    Attributes:
        id: 1-based label in the id map.
        category: a `catalog.Category` name ("dog", "fire engine", "star").
        colour: a key of `catalog.COLOURS`, or "natural" for a sprite in its own colours.
        size: "small", "medium" or "large" (as said in expressions; the truth is `extent`).
        depth: greater is nearer to the camera; nearer actors hide farther ones.
        centre: float32 (T, 2), x and y of the sprite's centre in frame units, camera motion included.
        extent: float32 (T,), side of the sprite's square in units of the shorter frame side.
        angle: float32 (T,), degrees counter-clockwise.
        flip: mirrored left to right.
        visible: bool (T,), False while the scene itself hides the actor (it has left; an occluder hides it otherwise).
        motion: "straight", "curved", "race", "stop-and-go", "bounce", "still".
    """

    id: int
    category: str
    colour: str
    size: str
    depth: float
    centre: np.ndarray
    extent: np.ndarray
    angle: np.ndarray
    flip: bool
    visible: np.ndarray
    motion: str


@dataclass(frozen=True)
class Scene:
    """A whole synthetic video before rendering.

    Attributes:
        seed: with `split` and the version of the code, determines everything.
        split: "train" or "test": disjoint seeds, wordings and combinations.
        frames: T, the number of frames.
        fps: frames per second.
        aspect: (width, height) ratio as two integers, e.g. (4, 3).
        kind: "free" or "race" (actors run towards a finish line that is drawn).
        difficulty: "easy", "medium" or "hard".
        actors: 2 to 8 of them, ids 1..n in order.
        background: parameters of the background, read by the renderer only.
        camera: float32 (T, 4): x shift, y shift (frame units), zoom factor, roll in degrees.
        effects: noise, blur, compression and light parameters, read by the renderer only.
        events: (frame, "leaves" | "returns" | "occluded" | "reappears" | "changes look", actor id).
    """

    seed: int
    split: str
    frames: int
    fps: float
    aspect: tuple[int, int]
    kind: str
    difficulty: str
    actors: tuple[Actor, ...]
    background: dict[str, float | int | str]
    camera: np.ndarray
    effects: dict[str, float]
    events: tuple[tuple[int, str, int], ...] = field(default=())


@dataclass(frozen=True)
class SceneInstruction:
    """An instruction about one frame of a scene, with its truth.

    Attributes:
        text: what the person says.
        kind: "explicit", "implicit", "multi" or "none".
        form: the finer type ("colour", "fact", "leftmost", "race", ...), for tables and held-out splits.
        targets: ids of the actors meant, in reading order (left to right); empty for "none".
        answer: what the tracker should say, with <TK>, <PO> after each target's description.
        wording: 0 for the seed wording, 1 to 5 for its paraphrases.
    """

    text: str
    kind: str
    form: str
    targets: tuple[int, ...]
    answer: str
    wording: int = 0
