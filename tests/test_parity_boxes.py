"""Every stored number of the box-tracking and InteractTrack toolkits, beside ours."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.metrics.box_conventions import lasot_matlab, tnllt
from eval.metrics.boxes import figures, sequence_result
from eval.parity import interacttrack, sot
from trackgpt.data.box_files import LASOT_ABSENT, TNLLT_ABSENT, read_absent, read_boxes
from trackgpt.errors import InputError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
pytestmark = pytest.mark.skipif(
    not (GOLDEN / "sot").is_dir() or not (GOLDEN / "interacttrack").is_dir(),
    reason="stored outputs of the official toolkits (../shared/golden) are absent",
)


def stored_numbers(value: Any) -> int:
    """Leaves of a JSON value without its "versions"; a refusal ("raises: ...") is one."""
    if isinstance(value, dict):
        return sum(stored_numbers(part) for key, part in value.items() if key != "versions")
    return sum(stored_numbers(part) for part in value) if isinstance(value, list) else 1


def stored_in_matlab(path: Path) -> int:
    from scipy.io import loadmat

    structs = [struct for name, struct in loadmat(path).items() if not name.startswith("__")]
    return sum(struct[field][0, 0].size for struct in structs for field in struct.dtype.names)


def test_every_stored_number_of_five_box_toolkits_is_reproduced():
    found = list(sot.checks(GOLDEN / "sot"))
    assert [check for check in found if check.differing] == []
    values = Counter()
    for check in found:
        values[check.source] += check.values
    assert values == {
        "LaSOT_Evaluation_Toolkit": 9978,
        "TNLLT_Evaluation_Toolkit": 9978,
        "pytracking": 20996,
        "InteractTrack": 5249,
        "got10k": 9519,
    }
    stored = json.loads((GOLDEN / "sot/expected_python.json").read_text())
    assert values.total() == stored_numbers(stored) + stored_in_matlab(GOLDEN / "sot/expected_matlab_octave.mat")
    assert len({(check.source, check.name) for check in found}) == len(found)


def test_every_stored_number_of_interacttrack_is_reproduced():
    found = list(interacttrack.checks(GOLDEN / "interacttrack"))
    assert [check for check in found if check.differing] == []
    stored = json.loads((GOLDEN / "interacttrack/expected.json").read_text())
    assert sum(check.values for check in found) == stored_numbers(stored) == 1454
    assert len({check.name for check in found}) == len(found)


def test_a_changed_number_is_noticed(tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "interacttrack", tmp_path / "golden"))
    stored = json.loads((folder / "expected.json").read_text())
    stored["clean/ALL"]["Interactive"] = np.nextafter(stored["clean/ALL"]["Interactive"], 0)
    (folder / "expected.json").write_text(json.dumps(stored))
    assert [check.name for check in interacttrack.checks(folder) if check.differing] == ["clean/ALL/Interactive"]


def test_a_pixel_more_is_noticed_by_every_toolkit(tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "sot", tmp_path / "golden"))
    for path in (folder / "inputs/results").glob("*/a-int.txt"):
        lines = path.read_text().splitlines()
        lines[40] = "1,1,1,1"
        path.write_text("\n".join(lines))
    noticed = {check.source for check in sot.checks(folder) if check.differing}
    assert len(noticed) == 5


def test_the_wrong_polarity_is_noticed():
    annos, results = GOLDEN / "sot/inputs/annos", GOLDEN / "sot/inputs/results/good_tracking_result"
    truth, predicted = read_boxes(annos / "c-absent0.txt"), read_boxes(results / "c-absent0.txt")
    present = annos / "present/c-absent0.txt"
    right, wrong = (read_absent(present, value) for value in (TNLLT_ABSENT, LASOT_ABSENT))
    assert right.sum() == 18
    assert figures([sequence_result(tnllt(predicted, truth, right))]).op50 == pytest.approx(0.82, abs=1e-15)
    # Only the 18 absent frames would be judged, and none of them has a box.
    assert figures([sequence_result(lasot_matlab(predicted, truth, wrong))]).success_sequences == 0


@pytest.mark.parametrize(
    ("module", "name", "gone"),
    [
        (sot, "sot", "expected_python.json"),
        (sot, "sot", "expected_matlab_octave.mat"),
        (sot, "sot", "inputs/annos/present/a-int.txt"),
        (interacttrack, "interacttrack", "expected.json"),
        (interacttrack, "interacttrack", "inputs/clean/data/0001/switch.txt"),
    ],
)
def test_a_missing_or_damaged_file_is_named(tmp_path, module, name, gone):
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / "golden"))
    (folder / gone).unlink()
    with pytest.raises(InputError, match=Path(gone).name):
        list(module.checks(folder))
    (folder / gone).write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match=Path(gone).name):
        list(module.checks(folder))


def test_a_stored_key_that_is_missing_or_unknown_is_an_error(tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "interacttrack", tmp_path / "golden"))
    stored = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").write_text(json.dumps({"clean/9999": {"Interactive": 1.0}}))
    with pytest.raises(InputError, match="9999"):
        list(interacttrack.checks(folder))
    (folder / "expected.json").write_text(json.dumps({**stored, "scenes/ALL": {}}))
    with pytest.raises(InputError, match="unknown key 'scenes/ALL'"):
        list(interacttrack.checks(folder))


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected\.json: missing"):
        list(interacttrack.checks(tmp_path))
    with pytest.raises(InputError, match=r"sequences\.txt: cannot be read"):
        list(sot.checks(tmp_path))
