"""How the outputs of object detectors become boxes: the layouts that are known, and how one is told from another.

They are recognised from what a file's inputs and outputs are called, from their shapes, and from what they hold for a
grey image (n boxes or queries, c classes; RGB where nothing is said):

    yolox           (1, n, 5 + c): offsets in cells and logarithms of sides, objectness, classes; BGR 0..255, top left
    yolox-decoded   the same with centre and sides in pixels; by FILE.yaml alone, since YOLOv6 looks alike
    yolov5          (1, n, 5 + c): centre and sides in pixels, objectness, classes;
                    3 anchors a cell (v5, v7; v6 by YAML)
    yolov8          (1, 4 + c, n): centre and sides in pixels, classes (v8, v9, v11, v12)
    yolo-end2end    (1, n, 6): corners in pixels, score, label (v10, v26, and any that is exported with its own NMS)
    yolov7-end2end  (n, 7): image, corners in pixels, label, score
    yolo-rtdetr     (1, n, 4 + c): centre and sides in 0..1, classes (RT-DETR as Ultralytics exports it)
    detr            boxes (1, n, 4), centre and sides in 0..1, and logits (1, n, c) (RT-DETR, D-FINE; image in 0..1)
    rf-detr         the same for an image normalised as ImageNet's (RF-DETR; 91 classes are COCO's by id)
    detections      labels, boxes (1, n, 4), scores; takes `orig_target_sizes` too (RT-DETR, D-FINE as they export)
    torchvision     boxes (n, 4), labels, scores for a frame of any size; by FILE.yaml alone
    fastestdet      (1, 5 + c, height / 16, width / 16); BGR, stretched

Anything else, and all that is not as usual, stands in FILE.yaml beside FILE.onnx: see `Description`.

Sources of the conventions: Megvii-BaseDetection/YOLOX demo/ONNXRuntime, dog-qiuqiu/FastestDet example/onnx-runtime,
ultralytics/ultralytics engine/exporter.py, Peterande/D-FINE tools/export_onnx.py, roboflow/rf-detr export. No code of
theirs is in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from trackgpt.data.class_names import COCO_BY_ID

LARGEST_SIDE = 4096
"""Pixels of an input; what a file asks for beyond is taken for damage."""

_PYRAMIDS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))


class Raw(NamedTuple):
    """What a layout reads from a network's outputs.

    Attributes:
        boxes: (n, 4) xyxy pixels of the network's input.
        scores: (n, classes); where there are labels (n,).
        labels: (n,), or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None = None


Size = tuple[int, int]
"""(width, height) in pixels."""
Decode = Callable[[Sequence[np.ndarray], "Description", Size], Raw]


def _corners(centre: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - sides / 2, centre + sides / 2], axis=-1)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _yolox(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    rows = _rows(outputs[0])
    cells, strides = _grid(size, tuple(given.strides) or _pyramid(len(rows), size))
    sides = np.exp(np.minimum(rows[:, 2:4], 20)) * strides  # no side has e^20 cells; the rest would overflow
    return Raw(_corners((rows[:, :2] + cells) * strides, sides), rows[:, 4:5] * rows[:, 5:])


def _with_objectness(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    rows = _rows(outputs[0])
    return Raw(_corners(rows[:, :2], rows[:, 2:4]), rows[:, 4:5] * rows[:, 5:])


def _yolov8(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    rows = outputs[0].reshape(outputs[0].shape[-2:]).T
    return Raw(_corners(rows[:, :2], rows[:, 2:4]), rows[:, 4:])


def _yolo_end2end(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    rows = _rows(outputs[0])
    return Raw(rows[:, :4], rows[:, 4], rows[:, 5])


def _yolov7_end2end(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    rows = _rows(outputs[0])
    return Raw(rows[:, 1:5], rows[:, 6], rows[:, 5])


def _yolo_rtdetr(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    rows = _rows(outputs[0])
    return Raw(_corners(rows[:, :2] * size, rows[:, 2:4] * size), rows[:, 4:])


def _detr(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    boxes, logits = map(_rows, outputs)
    return Raw(_corners(boxes[:, :2] * size, boxes[:, 2:] * size), _ACTIVATIONS[given.scores](logits))


def _detections(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    boxes, labels, scores = outputs
    return Raw(boxes.reshape(-1, 4), scores.reshape(-1), labels.reshape(-1))


def _fastestdet(outputs: Sequence[np.ndarray], given: Description, size: Size) -> Raw:
    channels, height, width = outputs[0].shape[-3:]
    rows = outputs[0].reshape(channels, -1).T
    y, x = np.divmod(np.arange(height * width), width)
    centre = (np.tanh(rows[:, 1:3]) + np.stack([x, y], axis=1)) / (width, height)
    return Raw(_corners(centre * size, _sigmoid(rows[:, 3:5]) * size), rows[:, :1] * rows[:, 5:])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))  # the same without overflow


def _softmax(values: np.ndarray) -> np.ndarray:
    """Of all but the last, which stands for no object."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True))[:, :-1]


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as-is": np.asarray,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}


@lru_cache(maxsize=8)
def _grid(size: Size, strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of each cell its column and row (n, 2) and its stride (n, 1), finest level first."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = math.ceil(size[1] / stride), math.ceil(size[0] / stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        cells.append(np.stack([x, y], axis=1))
        steps.append(np.full((rows * columns, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


def _pyramid(count: int, size: Size) -> tuple[int, ...]:
    """The strides whose levels have so many cells together; none where no usual ones do."""
    for strides in _PYRAMIDS:
        if count == sum(math.ceil(size[0] / each) * math.ceil(size[1] / each) for each in strides):
            return strides
    return ()


class Layout(NamedTuple):
    """How outputs become boxes.

    Attributes:
        decode: reads them.
        outputs: what each of those that it takes may be called, in its order; () takes the first, whatever its name.
        usual: what differs from the defaults of `Description`.
    """

    decode: Decode
    outputs: tuple[tuple[str, ...], ...]
    usual: dict[str, Any]


_YOLO = {"fit": "letterbox-centre", "overlap": 0.5}
_YOLOX = {"colour": "bgr", "scale": 1.0, "fit": "letterbox-topleft", "overlap": 0.5}
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_BOXES_LOGITS = (("pred_boxes", "dets"), ("logits", "pred_logits", "labels"))
_BOXES_LABELS_SCORES = (("boxes",), ("labels",), ("scores",))

LAYOUTS: dict[str, Layout] = {
    "yolox": Layout(_yolox, ((),), _YOLOX),
    "yolox-decoded": Layout(_with_objectness, ((),), _YOLOX),
    "yolov5": Layout(_with_objectness, ((),), _YOLO),
    "yolov8": Layout(_yolov8, ((),), _YOLO),
    "yolo-end2end": Layout(_yolo_end2end, ((),), _YOLO | {"overlap": 1.0}),
    "yolov7-end2end": Layout(_yolov7_end2end, ((),), _YOLO | {"overlap": 1.0}),
    "yolo-rtdetr": Layout(_yolo_rtdetr, ((),), {}),
    "detr": Layout(_detr, _BOXES_LOGITS, {"scores": "sigmoid"}),
    "rf-detr": Layout(_detr, _BOXES_LOGITS, {"scores": "sigmoid"} | _IMAGENET),
    "detections": Layout(_detections, _BOXES_LABELS_SCORES, {}),
    "torchvision": Layout(_detections, _BOXES_LABELS_SCORES, {"fit": "as-is"}),
    "fastestdet": Layout(_fastestdet, ((),), {"colour": "bgr", "overlap": 0.5}),
}
FITS = ("stretch", "letterbox-topleft", "letterbox-centre", "as-is")


@dataclass(frozen=True)
class Description:
    """How a detector's numbers are meant; what FILE.yaml may say, each of it optional.

    A layout sets what it usually has; a setting in the file goes before. A value of the network's input is
    `(pixel / scale - mean) / std`; an input of bytes takes the pixels themselves.

    Attributes:
        layout: one of `LAYOUTS`; recognised where it is empty.
        classes: the names in the order of the labels, "" for a label of no class; or a text file with one name a line,
            beside the YAML; or `coco` (80 labels), or `coco91` (COCO's ids, as torchvision numbers them).
        outputs: names of the outputs that the layout takes, where they differ: of `detr` boxes and logits, of
            `detections` boxes, labels and scores, of others one.
        width, height: of the input in pixels, where the file leaves it open; 0 takes what the file's metadata says.
        colour: order of the input's channels.
        scale, mean, std: see above; mean and std in the order of the channels.
        fit: how a frame is put into the input: stretched; or with its aspect, padded below and to the right, or on all
            sides; or in its own size, for a network that takes any.
        pad: grey level of the padding.
        scores: what `detr` does to its logits; after softmax, the last class stands for no object.
        strides: pixels of a cell on each level of `yolox`, finest first; where it is empty, the number of cells tells.
        overlap: of two boxes of a class with a larger IoU the better one is kept; 1 keeps both.
        licence: of the weights, as people shall read it.
    """

    layout: str = field(default="", metadata={"choices": ("", *LAYOUTS)})
    classes: Any = None
    outputs: list[str] = field(default_factory=list)
    width: int = field(default=0, metadata={"range": (0, LARGEST_SIDE)})
    height: int = field(default=0, metadata={"range": (0, LARGEST_SIDE)})
    colour: str = field(default="rgb", metadata={"choices": ("rgb", "bgr")})
    scale: float = field(default=255.0, metadata={"range": (1e-6, 1e6)})
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0], metadata={"range": (-1e6, 1e6)})
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0], metadata={"range": (1e-6, 1e6)})
    fit: str = field(default="stretch", metadata={"choices": FITS})
    pad: int = field(default=114, metadata={"range": (0, 255)})
    scores: str = field(default="as-is", metadata={"choices": tuple(_ACTIVATIONS)})
    strides: list[int] = field(default_factory=list, metadata={"range": (1, 256)})
    overlap: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    licence: str = ""


def called(layout: str, outputs: Sequence[str]) -> list[str]:
    """The outputs that a layout takes, by their usual names; fewer where some are missing."""
    wanted = LAYOUTS[layout].outputs
    if wanted == ((),):
        return list(outputs[:1])
    found = [next((name for name in names if name in outputs), "") for names in wanted]
    return [name for name in found if name]


def recognised(outputs: Mapping[str, np.ndarray], size: Size, sized: bool, known: int) -> str:
    """The layout of a network, "" where it is none that is known.

    Args:
        outputs: for a grey image, by their names.
        size: of the input.
        sized: it takes the size of the frame, too, as `orig_target_sizes`.
        known: how many class names there are, 0 where there are none.
    """
    with np.errstate(invalid="ignore"):
        return _by_names(outputs, sized) or _by_shape(list(outputs.values()), size, known)


def _by_names(outputs: Mapping[str, np.ndarray], sized: bool) -> str:
    if sized:
        return "detections" if len(called("detections", list(outputs))) == 3 else ""
    found = called("detr", list(outputs))
    if len(found) != 2:
        return ""
    boxes, logits = (outputs[name] for name in found)
    # All networks that number COCO's classes by their ids (DETR's family) normalise; RT-DETR and D-FINE do not.
    normalises = "dets" in found or logits.shape[-1] == len(COCO_BY_ID)
    return ("rf-detr" if normalises else "detr") if boxes.ndim == logits.ndim == 3 else ""


def _by_shape(outputs: Sequence[np.ndarray], size: Size, known: int) -> str:
    if len(outputs) != 1:
        return ""
    values = outputs[0]
    if values.ndim == 4:
        return "fastestdet" if _is_fastestdet(values, size) else ""
    if values.ndim == 2:
        return "yolov7-end2end" if values.shape[1] == 7 else ""
    if values.ndim != 3 or len(values) != 1:
        return ""
    _, count, columns = values.shape
    if _pyramid(columns, size) and count > 4:
        return "yolov8"
    if _pyramid(count, size) and columns > 5:
        return "yolox" if _is_in_cells(values[0], size) else ""
    if count % 3 == 0 and _pyramid(count // 3, size) and columns > 5:
        return "yolov5"
    if columns == 6 and not (values[..., 5] % 1).any():
        return "yolo-end2end"
    return "yolo-rtdetr" if known and columns == 4 + known else ""


def _is_in_cells(rows: np.ndarray, size: Size) -> bool:
    """Whether centres are offsets from their cells, and not pixels, which lie within two cells of their own."""
    cells, strides = _grid(size, _pyramid(len(rows), size))
    return float(np.median(np.abs(rows[:, :2] / strides - cells))) > 2


def _is_fastestdet(values: np.ndarray, size: Size) -> bool:
    """Whether a map (1, 5 + c, h, w) has its stride, an objectness and classes that add up to 1."""
    cells, (_, channels, height, width) = values[0], values.shape
    if len(values) != 1 or channels < 6 or (width * 16, height * 16) != size:
        return False
    return bool((cells[0] >= 0).all() and (cells[0] <= 1).all() and np.allclose(cells[5:].sum(axis=0), 1, atol=1e-2))
