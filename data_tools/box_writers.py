"""Writes SynthTrack cases in the layouts of the box benchmarks: miniatures for tests and for trying the kits.

`trackgpt/data/{box_video,query_clips,mot_sequences}` read them. Every function writes one part below a root:
``write_NAME(root, cases, part)``; a part is "train", "valid" or "test" and becomes what the real set calls it. Writing
further parts adds to the lists.

A sequence is the first object that an instruction means alone; a case without such an instruction is skipped. Boxes are
x, y, w, h of the visible pixels, zeros where there are none, which is also where the flags say absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.writers import Counts, single_target, stem, write_frames, write_json
from trackgpt.data.box_files import INTERACTTRACK_SCENES, LASOT_ATTRIBUTES, TNL2K_ATTRIBUTES, TNLLT_ATTRIBUTES
from trackgpt.data.box_video import INTERACTION
from trackgpt.data.mot_sequences import QUERIES
from trackgpt.data.trees import read_json
from trackgpt.errors import UsageError
from trackgpt.export.interacttrack import SequenceLines, write_sequence
from trackgpt.files import writing
from trackgpt.geometry.masks import box_of
from trackgpt.synthtrack.clips import Case, scene_expressions, seen_actors
from trackgpt.synthtrack.interaction import scene_flags, script_of
from trackgpt.synthtrack.render import boxes_of
from trackgpt.synthtrack.scene import SceneInstruction

CLIP_FRAMES = 5  # of a clip of RMOT26, the reference apart
APART = (1, 2, 3, 4)  # frames of the video from one of these to the next
CROWD = 5  # objects on the reference from which on a clip shows a crowd
LEAST_SEEN = 30  # pixels of an object that is asked about, on the reference
_STREAM = 26  # of the scene's random numbers, for what is asked about later frames
_LISTS = {"train": "train", "valid": "test", "test": "test"}


@dataclass(frozen=True)
class BoxTarget:
    """One object of a case, and what is said of it.

    Attributes:
        case: it is in.
        said: an instruction that means it alone.
        boxes: float64 (T, 4) xywh, zeros where it cannot be seen.
    """

    case: Case
    said: SceneInstruction
    boxes: np.ndarray

    @property
    def category(self) -> str:
        """Its category, in one word."""
        actors = {actor.id: actor for actor in self.case.scene.actors}
        return actors[self.said.targets[0]].category.replace(" ", "")

    @property
    def absent(self) -> np.ndarray:
        """bool (T,), True where it cannot be seen."""
        return ~self.boxes.any(axis=1)


def boxes_of_object(ids: np.ndarray, key: int) -> np.ndarray:
    """Boxes of an object in id maps, uint8 (T, height, width): float64 (T, 4) xywh, zeros where it is not seen."""
    boxes = np.array([box_of(frame == key) for frame in ids], np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return np.nan_to_num(boxes)


def one_based(boxes: np.ndarray) -> np.ndarray:
    """Boxes xywh (..., 4) in LaSOT's numbers, whose first pixel is 1; zeros, for no box, stay."""
    return boxes + [1, 1, 0, 0] * boxes.any(axis=-1, keepdims=True)


def targets_of(case: Case) -> list[BoxTarget]:
    """The objects that an instruction means alone and that frame 0 shows, each once."""
    found: dict[int, BoxTarget] = {}
    for said in single_target(case):
        key = said.targets[0]
        boxes = boxes_of_object(case.clip.ids, key)
        if key not in found and boxes[0].any():
            found[key] = BoxTarget(case, said, boxes)
    return list(found.values())


def write_lasot(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """LaSOT: ``<class>/<class>-k/{img,groundtruth.txt,full_occlusion.txt,out_of_view.txt,nlp.txt}``, ``annos/att``.

    ``testing_set.txt`` or ``training_set.txt`` lists the part. A target that is not seen is fully occluded. Pixels
    count from 1 (`one_based`).

    Args:
        root: folder of the data set.
        cases: one sequence each.
        part: "train", "valid" or "test".

    Returns:
        How much was written.
    """
    counts = Counts()
    listed = root / {"train": "training_set.txt", "test": "testing_set.txt"}[_part(part)]
    for target in _first_targets(cases, counts):
        number = len(list((root / target.category).glob("*"))) + 1
        name = f"{target.category}-{number}"
        folder = root / target.category / name
        _write_images(folder / "img", target.case, counts)
        _write_boxes(folder / "groundtruth.txt", one_based(target.boxes))
        write_text(folder / "full_occlusion.txt", ",".join(str(int(flag)) for flag in target.absent))
        write_text(folder / "out_of_view.txt", ",".join("0" for _ in target.absent))
        write_text(folder / "nlp.txt", target.said.text)
        write_text(root / f"annos/att/{name}.txt", ",".join(map(str, _attributes(target, LASOT_ATTRIBUTES))))
        _append(listed, name)
    return counts


def write_tnl2k(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """TNL2K: ``<sequence>/{imgs,groundtruth.txt,language.txt}``, ``annos/{absent,att}``, the lists of the toolkit.

    Args and returns as for `write_lasot`.
    """
    counts = Counts()
    listed = {"train": "TNL2K_train_set.txt", "test": "TNL2K_testing_set.txt"}[_part(part)]
    for target in _first_targets(cases, counts):
        name = f"Synth_{target.case.clip.name}_done"
        _write_images(root / name / "imgs", target.case, counts)
        _write_boxes(root / name / "groundtruth.txt", target.boxes)
        write_text(root / name / "language.txt", target.said.text)
        write_text(root / f"annos/absent/{name}.txt", "\n".join(str(int(flag)) for flag in target.absent))
        flags = _attributes(target, TNL2K_ATTRIBUTES)
        write_text(root / f"annos/att/{name}_attribute.txt", "\n".join(map(str, flags)))
        _append(root / "sequence_evaluation_config" / listed, name)
    return counts


def write_tnllt(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """TNLLT: ``<sequence>/{imgs,groundtruth.txt,absent_label.txt,attributes.txt,language.txt}`` and split lists.

    Its flag is 1 where the target is PRESENT. Args and returns as for `write_lasot`.
    """
    counts = Counts()
    for target in _first_targets(cases, counts):
        name = f"JE_{target.category}_video_{target.case.clip.name}"
        _write_images(root / name / "imgs", target.case, counts, first=1)
        _write_boxes(root / name / "groundtruth.txt", target.boxes)
        write_text(root / name / "absent_label.txt", "\n".join(str(int(not flag)) for flag in target.absent))
        write_text(root / name / "attributes.txt", ",".join(map(str, _attributes(target, TNLLT_ATTRIBUTES))))
        write_text(root / name / "language.txt", target.said.text)
        _append(root / f"tnl_lt_{_part(part)}_split.txt", name)
    return counts


def write_interacttrack(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """InteractTrack: ``<sequence>/{imgs,groundtruth.txt,description.txt,switch.txt,scene.txt,meta_info.ini}``.

    What is said is SynthTrack-Interact's script of the clip (`trackgpt.synthtrack.interaction`). Boxes are of its main
    target, and a line is a single 0 where that is not seen. Beside the files of the release, ``interaction.json`` holds
    what these have no place for: the kinds of what is said, further targets, and what to say where another thing is
    tracked. Args and returns as for `write_lasot`; there are no parts, so all go into one folder.
    """
    _part(part)
    counts = Counts()
    for case in cases:
        script = script_of(case.scene, case.clip.ids)
        if script is None:
            counts.skipped += 1
            continue
        folder = root / f"v_{case.clip.name}-{script.said[0].targets[0]}"
        boxes = [boxes_of(ids) for ids in case.clip.ids]
        lines = SequenceLines(
            boxes=[here.get(ids[0]) for here, ids in zip(boxes, script.followed, strict=True)],
            said={said.frame: said.text for said in script.said},
            fps=case.clip.fps,
            size=case.clip.ids.shape[1:],
            old={said.frame: boxes[said.frame][said.old] for said in script.said if said.old in boxes[said.frame]},
        )
        _write_images(folder / "imgs", case, counts)
        write_sequence(folder, lines)
        flags = scene_flags(case.scene, script)
        write_text(folder / "scene.txt", ",".join(str(int(name in flags)) for name in INTERACTTRACK_SCENES))
        write_json(folder / INTERACTION, script.as_json())
        counts.add(videos=1, expressions=len(script.said))
    return counts


@dataclass(frozen=True)
class QuestionClip:
    """A clip of RMOT26: some frames of a case, and a question about objects of the first one.

    Attributes:
        frames: the reference and those after it.
        question: see there.
        keys: ids of the objects that are meant, one for a clip of one object.
        scenario: "crowd", "occlusion", "re-entry", or "" for none of them.
    """

    frames: range
    question: str
    keys: tuple[int, ...]
    scenario: str = ""


def write_rmot26(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """RMOT26: ``{train,test}/{annotations.json,Images}``; the clips of `question_clips` of each case.

    Boxes are a string of JSON, as in the release. Frames in which a target is not seen have no entry. "scenario" is
    ours. Args and returns as for `write_lasot`; skipped are cases with nothing to ask.
    """
    folder, counts = root / _part(part), Counts()
    file = folder / "annotations.json"
    items = read_json(file) if file.exists() else []
    for case in cases:
        clips = question_clips(case)
        counts.skipped += not clips
        shown = sorted({t for clip in clips for t in clip.frames})
        for t in shown:
            write_frames(folder / "Images" / case.clip.name, case.clip.frames, range(t, t + 1))
        items += [{"id": len(items) + k, **_annotated(case, clip)} for k, clip in enumerate(clips)]
        counts.add(videos=bool(clips), frames=len(shown), expressions=len(clips))
    write_json(file, items)
    return counts


def question_clips(case: Case) -> list[QuestionClip]:
    """What RMOT26 asks of a case: of the first frames one object, and several where that can be said; and of a window
    each, where there is one, an object that is hidden for a while, and one that leaves and comes back.
    """
    found, first = targets_of(case), range(CLIP_FRAMES + 1)
    if not found:
        return []
    crowd = "crowd" if len(np.unique(case.clip.ids[0])) > CROWD else ""  # the background is one of the values
    clips = [QuestionClip(first, found[0].said.text, found[0].said.targets, crowd)]
    several = [said for said in case.expressions if len(said.targets) > 1]
    if several:
        clips.append(QuestionClip(first, several[0].text, several[0].targets, crowd))
    elif len(found) > 1:
        keys = tuple(each.said.targets[0] for each in found)
        clips.append(QuestionClip(first, " and ".join(each.said.text for each in found), keys, crowd))
    return [*clips, *(clip for name in ("occlusion", "re-entry") for clip in [_lost_and_found(case, name)] if clip)]


def _lost_and_found(case: Case, scenario: str) -> QuestionClip | None:
    """The clip of an object that is seen on the first and on the last frame, and less than half, or not, in between."""
    for actor in case.scene.actors:
        left = any(what == "leaves" and who == actor.id for _, what, who in case.scene.events)
        if left != (scenario == "re-entry"):
            continue
        area = (case.clip.ids == actor.id).sum((1, 2))
        for frames in _windows(len(area)):
            seen = area[list(frames)]
            hidden = seen[1:-1].min() == 0 if left else seen[1:-1].min() < 0.5 * seen[0]
            if seen[0] >= LEAST_SEEN and seen[-1] >= 0.5 * seen[0] and hidden:
                said = _question_about(case, actor.id, frames[0])
                if said:
                    return QuestionClip(frames, said, (actor.id,), scenario)
    return None


def _windows(count: int) -> Iterator[range]:
    """The frames of all clips of a video of so many frames, closely spaced ones first."""
    for apart in APART:
        for begin in range(count - CLIP_FRAMES * apart):
            yield range(begin, begin + CLIP_FRAMES * apart + 1, apart)


def _question_about(case: Case, key: int, t: int) -> str:
    """What can be said of an object alone on a frame; empty for nothing."""
    rng = np.random.default_rng([case.scene.seed, _STREAM, t])
    found = scene_expressions(case.scene, t, seen_actors(case.scene, t, case.clip.ids[t]), rng)
    return next((said.text for said in found if said.targets == (key,)), "")


def _annotated(case: Case, clip: QuestionClip) -> dict[str, Any]:
    """The entry of a clip in annotations.json, without its id."""
    images = [f"Images/{case.clip.name}/{stem(t)}.jpg" for t in clip.frames]
    item: dict[str, Any] = {"ref_image": images[0], "input_images": images[1:], "num_input_images": CLIP_FRAMES}
    item |= {"question": clip.question} | ({"scenario": clip.scenario} if clip.scenario else {})
    boxes = {key: boxes_of_object(case.clip.ids, key) for key in clip.keys}
    first, ways = clip.frames[0], {key: _trajectory(boxes[key], clip.frames) for key in clip.keys}
    if len(clip.keys) == 1:
        (key,) = clip.keys
        box = boxes[key][first].tolist()
        return item | {"track_id": key, "initial_bbox": box, "expected_output": json.dumps(ways[key])}
    numbered = list(enumerate(clip.keys, 1))
    objects = [{"object_id": k, "track_id": key, "initial_bbox": boxes[key][first].tolist()} for k, key in numbered]
    expected = {f"object_{k}": {"track_id": key, "trajectory": ways[key]} for k, key in numbered}
    return item | {"num_objects": len(objects), "objects": objects, "expected_output": json.dumps(expected)}


def _trajectory(boxes: np.ndarray, frames: range) -> list[dict[str, Any]]:
    """Boxes of the frames after the reference; the reference's own where the target is never seen again."""
    seen = [t for t in frames[1:] if boxes[t].any()] or [frames[0]]
    return [{"frame": t, "bbox": boxes[t].tolist()} for t in seen]


def write_mot(root: Path, cases: Iterable[Case], part: str) -> Counts:
    """MOTChallenge: ``{train,val,test}/<sequence>/{seqinfo.ini,img1,gt/gt.txt}``; all objects are pedestrians (1).

    ``queries.json``, which is ours, asks about the objects of the first frame. Args and returns as for `write_lasot`.
    """
    _part(part)
    counts = Counts()
    for case in cases:
        frames, height, width = case.clip.ids.shape
        folder = root / {"train": "train", "valid": "val", "test": "test"}[part] / f"SynthTrack-{case.clip.name}"
        _write_images(folder / "img1", case, counts, first=1)
        keys = [actor.id for actor in case.scene.actors]
        boxes = {key: boxes_of_object(case.clip.ids, key) for key in keys}
        lines = [
            f"{t + 1},{key},{line_of(boxes[key][t])},1,1,1"
            for t in range(frames)
            for key in keys
            if boxes[key][t].any()
        ]
        write_text(folder / "gt/gt.txt", "\n".join(lines))
        info = {"name": folder.name, "imDir": "img1", "frameRate": round(case.clip.fps), "seqLength": frames}
        info |= {"imWidth": width, "imHeight": height, "imExt": ".jpg"}
        asked = [{"question": one.said.text, "track_ids": [one.said.targets[0]]} for one in targets_of(case)]
        write_json(folder / QUERIES, [question | {"frame": 1, "frames": frames} for question in asked])
        write_text(folder / "seqinfo.ini", "\n".join(["[Sequence]", *(f"{key}={info[key]}" for key in info)]))
        counts.add(videos=1)
    return counts


# What all of them share


def _part(part: str) -> str:
    """The list a part belongs to: "train" or "test"."""
    if part not in _LISTS:
        raise UsageError(f"part {part!r} is unknown; take one of {', '.join(_LISTS)}")
    return _LISTS[part]


def _first_targets(cases: Iterable[Case], counts: Counts) -> Iterator[BoxTarget]:
    """The first target of each case, counted; cases without one are counted as skipped."""
    for case in cases:
        found = targets_of(case)
        if found:
            counts.add(videos=1, expressions=1)
            yield found[0]
        else:
            counts.skipped += 1


def _attributes(target: BoxTarget, names: Sequence[str]) -> list[int]:
    """Flags that can be read off the boxes: OV and FOC where it is absent, SV where its size doubles."""
    sizes = target.boxes[~target.absent, 2:].prod(axis=1)
    has = {
        "FOC": target.absent.any(),
        "OV": target.absent.any(),
        "SV": bool(len(sizes)) and np.ptp(sizes) > sizes.min(),
    }
    return [int(has.get(name, False)) for name in names]


def _write_images(folder: Path, case: Case, counts: Counts, first: int = 0) -> None:
    """Write all frames, named from `first` on."""
    shifted = (
        case.clip.frames if first == 0 else np.concatenate((case.clip.frames[:1].repeat(first, 0), case.clip.frames))
    )
    write_frames(folder, shifted, range(first, len(shifted)))
    counts.add(frames=len(case.clip.frames))


def line_of(box: np.ndarray) -> str:
    """A box as the benchmarks write it: numbers between commas."""
    return ",".join(f"{value:g}" for value in box)


def _write_boxes(file: Path, boxes: np.ndarray) -> None:
    write_text(file, "\n".join(map(line_of, boxes)))


def _append(file: Path, name: str) -> None:
    before = file.read_text("utf-8") if file.exists() else ""
    write_text(file, f"{before}{name}")


def write_text(file: Path, text: str) -> None:
    """Write a text and a newline, with the folder."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
