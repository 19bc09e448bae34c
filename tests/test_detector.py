"""Object detectors in ONNX: coordinates of each layout, what a network is fed, names, refusals, two real networks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from trackgpt.data.class_names import COCO, COCO_BY_ID
from trackgpt.errors import ModelError, UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.reasoners import detector as module
from trackgpt.reasoners.detector import FLOOR, MOST_DETECTIONS, OnnxDetector, is_onnx

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'trackgpt[onnx]'")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WIDTH, HEIGHT = 128, 96  # of the networks here; strides 8, 16, 32 have 192 + 48 + 12 = 252 cells
NAMES = ("cat", "dog", "cow", "bus")
SCORES = (0.9, 0.8, 0.7, 0.6)
FRAMES = {"square": (320, 320), "wide": (640, 80), "tall": (60, 480)}  # a letterbox takes them without rounding
FLOAT = TensorProto.FLOAT


def frame(width=320, height=320, colour=(0, 0, 0)):
    return np.full((height, width, 3), colour, np.uint8)


def save(path, nodes, outputs, inputs, constants=(), metadata=None):
    """Write a graph; outputs and inputs are value infos."""
    graph = helper.make_graph(nodes, "detector", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def image_input(shape=(1, 3, HEIGHT, WIDTH), dtype=FLOAT, name="images"):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(path, outputs, metadata=None, **given):
    """A network that says the same about every image; outputs by their names."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    arrays = {name: value if value.dtype == np.float16 else value.astype(np.float32) for name, value in arrays.items()}
    nodes = [helper.make_node("Identity", [f"{name}_held"], [name]) for name in arrays]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in arrays.items()
    ]
    held = [(f"{name}_held", value) for name, value in arrays.items()]
    return save(path, nodes, infos, [image_input(**given)], held, metadata)


def described(path, text):
    path.with_suffix(".yaml").write_text(text)
    return path


def named(names=NAMES):
    return {"names": str(dict(enumerate(names)))}


def centred(box):
    """Centre and sides of corners."""
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def one_hot(label, value=1.0):
    return [value if each == label else 0.0 for each in range(len(NAMES))]


def logit(share):
    return math.log(share / (1 - share))


# Each writes a network that sees boxes of its input, with label i and score SCORES[i] of box i.


def yolox(path, boxes):
    rows = np.zeros((1, 252, 9))
    for label, box in enumerate(boxes):
        x, y, w, h = centred(box)
        column, row = int(x // 8), int(y // 8)
        centre = [x / 8 - column, y / 8 - row]
        values = [*centre, math.log(w / 8), math.log(h / 8), SCORES[label], *one_hot(label)]
        rows[0, row * 16 + column] = values
    return constant(path, {"output": rows}, named())


def yolox_decoded(path, boxes):
    rows = np.zeros((1, 252, 9))
    rows[0, : len(boxes)] = [[*centred(box), SCORES[i], *one_hot(i)] for i, box in enumerate(boxes)]
    return described(constant(path, {"output": rows}, named()), "layout: yolox-decoded")


def yolov5(path, boxes):
    rows = np.zeros((1, 3 * 252, 9))
    rows[0, 300 : 300 + len(boxes)] = [[*centred(box), 1, *one_hot(i, SCORES[i])] for i, box in enumerate(boxes)]
    return constant(path, {"output0": rows}, named())


def yolov8(path, boxes):
    rows = np.zeros((1, 252, 8))
    rows[0, 100 : 100 + len(boxes)] = [[*centred(box), *one_hot(i, SCORES[i])] for i, box in enumerate(boxes)]
    return constant(path, {"output0": rows.transpose(0, 2, 1)}, named())


def yolo_end2end(path, boxes):
    rows = np.zeros((1, 300, 6))
    rows[0, : len(boxes)] = [[*box, SCORES[i], i] for i, box in enumerate(boxes)]
    return constant(path, {"output0": rows}, named())


def yolov7_end2end(path, boxes):
    rows = [[0, *box, i, SCORES[i]] for i, box in enumerate(boxes)]
    return described(constant(path, {"output": rows}), f"classes: [{', '.join(NAMES)}]")


def shares(boxes):
    """Centre and sides as shares of the input."""
    return np.array([centred(box) for box in boxes]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]


def yolo_rtdetr(path, boxes):
    rows = np.zeros((1, 300, 8))
    rows[0, : len(boxes)] = np.hstack([shares(boxes), np.diag(SCORES)])
    return constant(path, {"output0": rows}, named())


def logits(count):
    values = np.full((1, len(SCORES), count), -20.0)
    for label, score in enumerate(SCORES):
        values[0, label, label] = logit(score)
    return values


def detr(path, boxes):
    made = constant(path, {"logits": logits(4), "pred_boxes": shares(boxes)[None]}, name="pixel_values")
    return described(made, f"classes: [{', '.join(NAMES)}]")


def rf_detr(path, boxes):
    made = constant(path, {"dets": shares(boxes)[None], "labels": logits(5)}, name="input")
    return described(made, f"classes: [{', '.join(NAMES)}]")


def detections(path, boxes):
    """It multiplies by the size that it is given, as RT-DETR does: width, height, width, height."""
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sizes"], axis=1),
        helper.make_node("Mul", ["shares", "sizes"], ["boxes"]),
        helper.make_node("Identity", ["held_labels"], ["labels"]),
        helper.make_node("Identity", ["held_scores"], ["scores"]),
    ]
    held = [
        ("shares", (np.array(boxes) / [WIDTH, HEIGHT, WIDTH, HEIGHT])[None].astype(np.float32)),
        ("held_labels", np.arange(4)[None]),
        ("held_scores", np.array([SCORES], np.float32)),
    ]
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.INT64, (1, 4)),
        helper.make_tensor_value_info("boxes", FLOAT, (1, 4, 4)),
        helper.make_tensor_value_info("scores", FLOAT, (1, 4)),
    ]
    sizes = helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ("N", 2))
    save(path, nodes, outputs, [image_input(("N", 3, HEIGHT, WIDTH)), sizes], held)
    return described(path, f"classes: [{', '.join(NAMES)}]")


def fastestdet(path, boxes):
    cells = np.zeros((1, 9, 6, 8))
    cells[0, 5] = 1
    for label, box in enumerate(boxes):
        x, y, w, h = centred(box)
        column, row = int(x // 16), int(y // 16)
        offset = [math.atanh(x / 16 - column), math.atanh(y / 16 - row)]
        values = [SCORES[label], *offset, logit(w / WIDTH), logit(h / HEIGHT), *one_hot(label)]
        cells[0, :, row, column] = values
    return constant(path, {"758": cells}, named())


TOP_LEFT, CENTRE, STRETCH = (0, 0), (0.5, 0.5), None
LAYOUTS = {
    yolox: TOP_LEFT,
    yolox_decoded: TOP_LEFT,
    yolov5: CENTRE,
    yolov8: CENTRE,
    yolo_end2end: CENTRE,
    yolov7_end2end: CENTRE,
    yolo_rtdetr: STRETCH,
    detr: STRETCH,
    rf_detr: STRETCH,
    detections: STRETCH,
    fastestdet: STRETCH,
}
"""Where padding of a letterbox lies before the frame, as shares of all padding."""


def corners(width, height):
    """A box in each corner of a frame, 0.3 of its sides."""
    w, h = 0.3 * width, 0.3 * height
    left, right = (0, w), (width - w, width)
    top, bottom = (0, h), (height - h, height)
    return [(x[0], y[0], x[1], y[1]) for y in (top, bottom) for x in (left, right)]


def in_network(box, width, height, before):
    """A box of a frame in pixels of the network's input."""
    if before is None:
        scale, shift = (WIDTH / width, HEIGHT / height), (0, 0)
    else:
        scale = (min(WIDTH / width, HEIGHT / height),) * 2
        shift = (before[0] * (WIDTH - width * scale[0]), before[1] * (HEIGHT - height * scale[1]))
    return [value * scale[i % 2] + shift[i % 2] for i, value in enumerate(box)]


@pytest.mark.parametrize("size", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_box_in_each_corner_comes_back_in_pixels_of_the_frame(layout, size, tmp_path):
    truth = corners(*size)
    path = layout(tmp_path / "net.onnx", [in_network(box, *size, LAYOUTS[layout]) for box in truth])
    detector = OnnxDetector.from_file(path)
    assert detector.description.layout == layout.__name__.replace("_", "-")
    found = detector.detect(frame(*size))
    assert [one.label for one in found] == list(NAMES)
    assert [one.score for one in found] == pytest.approx(SCORES, abs=1e-3)
    off = np.abs(np.array([one.box for one in found]) - truth).max()
    assert off <= 1e-4 * max(size)


@pytest.mark.parametrize("size", FRAMES.values(), ids=FRAMES)
def test_a_network_of_any_size_sees_the_frame_in_its_own(size, tmp_path):
    truth = corners(*size)
    outputs = {"boxes": truth, "labels": range(1, 5), "scores": SCORES}
    path = constant(tmp_path / "net.onnx", outputs, shape=(3, "h", "w"), name="image")
    described(path, "layout: torchvision\nclasses: coco91")
    found = OnnxDetector.from_file(path).detect(frame(*size))
    assert [one.label for one in found] == ["person", "bicycle", "car", "motorcycle"]
    assert np.allclose([one.box for one in found], truth, atol=1e-4 * max(size))


def test_yolox_cells_are_decoded_as_by_hand(tmp_path):
    rows = np.zeros((1, 252, 9))
    rows[0, 192 + 2 * 8 + 3] = [0.5, -0.25, math.log(2), 0, 0.8, 1, 0, 0, 0]  # stride 16, column 3, row 2
    rows[0, 240 + 1 * 4 + 2] = [0, 1, 0, math.log(0.5), 0.5, 0, 0.5, 0, 0]  # stride 32, column 2, row 1
    first, second = OnnxDetector.from_file(constant(tmp_path / "net.onnx", {"o": rows}, named())).detect(frame(128, 96))
    assert first.box == pytest.approx((56 - 16, 28 - 8, 56 + 16, 28 + 8), abs=1e-4)  # centre 3.5 x 16, 1.75 x 16
    assert (first.label, first.score) == ("cat", pytest.approx(0.8))
    assert second.box == pytest.approx((64 - 16, 64 - 8, 64 + 16, 64 + 8), abs=1e-4)
    assert (second.label, second.score) == ("dog", pytest.approx(0.25))


def finder(path):
    """A network that finds the box of bright pixels (above 0.5) in its input, as corners, score, label."""
    bright = [
        helper.make_node("ReduceMin", ["images", "channel"], ["grey"], keepdims=0),
        helper.make_node("Greater", ["grey", "bright"], ["is_bright"]),
        helper.make_node("Cast", ["is_bright"], ["mask"], to=FLOAT),
        helper.make_node("ReduceMax", ["mask", "first"], ["x"], keepdims=0),  # (1, width)
        helper.make_node("ReduceMax", ["mask", "second"], ["y"], keepdims=0),
    ]
    ends = []
    for axis in "xy":
        for last in (0, 1):
            ends += [
                helper.make_node("ArgMax", [axis], [f"{axis}{last}i"], axis=1, select_last_index=last),
                helper.make_node("Cast", [f"{axis}{last}i"], [f"{axis}{last}f"], to=FLOAT),
                helper.make_node("Add", [f"{axis}{last}f", f"plus{last}"], [f"{axis}{last}"]),
            ]
    gather = helper.make_node("Concat", ["x0", "y0", "x1", "y1", "rest"], ["row"], axis=1)
    shape = helper.make_node("Unsqueeze", ["row", "zero"], ["output0"])
    constants = [
        ("channel", np.array([1])),
        ("first", np.array([1])),
        ("second", np.array([2])),
        ("zero", np.array([0])),
        ("bright", np.array(0.5, np.float32)),
        ("plus0", np.zeros((1, 1), np.float32)),
        ("plus1", np.ones((1, 1), np.float32)),
        ("rest", np.array([[0.9, 0]], np.float32)),
    ]
    output = helper.make_tensor_value_info("output0", FLOAT, (1, 1, 6))
    return save(path, [*bright, *ends, gather, shape], [output], [image_input()], constants, named(["light"]))


@pytest.mark.parametrize("size", [(320, 320), (1001, 97), (97, 1001), (333, 250), (31, 17)])
@pytest.mark.parametrize("fit", ["stretch", "letterbox-topleft", "letterbox-centre"])
def test_what_a_network_sees_lies_where_it_is_said_to_lie(fit, size, tmp_path):
    path = described(finder(tmp_path / "net.onnx"), f"fit: {fit}")
    width, height = size
    shown = frame(width, height)
    box = (width // 2, height // 4, width - 1, 3 * height // 4)
    shown[box[1] : box[3], box[0] : box[2]] = 255
    (found,) = OnnxDetector.from_file(path).detect(shown)
    scale = WIDTH / width, HEIGHT / height
    if fit != "stretch":
        scale = (min(scale),) * 2
    off = np.abs(np.array(found.box) - box) * (scale * 2)
    assert off.max() <= 1  # a pixel of the input, as edges of pixels are seen


def first_channel(path):
    """A network whose only score is the largest value of its first channel."""
    nodes = [
        helper.make_node("Slice", ["images", "from", "to", "axis"], ["channel"]),
        helper.make_node("ReduceMax", ["channel", "sides"], ["most"], keepdims=0),  # (1, 1)
        helper.make_node("Concat", ["box", "most", "label"], ["row"], axis=1),
        helper.make_node("Unsqueeze", ["row", "from"], ["output0"]),
    ]
    constants = [
        ("from", np.array([0])),
        ("to", np.array([1])),
        ("axis", np.array([1])),
        ("sides", np.array([2, 3])),
        ("box", np.array([[0, 0, WIDTH, HEIGHT]], np.float32)),
        ("label", np.zeros((1, 1), np.float32)),
    ]
    value = helper.make_tensor_value_info("output0", FLOAT, (1, 1, 6))
    return save(path, nodes, [value], [image_input()], constants, named(["thing"]))


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("colour: rgb", 51 / 255),
        ("colour: bgr", 204 / 255),
        ("scale: 510", 51 / 510),
        ("mean: [0.1, 0.5, 0.5]\nstd: [0.5, 0.1, 0.1]", (0.2 - 0.1) / 0.5),
        ("fit: letterbox-topleft", 114 / 255),  # the padding is brighter than the frame's red
        ("fit: letterbox-topleft\npad: 255", 1.0),
    ],
)
def test_a_network_is_fed_what_its_description_says(said, score, tmp_path):
    path = described(
        first_channel(tmp_path / "net.onnx"),
        f"layout: yolo-end2end\nfit: stretch\n{said}".replace("fit: stretch\nfit:", "fit:"),
    )
    (found,) = OnnxDetector.from_file(path).detect(frame(64, 8, colour=(51, 102, 204)))
    assert found.score == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("outputs", [{"dets": 4, "labels": 91}, {"pred_boxes": 4, "logits": 91}])
def test_91_classes_are_cocos_by_id_and_ids_of_no_class_are_left_out(outputs, tmp_path):
    arrays = {name: np.full((1, 3, count), -20.0 if count > 4 else 0.5) for name, count in outputs.items()}
    scores = next(value for value in arrays.values() if value.shape[2] == 91)
    scores[0, 0, 18], scores[0, 1, 12], scores[0, 2, 90] = 2, 3, 1  # 12 is no class, 90 the last
    detector = OnnxDetector.from_file(constant(tmp_path / "net.onnx", arrays))
    assert detector.description.mean == [0.485, 0.456, 0.406]
    assert [one.label for one in detector.detect(frame())] == ["dog", "toothbrush"]
    assert len(detector.names) == 91


def test_cocos_classes_are_80_and_those_of_its_ids_the_same():
    assert len(COCO) == 80
    assert len(COCO_BY_ID) == 91
    assert tuple(filter(None, COCO_BY_ID)) == COCO
    assert [COCO.index(name) for name in ("person", "bird", "dog", "toothbrush")] == [0, 14, 16, 79]
    assert [COCO_BY_ID.index(name) for name in ("person", "bird", "dog", "toothbrush")] == [1, 16, 18, 90]


def raw_detr(seed, queries=60, classes=7):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(1, queries, 4, generator=generator) * 0.3 + 0.3
    return SimpleNamespace(logits=3 * torch.randn(1, queries, classes, generator=generator), pred_boxes=boxes)


@pytest.mark.parametrize("seed", range(3))
def test_raw_detr_outputs_become_what_transformers_makes_of_them(seed, tmp_path):
    processor = pytest.importorskip(
        "transformers.models.rt_detr.image_processing_pil_rt_detr"
    ).RTDetrImageProcessorPil()
    raw = raw_detr(seed)
    (wanted,) = processor.post_process_object_detection(raw, threshold=FLOOR, target_sizes=[(480, 854)])
    path = constant(tmp_path / "net.onnx", {"logits": raw.logits, "pred_boxes": raw.pred_boxes})
    found = OnnxDetector.from_file(described(path, "classes: [a, b, c, d, e, f, g]")).detect(frame(854, 480))
    count = len(wanted["scores"])
    assert 40 <= count <= MOST_DETECTIONS
    assert ["abcdefg".index(one.label) for one in found[:count]] == wanted["labels"].tolist()
    assert np.allclose([one.score for one in found[:count]], wanted["scores"], atol=1e-6)
    assert np.allclose([one.box for one in found[:count]], wanted["boxes"], atol=1e-4 * 854)


def test_a_softmax_over_classes_and_no_object_is_what_transformers_makes_of_it(tmp_path):
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

    processor = DetrImageProcessorPil()
    raw = raw_detr(0)
    (wanted,) = processor.post_process_object_detection(raw, threshold=0.5, target_sizes=[(480, 854)])
    order = wanted["scores"].argsort(descending=True, stable=True)
    path = constant(tmp_path / "net.onnx", {"logits": raw.logits, "pred_boxes": raw.pred_boxes})
    detector = OnnxDetector.from_file(described(path, "scores: softmax\nclasses: [a, b, c, d, e, f]"))
    detector.floor = 0.5  # above it a query has one class
    found = detector.detect(frame(854, 480))
    assert len(found) == len(order) >= 10
    assert ["abcdef".index(one.label) for one in found] == wanted["labels"][order].tolist()
    assert np.allclose([one.box for one in found], wanted["boxes"][order], atol=1e-4 * 854)


def rows_of_yolov8(*rows):
    """(1, 8, 252) with x, y, w, h and four scores a row."""
    values = np.zeros((1, 252, 8))
    values[0, : len(rows)] = rows
    return values.transpose(0, 2, 1)


def test_duplicates_of_a_class_are_left_out_and_those_of_another_stay(tmp_path):
    rows = rows_of_yolov8(
        [40, 40, 20, 20, 0.6, 0, 0, 0],
        [41, 40, 20, 20, 0.9, 0, 0, 0],  # IoU 19 / 21 with the first
        [42, 40, 20, 20, 0, 0.7, 0, 0],
        [54, 40, 20, 20, 0.5, 0, 0, 0],  # IoU 7 / 33 with the second
        [90, 40, 20, 20, 0.04, 0, 0, 0],  # below the floor
    )
    path = constant(tmp_path / "net.onnx", {"output0": rows}, named())
    found = OnnxDetector.from_file(path).detect(frame(WIDTH, HEIGHT))
    assert [(one.label, one.score) for one in found] == [
        ("cat", pytest.approx(0.9)),
        ("dog", pytest.approx(0.7)),
        ("cat", pytest.approx(0.5)),
    ]
    every = OnnxDetector.from_file(described(path, "overlap: 1")).detect(frame(WIDTH, HEIGHT))
    assert [round(one.score, 2) for one in every] == [0.9, 0.7, 0.6, 0.5]


def test_at_most_100_boxes_are_given_and_the_best_first(tmp_path):
    rows = np.zeros((1, 300, 6))
    rows[0, :, 2:4], rows[0, :, 4] = 50, np.linspace(0.1, 0.9, 300)
    found = OnnxDetector.from_file(constant(tmp_path / "net.onnx", {"output0": rows}, named())).detect(frame())
    assert [one.score for one in found] == pytest.approx(np.linspace(0.1, 0.9, 300)[:199:-1], abs=1e-6)
    assert len(found) == MOST_DETECTIONS == 100


def test_boxes_end_at_the_frame_and_what_is_no_box_is_left_out(tmp_path):
    rows = np.zeros((1, 300, 6))
    rows[0, 0] = [-50, 10, 60, 500, 0.9, 0]
    rows[0, 1] = [30, 30, 30, 60, 0.8, 0]  # empty
    rows[0, 2] = [200, 10, 260, 60, 0.8, 0]  # beside the frame
    rows[0, 3] = [10, 10, math.nan, 60, 0.8, 0]
    rows[0, 4] = [10, 10, math.inf, 60, 0.8, 0]
    rows[0, 5] = [10, 10, 60, 60, 0.8, 4]  # there are four classes
    rows[0, 6] = [10, 10, 60, 60, 0.8, -1]
    path = constant(tmp_path / "net.onnx", {"output0": rows}, named())
    (found,) = OnnxDetector.from_file(path).detect(frame(WIDTH, HEIGHT))
    assert found.box == (0, 10, 60, HEIGHT)


@pytest.mark.parametrize(
    "given",
    [
        {"shape": ("batch", 3, "height", "width")},
        {"shape": (1, HEIGHT, WIDTH, 3)},
        {"dtype": TensorProto.FLOAT16},
        {"dtype": TensorProto.UINT8},
    ],
    ids=["open size", "channels last", "float16", "bytes"],
)
def test_inputs_of_other_kinds_are_fed(given, tmp_path):
    half = given.get("dtype") == TensorProto.FLOAT16
    row = np.array([32, 24, 96, 72, 0.5, 1], np.float16 if half else np.float32)
    rows = np.broadcast_to(row, (1, 5, 6)).copy()
    path = constant(tmp_path / "net.onnx", {"output0": rows}, named() | {"imgsz": f"[{HEIGHT}, {WIDTH}]"}, **given)
    found = OnnxDetector.from_file(path).detect(frame(WIDTH, HEIGHT))
    assert [found[0].box, found[0].label, found[0].score] == [(32, 24, 96, 72), "dog", 0.5]


def test_an_open_size_is_the_yamls_or_the_metadatas_or_640(tmp_path):
    path = constant(tmp_path / "net.onnx", {"o": np.zeros((1, 9, 6))}, named(), shape=(1, 3, "h", "w"))
    sizes = [OnnxDetector.from_file(path).description]
    sizes.append(OnnxDetector.from_file(described(path, "width: 320\nheight: 192")).description)
    assert [(each.width, each.height) for each in sizes] == [(640, 640), (320, 192)]


def test_names_come_from_the_yaml_before_the_metadata_before_coco(tmp_path):
    rows = np.zeros((1, 84, 252))
    path = constant(tmp_path / "net.onnx", {"output0": rows})
    assert OnnxDetector.from_file(path).names == COCO
    own = [f"thing {i}" for i in range(80)]
    assert OnnxDetector.from_file(constant(path, {"output0": rows}, named(own))).names == tuple(own)
    (tmp_path / "names.txt").write_text("\n".join(own[::-1]) + "\n")
    assert OnnxDetector.from_file(described(path, "classes: names.txt")).names == tuple(own[::-1])


def test_the_licence_is_the_files_own_or_the_yamls_or_empty(tmp_path):
    rows = {"output0": np.zeros((1, 84, 252))}
    path = constant(tmp_path / "net.onnx", rows)
    assert OnnxDetector.from_file(path).licence == ""
    constant(path, rows, {"license": "AGPL-3.0 License (https://ultralytics.com/license)"})
    assert OnnxDetector.from_file(path).licence.startswith("AGPL-3.0")
    assert OnnxDetector.from_file(described(path, "licence: ours")).licence == "ours"
    assert OnnxDetector.from_file(path).name == "net"


@pytest.mark.parametrize(
    "names",
    ["", "__import__('os').abort()", "[" * 10_000, "{0: 'a', 2: 'b', 3: 'c', 4: 'd'}", "{0: 'a'}", "[1, 2, 3, 4]"],
)
def test_a_network_without_names_for_its_classes_is_refused_with_what_to_write(names, tmp_path):
    path = constant(tmp_path / "net.onnx", {"output0": np.zeros((1, 8, 252))}, {"names": names})
    with pytest.raises(ModelError, match=r"MD02.*4 classes; list them in net\.yaml.*'classes: \[cat, dog, \.\.\.\]'"):
        OnnxDetector.from_file(path)


@pytest.mark.parametrize(
    ("outputs", "given"),
    [
        ({"out": np.zeros((1, 21, HEIGHT, WIDTH))}, {}),  # segmentation
        ({"out": np.zeros((1, 85, 6, 8))}, {}),  # a map as FastestDet's, but no probabilities of classes
        ({"out": np.zeros((1, 1000))}, {}),
        ({"output0": np.zeros((1, 40, 252)), "output1": np.zeros((1, 32, 24, 32))}, {}),
        ({"out": np.tile([60, 40, 9, 9, 0, 0, 0, 0, 0], (1, 252, 1))}, {"metadata": named()}),
        ({"output0": np.zeros((1, 8, 252))}, {"metadata": named() | {"task": "obb"}}),
        ({"output0": np.zeros((1, 8, 252))}, {"shape": (5, 3, HEIGHT, WIDTH)}),
        ({"output0": np.zeros((1, 8, 252))}, {"shape": (1, 1, HEIGHT, WIDTH)}),
        ({"output0": np.zeros((1, 8, 252))}, {"shape": (1, 3, 100_000, 100_000)}),
        ({"output0": np.full((1, 8, 252), 7)}, {"metadata": named()}),  # scores of 7
    ],
)
def test_what_is_no_known_detector_is_one_line(outputs, given, tmp_path):
    if outputs.get("out", np.zeros(1)).shape == (1, 252, 9):
        outputs["out"][0, :, :2] = [[8 * (i % 16), 8 * (i // 16)] for i in range(252)]  # centres in pixels
    path = constant(tmp_path / "net.onnx", outputs, **given)
    with pytest.raises(ModelError, match="MD02") as caught:
        OnnxDetector.from_file(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "empty", "half", "external", "cat", "images", "folder", "missing"])
def test_damaged_files_are_one_line(damage, tmp_path, capfd):
    path = tmp_path / "net.onnx"
    if damage == "external":
        model = onnx.load(constant(path, {"output0": np.zeros((1, 84, 252))}))
        onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
        (tmp_path / "net.data").unlink()
    elif damage == "half":
        data = constant(path, {"output0": np.zeros((1, 84, 252))}).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif damage in ("cat", "images"):  # bytes that are no text, in the name of a class or of the input
        data = constant(path, {"output0": np.zeros((1, 8, 252))}, named()).read_bytes()
        path.write_bytes(data.replace(damage.encode(), damage[:-1].encode() + b"\xff"))
    elif damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_text("not a network\n" if damage == "text" else "")
    with pytest.raises(ModelError, match="MD01" if damage in ("missing", "folder") else "MD02") as caught:
        OnnxDetector.from_file(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("layout: yolo8", "`yolo8` is none of"),
        ("color: bgr", "did you mean `colour`"),
        ("classes: 3", "wanted a list of names"),
        ("classes: lost.txt", "lost.txt: wanted a text file beside it"),
        ("classes: ../names.txt", "wanted a text file beside it"),
        ("mean: [0.5]", "3 values"),
        ("width: 64", "has 128 pixels, not 64"),
        ("fit: as-is", "takes frames of any size"),
        ("scale: 0", "wanted 1e-06"),
    ],
)
def test_a_description_that_cannot_be_meant_is_refused(said, match, tmp_path):
    path = described(constant(tmp_path / "net.onnx", {"output0": np.zeros((1, 84, 252))}), said)
    with pytest.raises(UsageError, match=match) as caught:
        OnnxDetector.from_file(path)
    assert "net.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("layout: detr", r"takes 2 of its outputs output0; name them in net\.yaml"),
        ("outputs: [other]", "takes 1 of its outputs output0"),
        ("layout: fastestdet", "not those of the layout fastestdet"),
        ("layout: yolox", "not those of the layout yolox"),
        ("layout: yolox\nstrides: [8, 16, 32]", "not those of the layout yolox"),
        ("classes: [cat, dog]", "2 names for its 80 classes"),
    ],
)
def test_a_description_that_does_not_fit_the_network_is_refused(said, match, tmp_path):
    path = described(constant(tmp_path / "net.onnx", {"output0": np.zeros((1, 84, 252))}), said)
    with pytest.raises(ModelError, match=match):
        OnnxDetector.from_file(path)


def test_outputs_with_other_names_are_named_in_the_yaml(tmp_path):
    boxes = shares([(0, 0, 64, 48)] * 4)[None]
    path = constant(tmp_path / "net.onnx", {"first": logits(4), "second": boxes})
    with pytest.raises(ModelError, match="no detector that is recognised"):
        OnnxDetector.from_file(path)
    described(path, "layout: detr\noutputs: [second, first]\nclasses: [cat, dog, cow, bus]")
    assert OnnxDetector.from_file(path).detect(frame())[0].box == pytest.approx((0, 0, 160, 160), abs=1e-3)


def test_a_file_is_known_by_its_ending_alone():
    assert [is_onnx(each) for each in ("a/b.onnx", "B.ONNX", "onnx", "a.onnx/b", "a.pt")] == [True, True, *[False] * 3]


def test_a_call_uses_the_threads_that_pytorch_uses_at_that_moment(tmp_path, monkeypatch):
    asked, make = [], module.onnx_session
    monkeypatch.setattr(module, "onnx_session", lambda path, threads: asked.append(threads) or make(path, threads))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        detector = OnnxDetector.from_file(yolox(tmp_path / "net.onnx", corners(WIDTH, HEIGHT)))
        for count in (2, 1, 2):
            torch.set_num_threads(count)
            detector.detect(frame())
    finally:
        torch.set_num_threads(threads)
    assert asked == [1, 2]


REAL = {
    "yolox_nano/yolox_nano.onnx": {"blackswan": "bird", "car-shadow": "car", "dog": "dog"},
    "fastestdet/FastestDet.onnx": {"car-shadow": "car", "dog": "dog"},
}
"""What the best box of a class must cover on the first frame."""


@pytest.mark.parametrize("network", REAL)
def test_real_networks_find_what_davis_shows(network, shared):
    detector = OnnxDetector.from_file(shared / "data/checkpoints" / network)
    assert detector.names == COCO
    for sequence, name in REAL[network].items():
        folder = shared / "data/davis"
        shown = np.array(Image.open(folder / "JPEGImages/480p" / sequence / "00000.jpg").convert("RGB"))
        y, x = np.nonzero(np.array(Image.open(folder / "Annotations/480p" / sequence / "00000.png")))
        truth = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], float)
        found = detector.detect(shown)
        best = next(one for one in found if one.label == name)
        assert box_iou(np.array([best.box]), truth)[0, 0] >= 0.7
        assert detector.detect(shown) == found
