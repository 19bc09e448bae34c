"""Box metrics against stored outputs of five toolkits: LaSOT and TNLLT (Matlab), pytracking, InteractTrack, got10k."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics import box_conventions
from eval.metrics.boxes import Figures, FrameErrors, SequenceResult, figures, sequence_result
from eval.parity.checks import Comparison, compared
from trackgpt.data.box_files import LASOT_ABSENT, TNLLT_ABSENT, read_absent, read_boxes, read_names
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError

TRACKERS = ("good", "drift", "bad")
IMAGE_SIZE = (640, 360)
"""Of the synthetic sequences, for GOT-10k's clipping."""
_TORCH = {"pytracking": "pytracking", "interacttrack": "InteractTrack"}
_MATLAB = {"lasot": "LaSOT_Evaluation_Toolkit", "tnllt": "TNLLT_Evaluation_Toolkit"}


@dataclass(frozen=True)
class _Sequence:
    """One synthetic sequence: truth, absent frames by either flag file, predictions by tracker."""

    name: str
    truth: NDArray[np.float64]
    absent: NDArray[np.bool_]
    absent_tnllt: NDArray[np.bool_]
    predicted: dict[str, NDArray[np.float64]]


def checks(folder: Path) -> Iterator[Comparison]:
    """Compare every value stored in `folder`.

    float64 with `==`, except: pytracking and InteractTrack keep curves, means and mean overlaps in float32, so both
    sides are cast; their centre errors and normalised errors differ from ours in the last bit of float64 now and then
    (151 of 10,020, by 1 ulp; torch computed the stored ones) and are compared after a cast to float32 too.

    Args:
        folder: holds inputs/, expected_matlab_octave.mat and expected_python.json.

    Yields:
        The checks of the Matlab toolkits, pytracking, InteractTrack's `int` mode and got10k.

    Raises:
        InputError: a file is missing or damaged, or lacks a value.
    """
    sequences = _sequences(folder)
    matlab = _matlab_file(folder / "expected_matlab_octave.mat")
    expected = read_object(folder / "expected_python.json")
    try:
        for name, toolkit in _MATLAB.items():
            for normalised in (0, 1):
                yield from _matlab_checks(toolkit, f"{name}_norm{normalised}", matlab, sequences)
        for key, stored in expected.items():
            kind, *rest = key.split("/")
            if kind in _TORCH:
                yield from _torch_checks(key, stored, sequences)
            elif kind == "got10k":
                yield from _got10k_checks(key, stored, *rest, sequences)
            elif kind != "versions":
                raise InputError(f"{folder}: expected_python.json has the unknown key {key!r}; is it a newer layout?")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: the stored values lack or damage {error}; copy the folder again") from error


def _sequences(folder: Path) -> dict[str, _Sequence]:
    annos, results = folder / "inputs/annos", folder / "inputs/results"
    return {
        name: _Sequence(
            name=name,
            truth=read_boxes(annos / f"{name}.txt"),
            absent=read_absent(annos / f"absent/{name}.txt", LASOT_ABSENT),
            absent_tnllt=read_absent(annos / f"present/{name}.txt", TNLLT_ABSENT),
            predicted={t: read_boxes(results / f"{t}_tracking_result/{name}.txt") for t in TRACKERS},
        )
        for name in read_names(folder / "inputs/sequences.txt")
    }


def _matlab_file(path: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    from scipy.io import loadmat

    try:
        structs = loadmat(path)
    except Exception as error:  # scipy has no class of its own for a damaged file
        raise InputError(f"{path}: cannot be read ({error}); wanted the stored outputs of Octave") from error
    return {
        name: {field: struct[field][0, 0] for field in struct.dtype.names}
        for name, struct in structs.items()
        if not name.startswith("__")
    }


def _matlab_checks(
    toolkit: str, struct: str, matlab: dict[str, dict[str, NDArray[np.float64]]], sequences: dict[str, _Sequence]
) -> Iterator[Comparison]:
    stored, normalised = matlab[struct], struct.endswith("1")
    successes, precisions = [], []
    for number, tracker in enumerate(TRACKERS, 1):
        errors = [_matlab_errors(struct, sequence, tracker) for sequence in sequences.values()]
        for place, frame in enumerate(errors, 1):
            error = frame.normalised if normalised else frame.centre
            for field, ours in ((f"cov_f{number}_{place}", frame.overlap), (f"err_f{number}_{place}", error)):
                yield compared(toolkit, f"{struct}/{field}", ours, stored[field].ravel())
        results = [sequence_result(frame) for frame in errors]
        successes.append([result.success for result in results])
        precisions.append([r.normalised_precision if normalised else r.precision for r in results])
        for field, value in _matlab_means(figures(results), normalised).items():
            yield compared(toolkit, f"{struct}/{field}_{tracker}", value, stored[f"{field}_{tracker}"].squeeze())
    yield compared(toolkit, f"{struct}/success", successes, stored["success"])
    yield compared(toolkit, f"{struct}/error", precisions, stored["error"])


def _matlab_errors(struct: str, sequence: _Sequence, tracker: str) -> FrameErrors:
    predicted = sequence.predicted[tracker]
    if struct.startswith("tnllt"):
        return box_conventions.tnllt(predicted, sequence.truth, sequence.absent_tnllt)
    return box_conventions.lasot_matlab(predicted, sequence.truth, sequence.absent)


def _matlab_means(found: Figures, normalised: bool) -> dict[str, Any]:
    means: dict[str, Any] = {"success_curve": found.success, "success_nseq": found.success_sequences}
    means |= {"AUC": found.auc, "OP50": found.op50}
    if normalised:
        means |= {"error_curve": found.normalised_precision, "error_nseq": found.normalised_sequences}
        return means | {"score21": found.normalised_precision_20}
    means |= {"error_curve": found.precision, "error_nseq": found.precision_sequences}
    return means | {"score21": found.precision_20}


def _torch_errors(key: str, sequence: _Sequence, tracker: str) -> FrameErrors:
    predicted, toolkit, mode = sequence.predicted[tracker], *key.split("/")[:2]
    if toolkit == "interacttrack":
        return box_conventions.interacttrack(predicted, sequence.truth, sequence.absent, "released")
    # OTB has no flags of absent frames, so the stored run had none.
    absent = None if mode == "otb" else sequence.absent
    return box_conventions.pytracking(predicted, sequence.truth, absent, mode)  # type: ignore[arg-type]


def _torch_checks(key: str, stored: Any, sequences: dict[str, _Sequence]) -> Iterator[Comparison]:
    toolkit, tracker = _TORCH[key.split("/")[0]], key.split("/")[-1]
    if isinstance(stored, str):
        refused = _refuses(lambda: [_torch_errors(key, sequence, tracker) for sequence in sequences.values()])
        yield compared(toolkit, f"{key}/raises", refused, stored.startswith("raises"))
        return
    errors = {name: _torch_errors(key, sequence, tracker) for name, sequence in sequences.items()}
    for name, frames in stored["per_frame"].items():
        overlap, centre, normalised = (np.array([float(value) for value in row]) for row in frames)
        yield compared(toolkit, f"{key}/{name}/overlap", errors[name].overlap, overlap)
        yield compared(toolkit, f"{key}/{name}/centre", errors[name].centre, centre, np.float32)
        yield compared(toolkit, f"{key}/{name}/normalised", errors[name].normalised, normalised, np.float32)
    results = [sequence_result(frame) for frame in errors.values()]
    for field, ours in _torch_means(results).items():
        yield compared(toolkit, f"{key}/{field}", ours, stored[field], np.float32)


def _torch_means(results: list[SequenceResult]) -> dict[str, Any]:
    found = figures(results)
    return {
        "success": [result.success for result in results],
        "prec": [result.precision for result in results],
        "nprec": [result.normalised_precision for result in results],
        "avg_overlap": [result.mean_overlap for result in results],
        "AUC": found.auc,
        "OP50": found.op50,
        "OP75": found.op75,
        "P20": found.precision_20,
        "NP20": found.normalised_precision_20,
    }


def _got10k_checks(
    key: str, stored: Any, experiment: str, tracker: str, name: str, sequences: dict[str, _Sequence]
) -> Iterator[Comparison]:
    chosen = list(sequences.values()) if name == "ALL" else [sequences[name]]
    if experiment == "got10k":
        overlaps = [_got10k_overlaps(sequence, tracker) for sequence in chosen]
        found = box_conventions.got10k_figures(overlaps)
        ours = {"ao": found.average_overlap, "sr50": found.success_50, "sr75": found.success_75}
        ours |= {"succ_curve": found.success_curve, "ious": overlaps[0]}
    else:
        result = sequence_result(box_conventions.got10k_toolkit(chosen[0].predicted[tracker], chosen[0].truth))
        means = figures([result])
        ours = {"success": result.success, "prec": result.precision, "nprec": result.normalised_precision}
        ours |= {"AUC": means.auc, "P20": means.precision_20, "NP_mean": means.normalised_precision_mean}
    for field, wanted in stored.items():
        numbers = [float(value) for value in wanted] if isinstance(wanted, list) else float(wanted)
        yield compared("got10k", f"{key}/{field}", ours[field], numbers)


def _got10k_overlaps(sequence: _Sequence, tracker: str) -> NDArray[np.float64]:
    predicted = sequence.predicted[tracker][: len(sequence.truth)]
    return box_conventions.got10k_overlaps(predicted, sequence.truth, ~sequence.absent, IMAGE_SIZE)


def _refuses(action: Callable[[], object]) -> bool:
    try:
        action()
    except InputError:
        return True
    return False
