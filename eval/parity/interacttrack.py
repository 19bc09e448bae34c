"""Interactive and tracking metrics against the stored outputs of InteractTrack's released code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics.box_conventions import interacttrack
from eval.metrics.boxes import Figures, SequenceResult, figures, sequence_result
from eval.metrics.interactive import InteractiveSequence, interactive_sequence, released_figures
from eval.parity.checks import Comparison, compared
from trackgpt.data.box_files import (
    first_visible,
    read_boxes,
    read_descriptions,
    read_interacttrack_boxes,
    read_interacttrack_truth,
)
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError

SOURCE = "InteractTrack"
_FILES = ("description.txt", "groundtruth.txt", "switch.txt")


def checks(folder: Path) -> Iterator[Comparison]:
    """Compare every value stored in `folder`.

    The four custom metrics, the loader's start and visibility with `==` in float64; the tracking curves and means after
    a cast to float32, which is all that the toolkit keeps.

    Args:
        folder: holds expected.json and inputs/{clean,dirty}/{data/SEQUENCE,pred}.

    Yields:
        One check per stored figure, curve or list of flags.

    Raises:
        InputError: a file is missing or damaged, or expected.json has an unknown key.
    """
    expected = read_object(folder / "expected.json")
    sets = {name: _sequences(folder / "inputs" / name) for name in ("clean", "dirty")}
    try:
        for key, stored in expected.items():
            kind, *rest = key.split("/")
            if kind in sets:
                yield from _custom_checks(key, stored, sets[kind], rest[0])
            elif kind == "tracking":
                yield from _tracking_checks(key, stored, folder / "inputs/clean", list(sets["clean"]), rest[0])
            elif kind == "loader":
                yield from _loader_checks(key, stored, folder / f"inputs/clean/data/{rest[0]}/groundtruth.txt")
            elif kind != "versions":
                raise InputError(f"{folder}: expected.json has the unknown key {key!r}; is it a newer layout?")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: the stored values lack or damage {error}; copy the folder again") from error


def _sequences(root: Path) -> dict[str, InteractiveSequence]:
    """Statistics by name, in the order of names, in which the toolkit adds up; without a prediction file it is None."""
    data = root / "data"
    if not data.is_dir():
        raise InputError(f"{data}: missing, wanted a folder per sequence with {', '.join(_FILES)}")
    return {path.name: _sequence(path, root / f"pred/{path.name}.txt") for path in sorted(data.iterdir())}


def _sequence(path: Path, result: Path) -> InteractiveSequence:
    prompted, truth, old = (path / name for name in _FILES)
    return interactive_sequence(
        predicted=read_interacttrack_boxes(result, ragged=True) if result.exists() else None,
        truth=read_interacttrack_boxes(truth, ragged=True),
        old_targets=read_interacttrack_boxes(old, ragged=True),
        prompted=np.array([text != "" for text in read_descriptions(prompted)], np.bool_),
    )


def _custom_checks(
    key: str, stored: dict[str, float], sequences: dict[str, InteractiveSequence], name: str
) -> Iterator[Comparison]:
    found = released_figures(list(sequences.values()) if name == "ALL" else [sequences[name]])
    ours = {
        "Interactive": found.interactive_score,
        "Responsiveness": found.responsiveness,
        "Perc_Acc": found.perception_accuracy,
        "Perc_Prec": found.perception_precision,
    }
    for field, wanted in stored.items():
        yield compared(SOURCE, f"{key}/{field}", ours[field], wanted)


def _tracking_checks(key: str, stored: dict[str, Any], root: Path, names: list[str], name: str) -> Iterator[Comparison]:
    results = [_tracking_result(root, sequence) for sequence in (names if name == "ALL" else [name])]
    ours = _curves(results[0]) if name != "ALL" else _means(figures(results))
    for field, wanted in stored.items():
        yield compared(SOURCE, f"{key}/{field}", ours[field], wanted, np.float32)


def _tracking_result(root: Path, name: str) -> SequenceResult:
    truth, visible = read_interacttrack_truth(root / f"data/{name}/groundtruth.txt")
    start = first_visible(visible)
    predicted = read_boxes(root / f"pred/{name}.txt")[start:]
    return sequence_result(interacttrack(predicted, truth[start:], ~visible[start:], "released"))


def _curves(result: SequenceResult) -> dict[str, Any]:
    return {"overlap": result.success, "center": result.precision, "center_norm": result.normalised_precision}


def _means(found: Figures) -> dict[str, Any]:
    return {"AUC": found.auc, "Prec": found.precision_20, "NPrec": found.normalised_precision_20}


def _loader_checks(key: str, stored: dict[str, Any], path: Path) -> Iterator[Comparison]:
    _, visible = read_interacttrack_truth(path)
    ours = {"start": first_visible(visible), "visible": visible}
    for field, wanted in stored.items():
        yield compared(SOURCE, f"{key}/{field}", ours[field], wanted)
