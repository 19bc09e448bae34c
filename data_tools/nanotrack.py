"""NanoTrack over a folder of DAVIS: a tracker of another project, whose result files the kits score like any others.

    python -m data_tools nanotrack DAVIS -o OUT --weights checkpoints/nanotrack/nanotrackv2
    python -m eval lasot --data OUT/annotations --results OUT/results
    python -m eval lasot --data OUT/annotations --model nano-memory --prompt box    # a model beside it

The tracker is OpenCV's `cv2.TrackerNano` (HonglinChu/SiamTrackers, Apache-2.0), which needs its two ONNX files and
nothing else. It begins with the box of the first frame's mask, which the annotations hold too. OUT/annotations is a
tree as LaSOT's toolkit wants it: boxes of the masks, flags of absence, the sequence's name as its sentence; the frames
are links to those of DAVIS.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from data_tools.box_writers import boxes_of_object, line_of, one_based, write_text
from data_tools.writers import take_folder, write_json
from trackgpt.data.trees import listing
from trackgpt.data.videos import LabelMasks, read_image
from trackgpt.errors import InputError, ModelError
from trackgpt.files import refuse_to_hold, writing

MANIFEST = "nanotrack.json"
MADE = ("annotations", "results")
SIZES = ("480p", "240p")  # of DAVIS, the first that has a sequence is taken


@dataclass(frozen=True)
class DavisSequence:
    """A sequence of DAVIS.

    Attributes:
        name: of its folders.
        images: its frames.
        masks: its label maps, one per frame.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def boxes(self) -> np.ndarray:
        """Boxes of all that is not background: float64 (T, 4) xywh, zeros where there is nothing.

        Raises:
            InputError: a mask cannot be read.
        """
        masks = LabelMasks(self.masks, union=True)
        return boxes_of_object(np.stack([masks.mask((), t) for t in range(len(self.masks))]).astype(np.uint8), 1)


def davis_sequences(root: Path, sizes: Iterable[str] = SIZES) -> list[DavisSequence]:
    """The sequences of `root`/{JPEGImages,Annotations}/{480p,240p}, each in the first of the sizes that has it.

    Raises:
        InputError: there are none, or frames and masks differ in number.
    """
    found: dict[str, DavisSequence] = {}
    for size in sizes:
        for folder in sorted((root / "JPEGImages" / size).glob("*")):
            images = tuple(sorted(folder.glob("*.jpg")))
            masks = tuple(sorted((root / "Annotations" / size / folder.name).glob("*.png")))
            if len(images) != len(masks):
                raise InputError(f"{folder}: {len(images)} frames and {len(masks)} masks; unpack the sequence again")
            found.setdefault(folder.name, DavisSequence(folder.name, images, masks))
    if not found:
        wanted = f"JPEGImages/{' or '.join(sizes)}/SEQUENCE"
        raise InputError(f"{root}: no {wanted} here; wanted the folder of DAVIS; it holds {listing(root)}")
    return [found[name] for name in sorted(found)]


def nanotrack(weights: Path) -> Any:
    """A tracker from a folder with two ONNX files, called ...backbone... and ...head....

    Raises:
        ModelError: they are not there, or OpenCV cannot read them or was built without this tracker.
    """
    import cv2

    files = {part: sorted(weights.glob(f"*{part}*.onnx")) for part in ("backbone", "head")}
    lacking = [part for part, paths in files.items() if len(paths) != 1]
    if lacking:
        raise ModelError(f"{weights}: wanted one *{lacking[0]}*.onnx; it holds {listing(weights)}")
    if not hasattr(cv2, "TrackerNano_create"):
        raise ModelError(f"OpenCV {cv2.__version__} has no TrackerNano; install opencv-python-headless 4.10 or later")
    parameters = cv2.TrackerNano_Params()
    parameters.backbone, parameters.neckhead = (str(paths[0]) for paths in files.values())
    try:
        return cv2.TrackerNano_create(parameters)
    except cv2.error as error:
        raise ModelError(f"{weights}: OpenCV cannot read these weights ({error}); copy them again") from error


def track(tracker: Any, frames: Iterable[np.ndarray], first: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """The box and the seconds of every frame.

    Args:
        tracker: of `nanotrack`; begins anew.
        frames: uint8 RGB (height, width, 3).
        first: float64 (4,) xywh, the box in the first frame.

    Yields:
        float64 (4,) xywh, and the time without reading the frame.
    """
    box = first
    for t, frame in enumerate(frames):
        picture = np.ascontiguousarray(frame[:, :, ::-1])  # OpenCV's order of colours
        began = time.perf_counter()
        if t == 0:
            tracker.init(picture, tuple(int(round(value)) for value in first))
        else:
            found, rectangle = tracker.update(picture)
            box = np.array(rectangle, np.float64) if found else box
        yield box, time.perf_counter() - began


def write_annotations(root: Path, name: str, boxes: np.ndarray, frames: Path) -> None:
    """Add a sequence to a tree of LaSOT: annos/{NAME.txt,absent,nlp}, NAME/img a link to the folder of its frames.

    Boxes are float64 (T, 4) xywh from 0.
    """
    write_text(root / f"annos/{name}.txt", "\n".join(map(line_of, one_based(boxes))))
    write_text(root / f"annos/absent/{name}.txt", "\n".join(str(int(not box.any())) for box in boxes))
    write_text(root / f"annos/nlp/{name}.txt", name)
    with writing(root / name):
        (root / name).mkdir()
        (root / name / "img").symlink_to(frames.resolve(), target_is_directory=True)


def command(
    davis: Annotated[Path, typer.Argument(help="Folder of DAVIS, with JPEGImages and Annotations")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for annotations and results")],
    weights: Annotated[Path, typer.Option(help="Folder of nanotrack_backbone*.onnx and nanotrack_head*.onnx")],
    size: Annotated[str, typer.Option(help="480p or 240p; empty takes the larger one of each sequence")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote there")] = False,
) -> None:
    """Track DAVIS with NanoTrack, for `python -m eval lasot --data OUT/annotations --results OUT/results`."""
    import cv2

    cv2.setNumThreads(1)
    sequences = davis_sequences(davis, [size] if size else SIZES)
    tracker = nanotrack(weights)
    refuse_to_hold(out, [davis, weights])
    with writing(out):
        take_folder(out, overwrite, MADE, MANIFEST, "nanotrack")
        write_json(out / MANIFEST, {"made by": "python -m data_tools nanotrack", "davis": str(davis)})
    for sequence in sequences:
        truth = sequence.boxes()
        write_annotations(out / "annotations", sequence.name, truth, sequence.images[0].parent)
        tracked = list(track(tracker, map(read_image, sequence.images), truth[0]))
        write_text(out / f"results/{sequence.name}.txt", "\n".join(line_of(one_based(box)) for box, _ in tracked))
        write_text(out / f"results/{sequence.name}_time.txt", "\n".join(f"{seconds:.6f}" for _, seconds in tracked))
    names = "\n".join(sequence.name for sequence in sequences)
    write_text(out / "annotations/sequence_evaluation_config/testing_set.txt", names)
    frames = sum(len(sequence.images) for sequence in sequences)
    print(f"sequences={len(sequences)} frames={frames} out={out}")
