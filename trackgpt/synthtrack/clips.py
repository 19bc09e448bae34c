"""From scenes to cases: what is visible at a frame, what can be said about it, and whole clips with instructions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trackgpt.synthtrack.language import Seen, describe, expressions, is_clear, region
from trackgpt.synthtrack.render import boxes_of, render_clip, visible_fractions
from trackgpt.synthtrack.scene import Scene, SceneInstruction
from trackgpt.synthtrack.world import leader, make_scene
from trackgpt.types import Clip

KINDS = ("explicit", "implicit", "multi", "none")


@dataclass(frozen=True)
class Case:
    """A rendered scene and instructions about its first frame."""

    scene: Scene
    clip: Clip
    expressions: tuple[SceneInstruction, ...]


def frame_size(aspect: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) of a frame of an aspect (width, height) whose longest side is `longest` pixels."""
    width, height = aspect
    return round(longest * height / max(aspect)), round(longest * width / max(aspect))


def seen_actors(scene: Scene, t: int, ids: np.ndarray) -> tuple[Seen, ...]:
    """The actors with at least one visible pixel in the id map (height, width) of frame t."""
    height, width = ids.shape
    fractions = visible_fractions(scene, t, height, width, ids)
    by_id = {actor.id: actor for actor in scene.actors}
    seen = []
    for key, (x1, y1, x2, y2) in boxes_of(ids).items():
        actor = by_id[key]
        box = (x1 / width, y1 / height, x2 / width, y2 / height)
        area = float((ids == key).sum()) / ids.size
        seen.append(Seen(key, actor.category, actor.colour, actor.size, box, area, fractions.get(key, 0.0)))
    return tuple(seen)


def scene_expressions(scene: Scene, t: int, seen: tuple[Seen, ...], rng: np.random.Generator) -> list[SceneInstruction]:
    """All instructions about frame t of a scene."""
    return expressions(seen, scene.kind, leader(scene, t), scene.split, rng)


def one_of_each_kind(found: list[SceneInstruction], rng: np.random.Generator) -> tuple[SceneInstruction, ...]:
    """One instruction of every kind that the frame allows, its form drawn first so that rare forms are heard."""
    chosen = []
    for kind in KINDS:
        forms = sorted({e.form for e in found if e.kind == kind})
        if forms:
            form = forms[int(rng.integers(len(forms)))]
            options = [e for e in found if e.kind == kind and e.form == form]
            chosen.append(options[int(rng.integers(len(options)))])
    return tuple(chosen)


def description(case: Case, t: int, key: int) -> str:
    """What an actor is and where on frame t, as a describer says it: "the red dog top left"; "" where it is unclear."""
    found = [one for one in seen_actors(case.scene, t, case.clip.ids[t]) if one.id == key and is_clear(one)]
    return f"{describe(found[0])} {region(found[0].box)}" if found else ""


def make_case(seed: int, split: str = "test", frames: int = 36, longest: int = 320) -> Case:
    """A scene, its clip and one instruction of each kind about its first frame; the same for the same arguments."""
    scene = make_scene(seed, split=split, frames=frames)
    clip = render_clip(scene, *frame_size(scene.aspect, longest))
    rng = np.random.default_rng([seed, 5])
    found = scene_expressions(scene, 0, seen_actors(scene, 0, clip.ids[0]), rng)
    return Case(scene, clip, one_of_each_kind(found, rng))
