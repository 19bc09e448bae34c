"""Boxes with class names from any object detector in ONNX, run on the CPU by ONNX Runtime.

What the numbers of a file mean is recognised, or stands in FILE.yaml beside FILE.onnx (`detector_layouts`). Class names
come from there, from the file's own metadata, or are COCO's where there are 80 or 91 classes. Nothing that a file holds
is run but its network.

Licences of the families, which a file seldom says itself:

    YOLOX       Apache-2.0
    RT-DETR     Apache-2.0
    D-FINE      Apache-2.0
    RF-DETR     Apache-2.0 (its XL and 2XL weights: Platform Model License)
    FastestDet  BSD-3-Clause
    YOLOv6, v7  GPL-3.0
    Ultralytics YOLO (v5, v8, v11, v26)  AGPL-3.0, or an enterprise licence
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import cv2
import numpy as np

from trackgpt.data.class_names import COCO, COCO_BY_ID
from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.onnx_session import onnx_session
from trackgpt.reasoners.detector_layouts import LARGEST_SIDE, LAYOUTS, Description, Raw, Size, called, recognised
from trackgpt.reasoners.grounder import Candidate
from trackgpt.settings import from_dict, read_values
from trackgpt.version import require

FLOOR = 0.05
"""Lowest score that is given; the caller knows better which it believes."""
MOST_DETECTIONS = 100
"""Candidates of a frame, the best."""
CONSIDERED = 1000
"""The best so many are looked at for duplicates."""
OPEN_SIDE = 640
"""Pixels of an input whose size the file leaves open and nothing else tells."""

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_SIZES = "orig_target_sizes"
MOST_NAMES = 10**6
"""Bytes of a file of class names."""
_NAMED_LISTS = {"coco": COCO, "coco91": COCO_BY_ID}


@dataclass(frozen=True)
class _Placed:
    """Where a frame lies in a network's input: `width` x `height` pixels, its corner at (`left`, `top`)."""

    frame: Size
    size: Size
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, frame: Size, size: Size, fit: str) -> _Placed:
        """How a frame is fitted into an input of a size; see `Description.fit`."""
        if fit == "as-is":
            return cls(frame, frame, 0, 0, *frame)
        if fit == "stretch":
            return cls(frame, size, 0, 0, *size)
        scale = min(size[0] / frame[0], size[1] / frame[1])
        width, height = (max(1, round(side * scale)) for side in frame)
        centre = fit == "letterbox-centre"
        left, top = ((size[0] - width) // 2, (size[1] - height) // 2) if centre else (0, 0)
        return cls(frame, size, left, top, width, height)

    def apply(self, image: np.ndarray, pad: int) -> np.ndarray:
        """The input's pixels, uint8 (height, width, 3), scaled as most of these networks were trained: bilinear."""
        if (self.width, self.height) != self.frame:
            image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        if (self.width, self.height) == self.size:
            return image
        pixels = np.full((self.size[1], self.size[0], 3), pad, np.uint8)
        pixels[self.top : self.top + self.height, self.left : self.left + self.width] = image
        return pixels

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) of the input in pixels of the frame, cut at its edges."""
        scale = np.array([self.frame[0] / self.width, self.frame[1] / self.height] * 2)
        moved = (boxes - np.array([self.left, self.top] * 2)) * scale
        return np.clip(moved, 0, np.array([*self.frame, *self.frame], float))


class _Image(NamedTuple):
    """The input that takes the image; a width or height of 0 is open."""

    name: str
    dtype: type
    batched: bool
    channels_last: bool
    width: int
    height: int


class _Network:
    """An ONNX file that takes one image, run with as many threads as PyTorch has at that moment.

    Raises:
        UsageError: ONNX Runtime is not installed.
        ModelError: MD01, there is no such file; MD02, it cannot be run, or takes something else than an image.
    """

    def __init__(self, file: Path) -> None:
        require("onnx", "onnxruntime")
        if not file.is_file():
            raise ModelError(f"{file}: no such file; wanted an object detector in ONNX", "MD01")
        self.file = file
        self._sessions: dict[int, Any] = {}
        self._making = Lock()
        session = self._session()
        try:
            self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
            self.outputs = [each.name for each in session.get_outputs()]
            inputs = {each.name: each for each in session.get_inputs()}
        except UnicodeDecodeError as error:
            raise ModelError(f"{file}: is damaged ({error}); fetch or export it again", "MD02") from error
        self.sized = inputs.pop(_SIZES, None)
        images = [image for each in inputs.values() if (image := _image(each)) is not None]
        if len(images) != 1 or len(inputs) != 1:
            said = ", ".join(f"{each.name} {each.shape}" for each in inputs.values())
            raise ModelError(f"{file}: takes {said or 'nothing'}; wanted a detector that takes one image", "MD02")
        self.image = images[0]

    def run(self, pixels: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Outputs as float32 for what was made of an image: (height, width, 3) in the network's own range.

        Raises:
            ModelError: MD02, the network fails on it or gives something else than arrays of numbers.
        """
        height, width = pixels.shape[:2]
        values = pixels if self.image.channels_last else pixels.transpose(2, 0, 1)
        values = values[None] if self.image.batched else values
        fed: dict[str, np.ndarray] = {self.image.name: np.ascontiguousarray(values, self.image.dtype)}
        if self.sized is not None:  # the boxes then come back in pixels of the input, as everybody else's do
            dtype = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(self.sized.type, np.float32)
            fed[_SIZES] = np.array([[width, height]], dtype)
        try:
            found = self._session().run(list(names), fed)
            return [np.asarray(each, np.float32) for each in found]
        except Exception as error:  # ONNX Runtime's have no class in common
            raise ModelError(f"{self.file}: fails on an image ({_said(error)}); export it again", "MD02") from error

    def _session(self) -> Any:
        import torch

        threads = torch.get_num_threads()
        with self._making:
            if threads not in self._sessions:
                try:
                    self._sessions[threads] = onnx_session(self.file, threads)
                except Exception as error:  # ONNX Runtime's have no class in common
                    reason = f"cannot be run as ONNX ({_said(error)})"
                    raise ModelError(f"{self.file}: {reason}; fetch or export it again", "MD02") from error
            return self._sessions[threads]


def _said(error: Exception) -> str:
    """What ONNX Runtime says, short and in one line."""
    text = " ".join(str(error).split())
    return text.split(" : ", 3)[-1][:200] if text.startswith("[ONNXRuntimeError]") else text[:200]


def _image(given: Any) -> _Image | None:
    """An input that one RGB image fits, or None."""
    shape = [each if isinstance(each, int) and each > 0 else 0 for each in given.shape]
    if given.type not in _DTYPES or len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] not in (0, 1)):
        return None
    sides = shape[-3:]
    last = sides[0] not in (0, 3) and sides[2] == 3
    channels, height, width = (sides[2], *sides[:2]) if last else sides
    if channels not in (0, 3) or max(height, width) > LARGEST_SIDE:
        return None
    return _Image(given.name, _DTYPES[given.type], len(shape) == 4, last, width, height)


class OnnxDetector:
    """Finds objects of named classes; made by `from_file`.

    Attributes:
        name: for people.
        names: of the classes, the index is the label; "" for a label of no class, which is never given.
        licence: of the weights, as the file's metadata or its YAML say it; "" where they do not.
        description: how the numbers are read.
        floor: lowest score of a candidate.
    """

    def __init__(self, network: _Network, names: tuple[str, ...], description: Description, licence: str) -> None:
        self.name = network.file.stem
        self.names = names
        self.licence = licence
        self.description = description
        self.floor = FLOOR
        self._network = network
        self._is_class = np.array([bool(name) for name in names])

    @classmethod
    def from_file(cls, file: str | Path) -> OnnxDetector:
        """Open FILE.onnx, described by FILE.yaml where there is one.

        Raises:
            UsageError: ONNX Runtime is not installed; FILE.yaml says something that it cannot mean.
            ModelError: MD01, there is no such file; MD02, it is damaged, or no detector that is recognised, or its
                classes have no names; the line says how to describe it.
        """
        network = _Network(Path(file).expanduser())
        yaml = network.file.with_suffix(".yaml")
        said = read_values(yaml) if yaml.is_file() else {}
        given = from_dict(Description, said, str(yaml))
        names = _listed(given.classes, yaml) or _metadata_names(network.metadata)
        layout = given.layout or _recognised(network, given, names, yaml)
        described = from_dict(Description, LAYOUTS[layout].usual | said | {"layout": layout}, str(yaml))
        described = _whole(described, network, yaml)
        raw = _looked(network, described, yaml)
        count = raw.scores.shape[1] if raw.labels is None else None
        licence = described.licence or network.metadata.get("license", "")
        return cls(network, _fitting(names, count, layout, yaml, network.file), described, licence)

    def detect(self, image: np.ndarray) -> list[Candidate]:
        """The objects on an image, best first, at most `MOST_DETECTIONS`.

        A box may come several times with different classes, as the network scores them; duplicates of one class are
        left out.

        Args:
            image: uint8 RGB (height, width, 3).

        Returns:
            Boxes in pixels of the image, scores from `floor` to 1, and the names of the classes as labels.

        Raises:
            ModelError: MD02, the network fails on the image.
        """
        height, width = image.shape[:2]
        placed = _Placed.of((width, height), (self.description.width, self.description.height), self.description.fit)
        raw = _read(self._network, self.description, placed, image)
        boxes, scores, labels = _scored(raw, self.floor)
        boxes = placed.back(boxes)
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        real &= (labels >= 0) & (labels < len(self.names))
        real[real] = self._is_class[labels[real]]
        boxes, scores, labels = boxes[real], scores[real], labels[real]
        kept = _best(boxes, scores, labels, self.description.overlap)
        return [
            Candidate((box[0], box[1], box[2], box[3]), min(score, 1.0), self.names[label])
            for box, score, label in zip(boxes[kept].tolist(), scores[kept].tolist(), labels[kept].tolist())
        ]


def is_onnx(path: str | Path) -> bool:
    """Whether a path is named as an ONNX file is, there or not."""
    return Path(path).suffix.lower() == ".onnx"


def _scored(raw: Raw, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), scores (n,) and labels (n,) of every pair of box and class from `floor` on; all are numbers."""
    finite = np.isfinite(raw.boxes).all(axis=1)
    if raw.labels is None:
        rows, labels = np.nonzero((raw.scores >= floor) & finite[:, None])
        return raw.boxes[rows], raw.scores[rows, labels], labels
    rows = np.flatnonzero((raw.scores >= floor) & finite & np.isfinite(raw.labels))
    return raw.boxes[rows], raw.scores[rows], np.clip(raw.labels[rows], -1, 1 << 30).astype(int)


def _best(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, overlap: float) -> np.ndarray:
    """Places of the best, best first, of each class those that do not cover one another."""
    order = np.argsort(-scores, kind="stable")[:CONSIDERED]
    if overlap < 1 and len(order):
        corner, sides = boxes[order, :2], boxes[order, 2:] - boxes[order, :2]
        found = cv2.dnn.NMSBoxesBatched(
            np.hstack([corner, sides]).tolist(), scores[order].tolist(), labels[order].tolist(), 0.0, overlap
        )
        order = order[np.sort(np.asarray(found, int).reshape(-1))]
    return order[:MOST_DETECTIONS]


def _read(network: _Network, given: Description, placed: _Placed, image: np.ndarray) -> Raw:
    """What the network sees on an image, in pixels of its input."""
    pixels = placed.apply(image, given.pad)
    pixels = pixels[..., ::-1] if given.colour == "bgr" else pixels
    if network.image.dtype is not np.uint8:
        mean, std = np.array(given.mean, np.float32), np.array(given.std, np.float32)
        pixels = (pixels.astype(np.float32) / np.float32(given.scale) - mean) / std
    outputs = network.run(pixels, given.outputs)
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number is left out later
        return LAYOUTS[given.layout].decode(outputs, given, placed.size)


def _looked(network: _Network, given: Description, yaml: Path) -> Raw:
    """What it sees on grey: fits the layout and the network together before any frame is there.

    Raises:
        ModelError: MD02, the outputs are not those of the layout.
    """
    size = given.width, given.height
    try:
        raw = _read(network, given, _Placed.of(size, size, given.fit), _grey(size))
        fits = raw.boxes.shape == (len(raw.scores), 4) and raw.scores.ndim == 1 + (raw.labels is None)
        fits = fits and (raw.labels is None or raw.labels.shape == raw.scores.shape)
        reason = f"boxes {raw.boxes.shape}, scores {raw.scores.shape}"
        if fits and (raw.scores >= -1e-2).all() and (raw.scores <= 1 + 1e-2).all():
            return raw
        reason = "scores outside 0 to 1" if fits else reason
    except (ValueError, IndexError) as error:
        reason = _said(error)
    raise ModelError(
        f"{network.file}: its outputs are not those of the layout {given.layout} ({reason}); "
        f"write another 'layout:' in {yaml.name} ({', '.join(LAYOUTS)})",
        "MD02",
    )


def _grey(size: Size) -> np.ndarray:
    return np.full((size[1], size[0], 3), 114, np.uint8)


def _whole(given: Description, network: _Network, yaml: Path) -> Description:
    """The description with the input's size and the outputs' names in it.

    Raises:
        UsageError: what the YAML says does not go together, or not with the file.
        ModelError: MD02, an output that the layout wants is not there.
    """
    if len(given.mean) != 3 or len(given.std) != 3:
        raise UsageError(f"{yaml}: wanted 3 values in 'mean' and in 'std', one a channel")
    if given.fit == "as-is" and (network.image.width or network.image.height):
        raise UsageError(f"{yaml}.fit: 'as-is' wants a network that takes frames of any size; choose another")
    names = given.outputs or called(given.layout, network.outputs)
    if len(names) != len(LAYOUTS[given.layout].outputs) or not set(map(str, names)) <= set(network.outputs):
        raise ModelError(
            f"{network.file}: the layout {given.layout} takes {len(LAYOUTS[given.layout].outputs)} of its outputs "
            f"{', '.join(network.outputs)}; name them in {yaml.name}, e.g. 'outputs: [{', '.join(network.outputs)}]'",
            "MD02",
        )
    width, height = _size(given, network, yaml)
    return from_dict(Description, asdict(given) | {"outputs": names, "width": width, "height": height}, str(yaml))


def _size(given: Description, network: _Network, yaml: Path) -> Size:
    """Of the input: the file's own, else what the YAML says, the metadata, or `OPEN_SIDE`.

    Raises:
        UsageError: the YAML says another one than the file.
    """
    usual = _literal(network.metadata.get("imgsz", ""))
    usual = usual if isinstance(usual, list) and len(usual) == 2 else [OPEN_SIDE, OPEN_SIDE]
    sides = []
    for name, fixed, said, known in (
        ("width", network.image.width, given.width, usual[1]),
        ("height", network.image.height, given.height, usual[0]),
    ):
        if fixed and said and fixed != said:
            raise UsageError(f"{yaml}.{name}: the file's input has {fixed} pixels, not {said}; leave the setting out")
        known = known if isinstance(known, int) and 0 < known <= LARGEST_SIDE else OPEN_SIDE
        sides.append(fixed or said or known)
    return sides[0], sides[1]


def _recognised(network: _Network, given: Description, names: tuple[str, ...], yaml: Path) -> str:
    """The layout of a file that nobody has described.

    Raises:
        ModelError: MD02, it is none that is known.
    """
    size = _size(given, network, yaml)
    task = network.metadata.get("task", "detect")
    outputs = dict(zip(network.outputs, network.run(_grey(size) / 255, network.outputs)))
    layout = recognised(outputs, size, network.sized is not None, len(names))
    if layout and task == "detect":
        return layout
    shapes = ", ".join(f"{name} {list(each.shape)}" for name, each in outputs.items())
    raise ModelError(
        f"{network.file}: no detector that is recognised (outputs {shapes}; task {task}); if it is one, describe it in "
        f"{yaml.name} beside it, e.g. 'layout: yolov8' and 'classes: [cat, dog]' (layouts: {', '.join(LAYOUTS)})",
        "MD02",
    )


def _fitting(names: tuple[str, ...], count: int | None, layout: str, yaml: Path, file: Path) -> tuple[str, ...]:
    """Names for as many classes as the network has; None where it does not tell.

    Raises:
        ModelError: MD02, there are none, or not so many.
    """
    if names and count in (None, len(names)):
        return names
    if names and layout == "rf-detr" and count == len(names) + 1:
        return (*names, "")  # its last slot stands for no object
    usual = next((each for each in _NAMED_LISTS.values() if not names and len(each) == count), None)
    if usual is not None:
        return usual
    classes = "its classes" if count is None else f"its {count} classes"
    found = f"{len(names)} names" if names else "no names"
    raise ModelError(
        f"{file}: {found} for {classes}; list them in {yaml.name} beside it: 'classes: [cat, dog, ...]', or "
        "'classes: names.txt' with one a line, or 'classes: coco' or 'coco91'",
        "MD02",
    )


def _listed(classes: Any, yaml: Path) -> tuple[str, ...]:
    """The class names of a YAML; none where it has no word of them.

    Raises:
        UsageError: they are no list of names, or their file cannot be read.
    """
    if isinstance(classes, str) and classes in _NAMED_LISTS:
        return _NAMED_LISTS[classes]
    if isinstance(classes, str):
        file = yaml.parent / classes
        if Path(classes).name != classes or not file.is_file() or file.stat().st_size > MOST_NAMES:
            raise UsageError(f"{yaml}.classes: {classes}: wanted a text file beside it, of at most {MOST_NAMES} bytes")
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(f"{yaml}.classes: {classes}: cannot be read as text ({error})") from error
        return tuple(line.strip() for line in lines)
    if classes is None:
        return ()
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise UsageError(f"{yaml}.classes: wanted a list of names, or the name of a text file with one a line")
    return tuple(each.strip() for each in classes)


def _metadata_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The class names that Ultralytics' exports carry, a mapping from labels; none where it is something else."""
    found = _literal(metadata.get("names", ""))
    if isinstance(found, dict):
        found = [found.get(label, found.get(str(label))) for label in range(len(found))]
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return ()
    return tuple(each.strip() for each in found)


def _literal(text: str) -> Any:
    """A number, string, list or mapping as Python writes it, nothing of which is run; None where it is none."""
    try:
        return ast.literal_eval(text) if len(text) <= 1 << 20 else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
