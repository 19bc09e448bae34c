"""Files and answers of anybody's: bounded in size, depth and numbers, and read in time that grows with their length.

Patterns that try a text again from every place would take minutes on these inputs, and hours on twice as much; what is
asserted is seconds.
"""

import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.contact_sheet import wrapped
from data_tools.rephrase import paraphrases_of
from eval.label_maps import read_mask, soft_masks
from eval.metrics.query_mot_answers import LONGEST_OUTPUT, parse_predicted_output
from eval.metrics.query_mot_rewards import RMOT26_HEAD, format_reward
from trackgpt.data.box_files import read_names
from trackgpt.data.conversations import record_spans
from trackgpt.data.mot_files import read_seqmap
from trackgpt.data.query_clips import frame_number
from trackgpt.data.trees import entries, plain_name, read_json, read_object
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.masks import check_rle, is_size
from trackgpt.reasoners.templates import clean_instruction, visible_answer
from trackgpt.settings import parse_json, read_values
from train.wording import bare

LENGTH = 100_000
OBJECT = re.compile(r'\{.*?"frame":\s*(\d+).*?"bbox(?:_2d)?":\s*\[([^\]]+)\].*?\}')
"""The pattern of the released evaluator of RMOT26, in time of the fourth order."""


def spans_of(text: str, folder: Path) -> np.ndarray:
    (folder / "talk.json").write_text(text)
    try:
        return record_spans(folder / "talk.json")
    except InputError:
        return np.zeros((0, 2))


def names_of(read, text: str, folder: Path) -> list[str]:
    (folder / "list.txt").write_text("\n".join(f"{text}{number}" for number in range(LENGTH)))
    return read(folder / "list.txt")


READERS = {
    "answer": lambda text, _: parse_predicted_output(text),
    "tags": lambda text, _: format_reward(f"<think>{text}", RMOT26_HEAD),
    "shown answer": lambda text, _: visible_answer(text),
    "instruction": lambda text, _: clean_instruction(f"the cat {text}"),
    "conversations": spans_of,
    "frame": lambda text, _: frame_number(Path(f"{text}1")),
    "sheet": lambda text, _: wrapped(text, 12, 300),
    "paraphrases": lambda text, _: paraphrases_of(text),
    "phrase": lambda text, _: bare(text),
}
WORST = [
    ("answer", '{"frame": 947, "bbox": [101, 203, 57, 88], '),
    ("answer", "{"),
    ("answer", '{"frame": 1 '),
    ("answer", '"bbox": ['),
    ("answer", '{"frame": 1\n"bbox": [1] '),
    ("answer", "["),
    ("tags", "</think><answer>"),
    ("tags", "<think></think> "),
    ("shown answer", " "),
    ("shown answer", " <TK>"),
    ("instruction", "<a "),
    ("conversations", '"\\'),
    ("conversations", '"'),
    ("conversations", "{"),
    ("frame", "7x"),
    ("sheet", " "),
    ("paraphrases", "["),
    ("paraphrases", "1. "),
    ("phrase", "the "),
]


@pytest.mark.parametrize(("reader", "unit"), WORST, ids=[f"{name} {unit.strip()}" for name, unit in WORST])
def test_a_text_of_any_length_is_read_in_seconds(reader, unit, tmp_path):
    begun = time.process_time()
    READERS[reader](unit * (LENGTH // len(unit)), tmp_path)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("read", [read_names, read_seqmap])
def test_a_list_of_100_000_names_is_read_in_seconds(read, tmp_path):
    begun = time.process_time()
    assert len(names_of(read, "sequence-", tmp_path)) == LENGTH
    assert time.process_time() - begun < 5


def test_answers_are_taken_apart_as_the_released_pattern_does():
    pieces = ("{", "}", "[", "]", "\n", " ", "x", "4", ",", '"frame":', '"frame": 1', '"frame":\n2', '"bbox":')
    pieces += ('"bbox": [1,2]', '"bbox_2d": [', '"bbox":\n[3', '"bbox": []', '{"frame": 12, "bbox": [1,2,3,4]}')
    rng, found = random.Random(0), 0
    for _ in range(20_000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 14))) + "?"  # never JSON
        try:
            wanted = [(int(frame), [float(x) for x in box.split(",")]) for frame, box in OBJECT.findall(text)]
        except ValueError:
            wanted = []
        assert parse_predicted_output(text) == wanted
        found += bool(wanted)
    assert found > 1000


def test_an_answer_longer_than_any_model_writes_is_refused():
    with pytest.raises(InputError, match="an answer of 1000001 characters; wanted at most 1000000"):
        parse_predicted_output(" " * (LONGEST_OUTPUT + 1))


# JSON and YAML


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[1, 2", "line 1, column 6 on"),
        (b"\xff\xfe", "cannot be read as text; wanted JSON in UTF-8"),
        (b"9" * 5000, "an integer of 5000 digits, 99999999999999999999...; wanted one of 64 bits"),
        (b"9223372036854775808", "an integer of 19 digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 65 + b"]" * 65, "nested too deeply; wanted at most 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested too deeply"),
    ],
)
def test_json_out_of_bounds_is_refused_with_its_place(data, said):
    with pytest.raises(InputError, match=f"^here: .*{re.escape(said)}"):
        parse_json(data, "here")


def test_json_within_bounds_is_read_as_it_is():
    assert parse_json(b'\xef\xbb\xbf{"a": -9223372036854775808, "b": [1.5, null]}', "") == {
        "a": -(2**63),
        "b": [1.5, None],
    }
    assert parse_json("[" * 64 + "]" * 64, "") is not None
    assert parse_json('"\xe9t\xe9"'.encode("cp1252"), "", ("utf-8-sig", "cp1252")) == "été"


def test_a_json_file_is_named_whatever_is_wrong_with_it(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    assert read_json(tmp_path / "list.json") == [1]
    with pytest.raises(InputError, match=r"list\.json: holds a list, wanted an object"):
        read_object(tmp_path / "list.json")
    with pytest.raises(InputError, match=r"none\.json: missing; .* holds list\.json"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read .*; wanted JSON"):
        read_json(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 3000, "line 1 is nested deeper than 64 levels"),
        ("a: &a [1, 2]\nb: [*a, *a]\n", r"line 2 repeats \*a; wanted the value itself"),
        ("a: " + "9" * 5000, "line 1 has an integer of 5000 digits"),
        ("a: b\n" * 300_000, "1500000 characters; wanted at most 1048576"),
    ],
)
def test_yaml_out_of_bounds_is_refused_with_its_line(text, said, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"settings\.yaml: cannot be read as YAML: {said}"):
        read_values(tmp_path / "settings.yaml")


def test_the_cases_that_were_found_by_mutation_are_one_line(shared):
    for name, error in (("meta_ytvos-089b97", InputError), ("eval_run_json-9fc11d", InputError)):
        with pytest.raises(error, match=f"{name}: an integer of 500. digits"):
            read_json(shared / "cases/fuzz" / name)
    with pytest.raises(UsageError, match=r"yaml_train-4513f5: cannot be read as YAML: line 14 repeats \*a"):
        read_values(shared / "cases/fuzz/yaml_train-4513f5")


# Masks and names


def test_runs_whose_sum_overflows_do_not_pass_for_a_mask():
    huge = "".join(f"{'o' * 6}0" for _ in range(4))  # four numbers of 30 bits
    with pytest.raises(InputError, match="covers|beyond"):
        check_rle(huge, 2, 2)
    assert is_size(8192, 8192)
    assert not any(is_size(*size) for size in [(8192, 8193), (0, 4), (4,), (4, 4, 1), (True, 4), (4.0, 4), (-4, -4)])


@pytest.mark.parametrize("name", ["", "..", "a/../../b", "/etc/a", "a\\b", "a//b", "a\0", "./a", "\ud800", "a" * 300])
def test_a_name_that_leads_out_of_its_folder_is_refused(name):
    with pytest.raises(InputError, match="wanted one that stays in its folder"):
        plain_name(name, "here")


def test_a_name_may_lie_in_folders_below():
    assert plain_name("LVVIS/00 one..two", "here") == "LVVIS/00 one..two"


def test_what_other_systems_leave_beside_files_is_passed_over(tmp_path):
    for name in ("a.png", "._a.png", "__MACOSX/b.png", ".DS_Store", "Thumbs.db", "desktop.ini", "c/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in entries(tmp_path, "**/*.png")] == ["a.png", "c/d.png"]
    assert [path.name for path in entries(tmp_path)] == ["a.png", "c"]
    assert entries(tmp_path / "nowhere") == []


def test_a_mask_of_several_values_is_told_of_once(tmp_path):
    for name, values in (("hard", (0, 255)), ("ones", (0, 1)), ("soft", (30, 200)), ("softer", (0, 1, 2, 3, 4, 5))):
        Image.fromarray(np.resize(np.array(values, np.uint8), (4, 6))).save(tmp_path / f"{name}.png")
    assert read_mask(tmp_path / "hard.png").sum() == read_mask(tmp_path / "ones.png").sum() == 12
    assert soft_masks() == ""
    assert read_mask(tmp_path / "soft.png").all()
    read_mask(tmp_path / "softer.png")
    assert soft_masks() == f"{tmp_path / 'soft.png'} holds 30, 200"
    assert soft_masks() == ""
    read_mask(tmp_path / "softer.png")
    assert soft_masks() == f"{tmp_path / 'softer.png'} holds 1, 2, 3, 4, ..."
