"""J and F against the stored output of davis2017-evaluation, vos-benchmark, VISA's scripts and TrackEval.

A folder holds three files:

* inputs.npz: `gt/SEQUENCE` and `pred/SEQUENCE`, label maps uint8 (T, height, width);
* expected.npz: what the toolkits made of them, one key a figure; `_ARRAYS` below lists the kinds;
* expected.json: the rest of it, `_NOTES`; besides, `rvos_expressions` (ids that an expression means, an input) and
  `versions` (of the libraries, no figure).

Every key is either compared or an input. One that is of no known kind is an error, so that nothing that is stored goes
unread. The checks are named after the keys.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.metrics.davis import (
    SequenceScores,
    davis_semi,
    davis_unsupervised,
    over_sequences,
    trackeval_jandf,
    trackeval_summary,
    vos_benchmark,
    vos_benchmark_overall,
    vos_benchmark_rows,
)
from eval.metrics.expressions import mevis, revos
from eval.metrics.masks import sequence_scores, summarise
from eval.parity.checks import Comparison, compared
from trackgpt.data.trees import read_object
from trackgpt.errors import InputError

DAVIS, VOS_BENCHMARK, VISA, TRACKEVAL = "davis2017-evaluation", "vos-benchmark", "VISA", "TrackEval"
_TASKS = {"semi-supervised": davis_semi, "unsupervised": davis_unsupervised}
_GLOBAL_COLUMNS = ["J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"]
_INPUT_ARRAYS = ("mask/void",)
_INPUT_NOTES = ("rvos_expressions", "versions")

LabelMaps = NDArray[np.uint8]
Kinds = Mapping[str, tuple[str, Callable[..., Any]]]
Figures = Iterator[tuple[str, Mapping[str, float], Mapping[str, Any]]]


@dataclass
class Vectors:
    """The files of a folder, and the scores of its sequences once they are computed.

    Attributes:
        folder: where they lie.
        sequences: prediction and truth by name, in alphabetical order.
        arrays: expected.npz.
        notes: expected.json.
    """

    folder: Path
    sequences: dict[str, tuple[LabelMaps, LabelMaps]]
    arrays: dict[str, NDArray[Any]]
    notes: dict[str, Any]
    _scores: dict[tuple[str, str], SequenceScores] = field(default_factory=dict)

    def pair(self, sequence: str) -> tuple[LabelMaps, LabelMaps]:
        """Prediction and truth; InputError if the folder has no such sequence."""
        if sequence not in self.sequences:
            raise _damaged(self.folder / "inputs.npz", f"no sequence {sequence!r}, which a stored figure is about")
        return self.sequences[sequence]

    def davis(self, task: str, sequence: str) -> SequenceScores:
        """Scores of a sequence under one of DAVIS's tasks, computed once; InputError where the tool would exit."""
        if (task, sequence) not in self._scores:
            self._scores[task, sequence] = _TASKS[task](*self.pair(sequence))
        return self._scores[task, sequence]

    def accepted(self, task: str) -> list[str]:
        """Names of the sequences that the task does not refuse."""
        return [name for name in self.sequences if not _refuses(self, task, name)]

    def note(self, key: str, kind: type) -> Any:
        """A value of expected.json; InputError if it is absent or of another type."""
        if not isinstance(self.notes.get(key), kind):
            raise _damaged(self.folder / "expected.json", f"no {kind.__name__} called {key!r}")
        return self.notes[key]

    def names(self, key: str) -> list[str]:
        """A list of names in expected.json; InputError if it is absent or holds anything else."""
        names = self.note(key, list)
        if not all(isinstance(name, str) for name in names):
            raise _damaged(self.folder / "expected.json", f"{key} holds more than names")
        return names


def checks(folder: Path) -> Iterator[Comparison]:
    """Compare everything that is stored in `folder`.

    Args:
        folder: of the layout above.

    Yields:
        One check a key of expected.npz and of expected.json (two for `M_per_object`: J, F), named after it.

    Raises:
        InputError: a file is missing, damaged or of another layout; it says which, and what is wrong.
    """
    vectors = _read(folder)
    for key, wanted in vectors.arrays.items():
        if key not in _INPUT_ARRAYS:
            source, figure = _figure(_ARRAYS, key, folder / "expected.npz")
            yield compared(source, key, figure(vectors), wanted)
    for key in vectors.notes:
        if key not in _INPUT_NOTES:
            source, figures = _figure(_NOTES, key, folder / "expected.json")
            for name, ours, wanted in figures(vectors):
                yield _compared_by_name(source, name, ours, wanted, folder / "expected.json")


# --- one function a kind of array: ours for what is stored under the key ---


def _davis_rows(vectors: Vectors, task: str, sequence: str, what: str) -> ArrayLike:
    rows = () if _refuses(vectors, task, sequence) else vectors.davis(task, sequence).rows
    if what == "stats":
        return [summarise(row.j) + summarise(row.f) for row in rows]
    return [row.j if what == "J" else row.f for row in rows]


def _davis_global(vectors: Vectors, task: str, without: str | None) -> ArrayLike:
    accepted = vectors.accepted(task)
    names = [name for name in vectors.names(f"{task}/GLOBAL_sequences") if name != without and name in accepted]
    overall = over_sequences(vectors.davis(task, name) for name in names)
    return [overall.jf, *overall.j, *overall.f]


def _mask(vectors: Vectors, label: str, what: str, bound_th: str | None) -> ArrayLike:
    prediction, truth = _object(vectors, label)
    if bound_th is not None:
        return sequence_scores(prediction, truth, bound_th=float(bound_th)).f
    void = None
    if what.endswith("_void"):
        void = vectors.arrays.get("mask/void")
        if void is None:
            raise _damaged(vectors.folder / "expected.npz", f"no mask/void, which mask/{label}/{what} needs")
    scores = sequence_scores(prediction, truth, void)
    return scores.j if what.startswith("J") else scores.f


def _object(vectors: Vectors, label: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of "specks1" or "blobs3_2": a sequence and an id, the longest name that fits."""
    for name in sorted(vectors.sequences, key=len, reverse=True):
        if match := re.fullmatch(rf"{re.escape(name)}_?(\d+)", label):
            prediction, truth = vectors.pair(name)
            return prediction == int(match[1]), truth == int(match[1])
    raise _damaged(vectors.folder / "inputs.npz", f"no sequence for mask/{label}")


def _vos_benchmark_rows(vectors: Vectors, skip: str, sequence: str) -> ArrayLike:
    return vos_benchmark_rows(vos_benchmark(*vectors.pair(sequence), skip_first_and_last=skip == "1"))


def _vos_benchmark_global(vectors: Vectors, skip: str) -> ArrayLike:
    prefix = f"vosb/skip{skip}/"
    names = [key.removeprefix(prefix) for key in vectors.arrays if key.startswith(prefix)]
    return vos_benchmark_overall(
        vos_benchmark(*vectors.pair(name), skip_first_and_last=skip == "1")
        for name in sorted(names)
        if name != "GLOBAL_JF_J_F"
    )


def _mevis(vectors: Vectors, sequence: str, expression: str) -> ArrayLike:
    ids = _ids(vectors, sequence, expression)
    return mevis(*(np.isin(labels, ids) for labels in vectors.pair(sequence)))


def _revos(vectors: Vectors, sequence: str, expression: str) -> ArrayLike:
    """R is measured against every object of the truth, whatever the expression means."""
    ids, (prediction, truth) = _ids(vectors, sequence, expression), vectors.pair(sequence)
    return revos(np.isin(prediction, ids), np.isin(truth, ids), foreground=truth > 0)


def _ids(vectors: Vectors, sequence: str, expression: str) -> list[int]:
    said = vectors.note("rvos_expressions", dict).get(sequence)
    ids = said[int(expression)] if isinstance(said, list) and int(expression) < len(said) else None
    if not isinstance(ids, list) or not all(isinstance(k, int) for k in ids):
        path = vectors.folder / "expected.json"
        raise _damaged(path, f"rvos_expressions has no ids for number {expression} of {sequence!r}")
    return ids


_ARRAYS: Kinds = {
    r"davis/(?P<task>semi-supervised|unsupervised)/GLOBAL(?:_without_(?P<without>.+))?": (DAVIS, _davis_global),
    r"davis/(?P<task>semi-supervised|unsupervised)/(?P<sequence>.+)/(?P<what>J|F|stats)": (DAVIS, _davis_rows),
    r"mask/(?P<label>.+)/(?P<what>J|J_void|F_void|F_bound_(?P<bound_th>[\d.]+))": (DAVIS, _mask),
    r"vosb/skip(?P<skip>[01])/GLOBAL_JF_J_F": (VOS_BENCHMARK, _vos_benchmark_global),
    r"vosb/skip(?P<skip>[01])/(?P<sequence>.+)": (VOS_BENCHMARK, _vos_benchmark_rows),
    r"eval_mevis/(?P<sequence>.+)_(?P<expression>\d+)": (VISA, _mevis),
    r"eval_revos/(?P<sequence>.+)_(?P<expression>\d+)": (VISA, _revos),
}


# --- one function a kind of note: name of the check, ours by name, wanted by name ---


def _sequences(vectors: Vectors, key: str, task: str) -> Figures:
    """Which sequences entered the means: 1 for each, so that one too many or too few differs."""
    yield key, dict.fromkeys(vectors.accepted(task), 1.0), dict.fromkeys(vectors.names(key), 1.0)


def _columns(vectors: Vectors, key: str, task: str) -> Figures:
    del task
    wanted = {name: place for place, name in enumerate(vectors.names(key))}
    yield key, {name: place for place, name in enumerate(_GLOBAL_COLUMNS)}, wanted


def _means_by_name(vectors: Vectors, key: str, task: str) -> Figures:
    """The official names count rows, whatever object stands in a row."""
    for measure, wanted in vectors.note(key, dict).items():
        if measure not in ("J", "F") or not isinstance(wanted, dict):
            raise _damaged(vectors.folder / "expected.json", f"{key}/{measure} is no table of J or F")
        ours = {
            f"{name}_{number}": summarise(getattr(row, measure.lower())).mean
            for name in vectors.accepted(task)
            for number, row in enumerate(vectors.davis(task, name).rows, 1)
        }
        yield f"{key}/{measure}", ours, wanted


def _exits(vectors: Vectors, key: str, task: str, sequence: str) -> Figures:
    yield key, {"calls sys.exit": float(_refuses(vectors, task, sequence))}, {"calls sys.exit": 1.0}


def _trackeval(vectors: Vectors, key: str, sequence: str) -> Figures:
    overall, tracks = trackeval_summary(trackeval_jandf(*vectors.pair(sequence)))
    ours = dict(zip(_GLOBAL_COLUMNS, [overall.jf, *overall.j, *overall.f]))
    yield key, {"J&F": ours.pop("J&F-Mean"), "num_gt_tracks": float(tracks), **ours}, vectors.note(key, dict)


_NOTES: Kinds = {
    r"(?P<key>(?P<task>semi-supervised|unsupervised)/GLOBAL_sequences)": (DAVIS, _sequences),
    r"(?P<key>(?P<task>semi-supervised|unsupervised)/GLOBAL_columns)": (DAVIS, _columns),
    r"(?P<key>(?P<task>semi-supervised|unsupervised)/M_per_object)": (DAVIS, _means_by_name),
    r"(?P<key>(?P<task>semi-supervised|unsupervised)/(?P<sequence>.+))": (DAVIS, _exits),
    r"(?P<key>trackeval_jandf/(?P<sequence>.+))": (TRACKEVAL, _trackeval),
}


def _figure(kinds: Kinds, key: str, path: Path) -> tuple[str, Callable[[Vectors], Any]]:
    """Toolkit and function of the kind that a key is of."""
    for pattern, (source, figure) in kinds.items():
        if match := re.fullmatch(pattern, key):
            return source, partial(figure, **match.groupdict())
    raise _damaged(path, f"{key!r} is of no known kind")


def _compared_by_name(
    source: str, name: str, ours: Mapping[str, float], wanted: Mapping[str, Any], path: Path
) -> Comparison:
    """Compare two tables; a name that only one of them has counts as one that differs."""
    alone = [entry for entry in (*wanted, *ours) if (entry in ours) != (entry in wanted)]
    both = [entry for entry in wanted if entry in ours]
    try:
        check = compared(source, name, [ours[entry] for entry in both], [wanted[entry] for entry in both])
    except (TypeError, ValueError) as error:
        raise _damaged(path, f"{name} has values that are no numbers") from error
    if not alone:
        return check
    example = f"{alone[0]!r} is {'ours' if alone[0] in ours else 'theirs'} alone"
    return Comparison(source, name, check.values + len(alone), check.differing + len(alone), example)


def _refuses(vectors: Vectors, task: str, sequence: str) -> bool:
    vectors.pair(sequence)
    try:
        vectors.davis(task, sequence)
    except InputError:
        return True
    return False


# --- the files ---


def _read(folder: Path) -> Vectors:
    inputs = _arrays(folder / "inputs.npz")
    names = sorted({key.split("/", 1)[-1] for key in inputs})
    pairs = {name: _pair(folder / "inputs.npz", inputs, name) for name in names}
    return Vectors(folder, pairs, _arrays(folder / "expected.npz"), _notes(folder / "expected.json"))


def _pair(path: Path, inputs: Mapping[str, NDArray[Any]], name: str) -> tuple[LabelMaps, LabelMaps]:
    prediction, truth = inputs.get(f"pred/{name}"), inputs.get(f"gt/{name}")
    if prediction is None or truth is None:
        raise _damaged(path, f"no {'gt' if truth is None else 'pred'}/{name}")
    if not prediction.dtype == truth.dtype == np.uint8 or truth.ndim != 3 or prediction.shape != truth.shape:
        raise _damaged(path, f"gt/{name} and pred/{name} are not both uint8 (T, height, width) of one size")
    return prediction, truth


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # By way of memory: numpy leaves a damaged file open when it is given the path.
        with np.load(io.BytesIO(path.read_bytes())) as file:
            arrays = dict(file)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    for key, array in arrays.items():
        if array.dtype.kind not in "bufi":
            raise _damaged(path, f"{key} has the type {array.dtype}, which is no number")
    if not arrays:
        raise _damaged(path, "it holds no array")
    return arrays


def _notes(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _missing(path)
    notes = read_object(path)
    if not notes:
        raise _damaged(path, "it holds no object of named figures")
    return notes


def _missing(path: Path) -> InputError:
    return InputError(f"{path}: no such file; wanted inputs.npz, expected.npz and expected.json of golden/vos_jf")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; wanted the layout of golden/vos_jf, so restore the file")
