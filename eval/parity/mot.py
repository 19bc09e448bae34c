"""Our HOTA, CLEAR and Identity against those that TrackEval 12c8791 printed.

expected.json                              preproc_{True,False} -> sequence | COMBINED_SEQ -> metric -> field
inputs/gt/seqmaps/<split>.txt              names of the sequences; one split, e.g. MOT17-train
inputs/gt/<split>/<sequence>/              seqinfo.ini, gt/gt.txt
inputs/trackers/<split>/<tracker>/data/    <sequence>.txt; one tracker
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.metrics.multi_object import COMBINED, MotTruth, MultiObjectScores, Tracked, tracker_scores
from eval.parity.checks import Comparison, compared
from trackgpt.data.mot_files import read_results, read_seqinfo, read_seqmap, read_truth
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError

SOURCE = "TrackEval"
MODES = {"preproc_True": True, "preproc_False": False}
METRICS = {"HOTA": "hota", "CLEAR": "clear", "Identity": "identity", "Count": "count"}


def checks(folder: Path) -> Iterator[Comparison]:
    """Compare every stored field of every sequence, and of all together, with and without preprocessing.

    Args:
        folder: golden vectors in the layout above.

    Yields:
        One check per field, called e.g. "preproc_True/S01-normal/HOTA/AssA"; a field that is stored and that we do not
        have counts as one difference.

    Raises:
        InputError: a file is missing, damaged or not of that layout.
        UsageError: `trackeval` is not installed.
    """
    stored = _stored(folder / "expected.json")
    split, sequences = _sequences(folder / "inputs")
    for mode, preprocess in MODES.items():
        unlike = sorted(set(stored[mode]) ^ {*sequences, COMBINED})
        if unlike:
            raise InputError(
                f"{folder / 'expected.json'}: {unlike[0]} of {mode} stands only there or only in the sequence map; "
                "wanted the same sequences in both"
            )
        ours = tracker_scores(sequences, preprocess, split.partition("-")[0])
        for sequence, metrics in stored[mode].items():
            yield from _sequence_checks(f"{mode}/{sequence}", ours[sequence], metrics, folder / "expected.json")


def _sequence_checks(
    name: str, ours: MultiObjectScores, stored: Mapping[str, Any], place: Path
) -> Iterator[Comparison]:
    if not isinstance(stored, dict) or set(stored) != set(METRICS):
        raise InputError(f"{place}: {name} holds {_keys(stored)}, wanted {', '.join(METRICS)}")
    for metric, part in METRICS.items():
        fields = getattr(ours, part)
        if not isinstance(stored[metric], dict) or not stored[metric]:
            raise InputError(f"{place}: {name}/{metric} holds {_keys(stored[metric])}, wanted numbers by field")
        for field, wanted in stored[metric].items():
            full = f"{name}/{metric}/{field}"
            if field not in fields:
                yield Comparison(SOURCE, full, 1, 1, "we have no such field")
                continue
            try:
                yield compared(SOURCE, full, fields[field], wanted)
            except (TypeError, ValueError) as error:
                raise InputError(f"{place}: {full} is {wanted!r:.60}, wanted numbers") from error


def _stored(place: Path) -> dict[str, Any]:
    found, wanted = read_object(place), {*MODES, "versions"}
    if not set(MODES) <= set(found) <= wanted:
        raise InputError(f"{place}: holds {_keys(found)}, wanted {', '.join(sorted(wanted))}")
    for mode in MODES:
        if not isinstance(found[mode], dict):
            raise InputError(f"{place}: {mode} is {found[mode]!r:.60}, wanted scores by sequence")
    return found


def _sequences(inputs: Path) -> tuple[str, dict[str, tuple[MotTruth, Tracked]]]:
    seqmap = _only(inputs / "gt" / "seqmaps", "*.txt", "sequence map")
    split = seqmap.stem
    tracker = _only(inputs / "trackers" / split, "*/data", "tracker with a folder data")
    found = {}
    for name in read_seqmap(seqmap):
        home = inputs / "gt" / split / name
        frames = read_seqinfo(home / "seqinfo.ini").frames
        truth = read_truth(home / "gt" / "gt.txt", frames)
        found[name] = truth, read_results(tracker / f"{name}.txt", frames)
    return split, found


def _only(folder: Path, pattern: str, what: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} times a {what} ({pattern}), wanted one")
    return found[0]


def _keys(found: object) -> str:
    return ", ".join(map(str, found)) if isinstance(found, dict) else f"{found!r:.60}"
