"""Every stored number of TrackEval and QTrack is compared, none differs, and damaged folders are refused by name."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from eval.parity import mot, rmot26
from trackgpt.errors import InputError

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
MODULES = {"mot": mot, "rmot26": rmot26}
needs_golden = pytest.mark.skipif(
    not all((GOLDEN / name).is_dir() for name in MODULES), reason="golden vectors (../shared/golden) are absent"
)
needs_trackeval = pytest.mark.skipif(
    find_spec("trackeval") is None, reason="trackeval is not installed (constraints.txt says how)"
)


def leaves(stored: object) -> int:
    """How many numbers there are in nested dicts and lists."""
    if isinstance(stored, dict):
        return sum(leaves(value) for value in stored.values())
    return sum(leaves(value) for value in stored) if isinstance(stored, list) else 1


def copied(name: str, folder: Path) -> Path:
    # Not copytree's own copy of modes: the golden vectors are read-only, and the copy is to be damaged.
    return Path(shutil.copytree(GOLDEN / name, folder / name, copy_function=shutil.copyfile))


def rewritten(place: Path, change) -> None:
    place.parent.chmod(0o755)
    stored = json.loads(place.read_text())
    change(stored)
    place.write_text(json.dumps(stored))


@needs_golden
@needs_trackeval
def test_every_number_of_trackeval_is_equal():
    found = list(mot.checks(GOLDEN / "mot"))
    assert [check for check in found if check.differing] == []
    stored = json.loads((GOLDEN / "mot" / "expected.json").read_text())
    assert sum(check.values for check in found) == leaves(stored["preproc_True"]) + leaves(stored["preproc_False"])
    assert {check.source for check in found} == {"TrackEval"}


@needs_golden
def test_every_number_of_qtrack_is_equal():
    found = list(rmot26.checks(GOLDEN / "rmot26"))
    assert [check for check in found if check.differing] == []
    stored = json.loads((GOLDEN / "rmot26" / "expected.json").read_text())
    del stored["versions"]
    texts = len(stored["parse"])
    assert sum(check.values for check in found) == leaves(stored) - texts
    assert {check.source for check in found} == {"QTrack", "trackgpt, rmot26_proposed"}


@needs_golden
@needs_trackeval
def test_a_changed_number_is_found_and_shown(tmp_path):
    def change(stored):
        stored["preproc_True"]["S01-normal"]["CLEAR"]["MOTA"] += 1e-15
        stored["preproc_False"]["COMBINED_SEQ"]["HOTA"]["AssA"][3] = 0.5
        stored["preproc_False"]["COMBINED_SEQ"]["HOTA"]["New"] = 1.0

    folder = copied("mot", tmp_path)
    rewritten(folder / "expected.json", change)
    differing = {check.name: check.example for check in mot.checks(folder) if check.differing}
    assert list(differing) == [
        "preproc_True/S01-normal/CLEAR/MOTA",
        "preproc_False/COMBINED_SEQ/HOTA/AssA",
        "preproc_False/COMBINED_SEQ/HOTA/New",
    ]
    assert "wanted np.float64(0.5)" in differing["preproc_False/COMBINED_SEQ/HOTA/AssA"]


@needs_golden
def test_a_changed_reward_is_found_and_shown(tmp_path):
    def change(stored):
        stored["HEAD_bc746fe"]["mcp"][0] *= 1 + 1e-14
        stored["first_e43ec0c"]["fmt"][1] = 1.0
        stored["parse"][0]["out"][0]["frame"] = 4
        stored["PROPOSED_clips"][2]["MCP"] = None

    folder = copied("rmot26", tmp_path)
    rewritten(folder / "expected.json", change)
    differing = [check.name for check in rmot26.checks(folder) if check.differing]
    assert differing == ["HEAD_bc746fe/mcp", "first_e43ec0c/fmt", "parse/0", "PROPOSED_clips/2/MCP"]


@needs_golden
def test_a_sequence_more_in_the_map_is_asked_for(tmp_path):
    folder = copied("mot", tmp_path)
    seqmap = folder / "inputs" / "gt" / "seqmaps" / "MOT17-train.txt"
    seqmap.parent.chmod(0o755)
    seqmap.write_text("name\nS01-normal\n")
    with pytest.raises(InputError, match="expected.json: S02-noisy of preproc_True stands only there"):
        list(mot.checks(folder))


@needs_golden
@pytest.mark.parametrize(
    ("name", "victim"),
    [
        ("mot", "expected.json"),
        ("mot", "inputs/gt/seqmaps/MOT17-train.txt"),
        ("mot", "inputs/gt/MOT17-train/S03-crowd/seqinfo.ini"),
        ("mot", "inputs/gt/MOT17-train/S03-crowd/gt/gt.txt"),
        ("mot", "inputs/trackers/MOT17-train/T/data/S03-crowd.txt"),
        ("rmot26", "expected.json"),
        ("rmot26", "inputs.json"),
    ],
)
def test_a_missing_or_damaged_file_is_named(name, victim, tmp_path):
    folder = copied(name, tmp_path)
    path = folder / victim
    path.parent.chmod(0o755)
    text = path.read_text()
    path.write_text(text[: len(text) // 2] + "?\n" if victim != "inputs/gt/seqmaps/MOT17-train.txt" else "")
    with pytest.raises(InputError, match=path.name):
        list(MODULES[name].checks(folder))
    path.unlink()
    named = path.parent.name if path.parent.name == "seqmaps" else path.name
    with pytest.raises(InputError, match=named):
        list(MODULES[name].checks(folder))


@needs_golden
@pytest.mark.parametrize("key", ["HEAD_bc746fe", "parse", "PROPOSED_clips"])
def test_another_layout_of_qtrack_is_refused(key, tmp_path):
    folder = copied("rmot26", tmp_path)
    rewritten(folder / "expected.json", lambda stored: stored.update({key: 5}))
    with pytest.raises(InputError, match="not of the layout of rmot26"):
        list(rmot26.checks(folder))
    rewritten(folder / "expected.json", lambda stored: stored.pop(key))
    with pytest.raises(InputError, match=f"expected.json: holds .*; wanted .*{key}"):
        list(rmot26.checks(folder))


@needs_golden
@pytest.mark.parametrize("value", [5, {}, {"HOTA": {}}, "text"])
def test_another_layout_of_trackeval_is_refused(value, tmp_path):
    folder = copied("mot", tmp_path)
    rewritten(folder / "expected.json", lambda stored: stored["preproc_True"].update({"S01-normal": value}))
    with pytest.raises(InputError, match="expected.json: preproc_True/S01-normal holds"):
        list(mot.checks(folder))
    rewritten(folder / "expected.json", lambda stored: stored.update({"preproc_True": value}))
    with pytest.raises(InputError, match="expected.json: .*preproc_True"):
        list(mot.checks(folder))


def test_exp_is_rounded_down_and_up_around_the_exact_value():
    for x in (-0.5, -0.00647785880884164, -3.0):
        low, high = rmot26._exp_down(x), rmot26._exp_up(x)
        assert high == np.nextafter(low, 1)
        assert low <= np.exp(x) <= high
    assert rmot26._exp_down(0.0) == rmot26._exp_up(0.0) == 1.0
