"""Every stored number of the official J and F scorers is equal, none is left out, and a damaged folder is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.parity.checks import Comparison
from eval.parity.vos_jf import checks
from trackgpt.errors import InputError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "vos_jf"
needs_golden = pytest.mark.skipif(
    not (GOLDEN / "expected.npz").is_file(),
    reason="stored values of the official scorers (../shared/golden/vos_jf) are absent",
)


@pytest.fixture(scope="module")
def golden() -> list[Comparison]:
    return list(checks(GOLDEN))


@needs_golden
def test_every_stored_number_is_equal(golden):
    assert [f"{check.name}: {check.example}" for check in golden if check.differing] == []
    by_source = dict.fromkeys(("davis2017-evaluation", "vos-benchmark", "VISA", "TrackEval"), 0)
    for check in golden:
        by_source[check.source] += check.values
    assert all(by_source.values())


@needs_golden
def test_no_stored_number_is_left_out(golden):
    """One check a key, of as many values as are stored; `mask/void` is an input, `versions` is no figure."""
    names = [check.name for check in golden]
    assert len(names) == len(set(names))
    values = {check.name: check.values for check in golden}
    with np.load(GOLDEN / "expected.npz") as arrays:
        sizes = {key: arrays[key].size for key in arrays if key != "mask/void"}
    assert {key: values.get(key) for key in sizes} == sizes
    notes = json.loads((GOLDEN / "expected.json").read_text())
    for key, note in notes.items():
        if key.endswith("M_per_object"):
            assert (values[f"{key}/J"], values[f"{key}/F"]) == (len(note["J"]), len(note["F"]))
        elif key not in ("rvos_expressions", "versions"):
            assert values[key] == (1 if isinstance(note, str) else len(note)), key


# --- a folder of the same layout, small enough to be written here ---


def squares() -> np.ndarray:
    """Four frames of 6 x 8 with object 1 of 2 x 2 pixels in the upper left and object 2 in the lower right."""
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[:, 1:3, 1:3], labels[:, 3:5, 5:7] = 1, 2
    return labels


@pytest.fixture
def folder(tmp_path) -> Path:
    """Sequence "right" is predicted perfectly; "wrong" has an id too many for the semi-supervised task."""
    truth = squares()
    wrong = truth.copy()
    wrong[1, 0, 0] = 3
    np.savez(
        tmp_path / "inputs.npz", **{"gt/right": truth, "pred/right": truth, "gt/wrong": truth, "pred/wrong": wrong}
    )
    ones = {
        "davis/semi-supervised/right/J": np.ones((2, 2)),
        "davis/semi-supervised/right/stats": np.tile([1.0, 1.0, 0.0], (2, 2)),
        "davis/semi-supervised/GLOBAL": np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]),
        "davis/unsupervised/wrong/F": np.ones((2, 4)),
        "mask/right2/F_bound_3": np.ones(4),
        "vosb/skip1/right": np.array([[1.0, 100.0, 100.0], [2.0, 100.0, 100.0]]),
        "vosb/skip1/GLOBAL_JF_J_F": np.full(3, 100.0),
        "eval_mevis/right_0": np.ones(2),
        "eval_revos/right_1": np.ones(4),
    }
    np.savez(tmp_path / "expected.npz", **ones)
    notes = {
        "semi-supervised/wrong": "official toolkit calls sys.exit()",
        "semi-supervised/GLOBAL_sequences": ["right"],
        "semi-supervised/M_per_object": {"J": {"right_1": 1.0, "right_2": 1.0}},
        "rvos_expressions": {"right": [[1], [1, 2]]},
        "trackeval_jandf/right": {"J-Mean": 1.0, "J-Recall": 1.0, "J-Decay": 0.0, "num_gt_tracks": 2.0}
        | {"F-Mean": 1.0, "F-Recall": 1.0, "F-Decay": 0.0, "J&F": 1.0},
    }
    (tmp_path / "expected.json").write_text(json.dumps(notes))
    return tmp_path


def rewrite(path: Path, **changes) -> None:
    """Replace arrays of an .npz, or notes of a .json; None takes one away."""
    if path.suffix == ".json":
        entries = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: note for key, note in entries.items() if note is not None}))
        return
    with np.load(path) as file:
        entries = dict(file) | changes
    np.savez(path, **{key: array for key, array in entries.items() if array is not None})


def differing(folder: Path) -> dict[str, int]:
    return {check.name: check.differing for check in checks(folder) if check.differing}


def test_another_folder_of_the_same_layout_is_compared(folder):
    found = list(checks(folder))
    assert len(found) == 9 + 4
    assert sum(check.differing for check in found) == 0
    assert sum(check.values for check in found) == (4 + 12 + 7 + 8 + 4 + 6 + 3 + 2 + 4) + (1 + 1 + 2 + 8)


def test_one_changed_number_is_one_difference(folder):
    changed = np.ones((2, 2))
    changed[1, 0] = np.nextafter(1, 0)  # the last bit
    rewrite(folder / "expected.npz", **{"davis/semi-supervised/right/J": changed})
    assert differing(folder) == {"davis/semi-supervised/right/J": 1}
    (check,) = (check for check in checks(folder) if check.differing)
    assert "[1, 0]" in check.example


def test_a_sequence_that_is_refused_on_one_side_alone_differs(folder):
    rewrite(folder / "expected.json", **{"semi-supervised/right": "official toolkit calls sys.exit()"})
    assert differing(folder) == {"semi-supervised/right": 1}
    rewrite(
        folder / "expected.json",
        **{"semi-supervised/right": None, "semi-supervised/GLOBAL_sequences": ["right", "wrong"]},
    )
    assert differing(folder) == {"semi-supervised/GLOBAL_sequences": 1}
    rewrite(folder / "expected.npz", **{"davis/semi-supervised/wrong/J": np.ones((2, 2))})
    assert differing(folder) == {"davis/semi-supervised/wrong/J": 1, "semi-supervised/GLOBAL_sequences": 1}


def test_a_name_that_one_side_lacks_differs(folder):
    rewrite(folder / "expected.json", **{"semi-supervised/M_per_object": {"J": {"right_1": 1.0, "right_9": 1.0}}})
    assert differing(folder) == {"semi-supervised/M_per_object/J": 2}  # right_9 is theirs alone, right_2 ours


@pytest.mark.parametrize("name", ["inputs.npz", "expected.npz", "expected.json"])
def test_a_missing_or_damaged_file_is_named(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{name}: (it cannot be read|no JSON)"):
        list(checks(folder))
    (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match=rf"{name}: (it cannot be read|no JSON)"):
        list(checks(folder))
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        list(checks(folder))
    with pytest.raises(InputError, match="no such file"):
        list(checks(folder / "nowhere"))


def test_a_flipped_byte_is_noticed(folder):
    data = bytearray((folder / "inputs.npz").read_bytes())
    data[data.index(b"gt/right.npy") + 200] ^= 1
    (folder / "inputs.npz").write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"inputs\.npz: it cannot be read"):
        list(checks(folder))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("expected.npz", {"davis/interactive/right/J": np.ones(2)}, "'davis/interactive/right/J' is of no known kind"),
        ("expected.json", {"speed": 1.0}, "'speed' is of no known kind"),
        ("inputs.npz", {"pred/right": None}, "no pred/right"),
        ("inputs.npz", {"gt/right": None}, "no gt/right"),
        ("inputs.npz", {"gt/right": np.zeros((4, 6, 8), int)}, "gt/right and pred/right are not both uint8"),
        ("inputs.npz", {"gt/right": None, "pred/right": None}, "no sequence 'right'"),
        ("inputs.npz", {"pred/right": np.zeros((4, 6, 7), np.uint8)}, "gt/right and pred/right are not both uint8"),
        ("expected.npz", {"eval_mevis/right_0": np.array(["0.5", "0.5"])}, "eval_mevis/right_0 has the type <U3"),
        ("expected.npz", {"eval_mevis/right_7": np.ones(2)}, "rvos_expressions has no ids for number 7 of 'right'"),
        ("expected.npz", {"mask/left1/J": np.ones(4)}, "no sequence for mask/left1"),
        ("expected.npz", {"mask/right1/J_void": np.ones(4)}, "no mask/void, which mask/right1/J_void needs"),
        ("expected.json", {"semi-supervised/GLOBAL_sequences": None}, "no list called 'semi-supervised/GLOBAL_seq"),
        ("expected.json", {"semi-supervised/GLOBAL_sequences": [["right"]]}, "holds more than names"),
        ("expected.json", {"semi-supervised/M_per_object": {"J": [1.0]}}, "M_per_object/J is no table of J or F"),
        ("expected.json", {"trackeval_jandf/right": {"J&F": "one"}}, "trackeval_jandf/right has values that are no"),
    ],
)
def test_a_folder_of_another_layout_is_refused(folder, name, changes, message):
    rewrite(folder / name, **changes)
    with pytest.raises(InputError, match=message):
        list(checks(folder))


@needs_golden
def test_a_copy_elsewhere_gives_the_same_checks(golden, tmp_path):
    for name in ("inputs.npz", "expected.npz", "expected.json"):
        shutil.copy(GOLDEN / name, tmp_path)
    assert list(checks(tmp_path)) == golden
