"""HOTA, CLEAR and Identity of boxes with identities: an adapter from arrays to the package `trackeval`.

The numbers are TrackEval's own (PyPI `trackeval` 1.3.0, a maintained copy of JonathonLuiten/TrackEval, whose commit
12c8791 printed the stored values that `eval.parity.mot` compares): HOTA of J. Luiten et al., IJCV 129, 2021; CLEAR of
K. Bernardin and R. Stiefelhagen, EURASIP JIVP 2008; Identity of E. Ristani et al., ECCV Workshops 2016. Nothing is
computed here but what that package wants to be handed.

Boxes are xywh: left, top, width, height in pixels of the original frame, IoU without "+1". A box without area matches
nothing. Frames are positions in a list, from 0; only files count them from 1 (`trackgpt.data.mot_files`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.data.mot_files import MotTruth, Tracked
from trackgpt.errors import InputError, UsageError

Fields = Mapping[str, Any]

COMBINED = "COMBINED_SEQ"
BENCHMARKS = ("MOT15", "MOT16", "MOT17", "MOT20")
CLASSES = range(1, 14)


@dataclass(frozen=True)
class MultiObjectScores:
    """All fields of one sequence, or of all sequences together, under TrackEval's own names.

    Ratios are in [0, 1] (MOTA and its relatives in (-inf, 1]), not in per cent; counts are integers, except Frag and
    the counts of HOTA, which TrackEval keeps as floats.

    Attributes:
        hota: HOTA, DetA, AssA, DetRe, DetPr, AssRe, AssPr, LocA, OWTA, HOTA_TP, HOTA_FN, HOTA_FP: float64 (19,), one
            value an IoU threshold 0.05, 0.10, ... 0.95; HOTA(0), LocA(0), HOTALocA(0): the numbers at 0.05.
        clear: MOTA, MOTP, MODA, CLR_Re, CLR_Pr, MTR, PTR, MLR, sMOTA, CLR_F1, FP_per_frame, MOTAL, MOTP_sum, CLR_TP,
            CLR_FN, CLR_FP, IDSW, MT, PT, ML, Frag, CLR_Frames, all at IoU 0.5.
        identity: IDF1, IDR, IDP, IDTP, IDFN, IDFP at IoU 0.5.
        count: Dets, GT_Dets, IDs, GT_IDs after preprocessing, and Frames; TrackEval combines all but Frames.
    """

    hota: Fields
    clear: Fields
    identity: Fields
    count: Fields

    def summary(self) -> dict[str, float]:
        """The numbers papers report: HOTA, DetA, AssA and LocA averaged over the thresholds, MOTA, MOTP, IDSW, IDF1."""
        averaged = {name: float(np.mean(self.hota[name])) for name in ("HOTA", "DetA", "AssA", "LocA")}
        return {
            **averaged,
            **{name: float(self.clear[name]) for name in ("MOTA", "MOTP", "IDSW")},
            "IDF1": float(self.identity["IDF1"]),
        }


def sequence_scores(
    truth: MotTruth, tracked: Tracked, preprocess: bool = True, benchmark: str = "MOT17"
) -> MultiObjectScores:
    """Score one tracker on one sequence.

    With `preprocess`, detections that match (Hungarian, IoU 0.5) a truth of the classes person on vehicle, static
    person, distractor or reflection (2, 7, 8, 12; in MOT20 also 6) are removed, and then every truth but pedestrians
    that are to be scored. Without it, as always for MOT15, only truths marked 0 are removed, whatever their class.
    TrackEval's `MotChallenge2DBox` with DO_PREPROC on or off.

    Without detections MOTA is 0, not negative, LocA 1 and CLR_Frames 0; the same without truth. So it is in TrackEval.

    Args:
        truth, tracked: as many frames in both; 0 frames are allowed.
        preprocess: DO_PREPROC.
        benchmark: one of MOT15, MOT16, MOT17, MOT20.

    Raises:
        InputError: frames, shapes or values do not fit; an id appears twice in a frame; a class is unknown.
        UsageError: the benchmark is unknown, or `trackeval` is not installed.
    """
    if benchmark not in BENCHMARKS:
        raise UsageError(f"sequence_scores: benchmark is {benchmark!r}, wanted one of {', '.join(BENCHMARKS)}")
    toolkit = _trackeval()
    data = _preprocessed(toolkit, _raw(truth, tracked, preprocess and benchmark != "MOT15"), preprocess, benchmark)
    return MultiObjectScores(
        **{name: _plain(metric.eval_sequence(data)) for name, metric in _metrics(toolkit).items()},
    )


def combined_scores(sequences: Mapping[str, MultiObjectScores]) -> MultiObjectScores:
    """Score a tracker on all sequences together, TrackEval's COMBINED_SEQ.

    Counts are summed, and ratios formed of the sums; AssA, AssRe, AssPr and LocA are averaged with the weight HOTA_TP.
    So a long sequence counts more than a short one. Sums run over the names in alphabetical order, as in TrackEval.

    Raises:
        UsageError: no sequence is given, or `trackeval` is not installed.
    """
    if not sequences:
        raise UsageError("combined_scores: no sequence is given, wanted one or more")
    names = sorted(sequences)
    return MultiObjectScores(
        **{
            part: _plain(metric.combine_sequences({name: getattr(sequences[name], part) for name in names}))
            for part, metric in _metrics(_trackeval()).items()
        }
    )


def tracker_scores(
    sequences: Mapping[str, tuple[MotTruth, Tracked]], preprocess: bool = True, benchmark: str = "MOT17"
) -> dict[str, MultiObjectScores]:
    """Score a tracker on every sequence and, under the name COMBINED_SEQ, on all of them together.

    Args:
        sequences: truth and tracker's boxes by the name of the sequence.
        preprocess, benchmark: as in `sequence_scores`.

    Raises:
        InputError: as in `sequence_scores`, with the name of the sequence in front.
        UsageError: no sequence is given, one is called COMBINED_SEQ, or as in `sequence_scores`.
    """
    if COMBINED in sequences:
        raise UsageError(f"tracker_scores: {COMBINED} names all sequences together; call this sequence otherwise")
    scores = {}
    for name, (truth, tracked) in sequences.items():
        try:
            scores[name] = sequence_scores(truth, tracked, preprocess, benchmark)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return {**scores, COMBINED: combined_scores(scores)}


def _trackeval() -> ModuleType:
    try:
        # Its dataset classes report missing packages on stdout, which belongs to the caller's results.
        with contextlib.redirect_stdout(io.StringIO()):
            import trackeval
    except ImportError as error:
        raise UsageError(
            f"HOTA, CLEAR and Identity need the package trackeval ({error}); run: pip install --no-deps -c "
            "constraints.txt trackeval tabulate (with its dependencies it would put opencv-python over "
            "opencv-python-headless)"
        ) from error
    return trackeval


def _metrics(toolkit: ModuleType) -> dict[str, Any]:
    quiet = {"THRESHOLD": 0.5, "PRINT_CONFIG": False}
    offered = toolkit.metrics
    return {
        "hota": offered.HOTA(),
        "clear": offered.CLEAR(dict(quiet)),
        "identity": offered.Identity(dict(quiet)),
        "count": offered.Count(),
    }


def _preprocessed(toolkit: ModuleType, raw: dict[str, Any], preprocess: bool, benchmark: str) -> dict[str, Any]:
    dataset = toolkit.datasets.MotChallenge2DBox(
        {
            "BENCHMARK": benchmark,
            "DO_PREPROC": preprocess,
            "PRINT_CONFIG": False,
            "SEQ_INFO": {"sequence": raw["num_timesteps"]},
            "TRACKERS_TO_EVAL": [],
            # The constructor insists on a truth file that exists; this one is there and is never read.
            "GT_LOC_FORMAT": str(toolkit.__file__).replace("{", "{{").replace("}", "}}"),
        }
    )
    raw["similarity_scores"] = [
        dataset._calculate_similarities(truth, found) for truth, found in zip(raw["gt_dets"], raw["tracker_dets"])
    ]
    return dataset.get_preprocessed_seq_data(raw, "pedestrian")


def _plain(fields: Fields) -> dict[str, Any]:
    return {
        name: value if isinstance(value, np.ndarray) else np.asarray(value).item() for name, value in fields.items()
    }


def _raw(truth: MotTruth, tracked: Tracked, classes_matter: bool) -> dict[str, Any]:
    frames = len(truth.ids)
    lengths = {
        "truth.boxes": truth.boxes,
        "truth.classes": truth.classes,
        "truth.marks": truth.marks,
        "tracked.ids": tracked.ids,
        "tracked.boxes": tracked.boxes,
    }
    for name, entries in lengths.items():
        if entries is not None and len(entries) != frames:
            raise InputError(f"{name} has {len(entries)} frames, wanted {frames} as in truth.ids; give [] where empty")
    truth_ids, truth_boxes = _frames("truth", truth.ids, truth.boxes)
    tracked_ids, tracked_boxes = _frames("tracked", tracked.ids, tracked.boxes)
    classes = _labels("truth.classes", truth.classes, truth_ids)
    if classes_matter:
        _check_classes(classes)
    marks = _labels("truth.marks", truth.marks, truth_ids)
    return {
        "seq": "sequence",
        "num_timesteps": frames,
        "gt_ids": _contiguous(truth_ids),
        "gt_dets": truth_boxes,
        "gt_classes": classes,
        "gt_extras": [{"zero_marked": mark} for mark in marks],
        "tracker_ids": _contiguous(tracked_ids),
        "tracker_dets": tracked_boxes,
        "tracker_classes": [np.ones_like(ids) for ids in tracked_ids],
        "tracker_confidences": [np.ones(len(ids)) for ids in tracked_ids],
    }


def _frames(
    side: str, ids: Sequence[ArrayLike], boxes: Sequence[ArrayLike]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]]]:
    all_ids, all_boxes = [], []
    for frame, (numbers, rows) in enumerate(zip(ids, boxes)):
        found = _integers(f"{side}.ids, frame {frame}", numbers)
        values = np.asarray(rows, np.float64)
        values = values.reshape(0, 4) if values.size == 0 else values
        if values.shape != (len(found), 4):
            raise InputError(
                f"{side}.boxes, frame {frame}: the shape is {values.shape}, wanted {(len(found), 4)}, "
                "xywh of as many objects as there are ids"
            )
        if not np.isfinite(values).all():
            raise InputError(f"{side}.boxes, frame {frame}: a value is not finite; leave out objects without a box")
        unique, counts = np.unique(found, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"{side}.ids, frame {frame}: id {unique[counts > 1][0]} stands there twice, wanted once")
        all_ids.append(found)
        all_boxes.append(values)
    return all_ids, all_boxes


def _labels(name: str, labels: Sequence[ArrayLike] | None, ids: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    if labels is None:
        return [np.ones_like(numbers) for numbers in ids]
    found = [_integers(f"{name}, frame {frame}", values) for frame, values in enumerate(labels)]
    for frame, (values, numbers) in enumerate(zip(found, ids)):
        if len(values) != len(numbers):
            raise InputError(f"{name}, frame {frame}: {len(values)} values, wanted {len(numbers)}, one per object")
    return found


def _integers(where: str, values: ArrayLike) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.size == 0:
        return np.zeros(0, np.int64)
    numbers = found.ndim == 1 and np.issubdtype(found.dtype, np.number)
    if not numbers or not np.isfinite(found).all() or (found != np.trunc(found)).any():
        raise InputError(f"{where}: {found.dtype} of the shape {found.shape}, wanted integers (objects,)")
    return found.astype(np.int64)


def _check_classes(classes: Sequence[NDArray[np.int64]]) -> None:
    for frame, values in enumerate(classes):
        unknown = np.setdiff1d(values, CLASSES)
        if unknown.size:
            raise InputError(
                f"truth.classes, frame {frame}: class {unknown[0]}, wanted 1 to 13; score without preprocessing if "
                "these are not MOTChallenge's classes"
            )


def _contiguous(ids: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    # TrackEval makes a table as long as the largest id, and reads negative ones from its end.
    known = np.unique(np.concatenate([*ids, np.zeros(0, np.int64)]))
    return [np.searchsorted(known, numbers) for numbers in ids]
