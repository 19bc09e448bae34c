import json
import pickle
from pathlib import Path

import pytest

from data_tools.image_writers import questions, write_llava_instruct
from trackgpt.data.conversations import llava_instruct, record_spans
from trackgpt.data.images import Round
from trackgpt.errors import InputError
from trackgpt.synthtrack.clips import make_case

CASES = [make_case(seed, "train", frames=1, longest=64) for seed in range(3)]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def dataset(root: Path, text: str, name: str = "llava_instruct_150k") -> Path:
    (root / "llava_dataset").mkdir(exist_ok=True)
    (root / "coco/train2017").mkdir(parents=True, exist_ok=True)
    (root / "coco/train2017/1.jpg").touch()
    (root / f"llava_dataset/{name}.json").write_text(text, encoding="utf-8")
    return root


def records(count: int) -> list[dict]:
    return [
        {
            "id": f"{k:012d}",
            "image": f"{k:012d}.jpg",
            "conversations": turns(f"<image>\nhow many, {k}?", f"{k} of them"),
        }
        for k in range(count)
    ]


def test_conversations_come_back_as_they_were_written(tmp_path):
    counts = write_llava_instruct(tmp_path, CASES[:2], "train")
    assert (counts.frames, counts.expressions) == (2, 4)
    write_llava_instruct(tmp_path, CASES[2:], "valid")
    found = llava_instruct(tmp_path)
    assert len(found) == 3
    for conversation, case in zip(found, CASES, strict=True):
        assert conversation.rounds == tuple(Round(*pair) for pair in questions(case))
        assert conversation.image == tmp_path / f"coco/train2017/{conversation.name}.jpg"
        assert conversation.image.exists()


def test_any_record_is_parsed_by_itself(tmp_path):
    found = llava_instruct(dataset(tmp_path, json.dumps(records(50))))
    assert [found[k].rounds[0] for k in (49, 0, 17, -1)] == [
        Round(f"how many, {k}?", f"{k} of them") for k in (49, 0, 17, 49)
    ]
    with pytest.raises(IndexError):
        _ = found[50]


@pytest.mark.parametrize("form", ["indented", "compact", "ascii", "lines", "marked"])
def test_every_way_to_write_the_list_gives_the_same(tmp_path, form):
    odd = 'a "quoted" } brace { and \\ a backslash\\" é 🐕 ]'
    wanted = [{"id": "1", "image": "1.jpg", "conversations": turns(odd, odd)}, *records(3)]
    text = {
        "indented": json.dumps(wanted, indent=2, ensure_ascii=False) + "\n",
        "compact": json.dumps(wanted, separators=(",", ":"), ensure_ascii=False),
        "ascii": json.dumps(wanted),
        "lines": "".join(json.dumps(one) + "\n" for one in wanted),
        "marked": "\ufeff" + json.dumps(wanted),
    }[form]
    found = llava_instruct(dataset(tmp_path, text))
    assert len(found) == 4
    assert found[0].rounds == (Round(odd, odd),)
    assert [one.name for one in found] == ["1", "000000000000", "000000000001", "000000000002"]


def test_two_numbers_a_record_are_kept(tmp_path):
    found = llava_instruct(dataset(tmp_path, json.dumps(records(20))))
    assert (found.spans.shape, found.spans.dtype) == ((20, 2), "int64")
    copy = pickle.loads(pickle.dumps(found))
    assert copy[7] == found[7]
    assert len(pickle.dumps(found)) < 1000


@pytest.mark.parametrize("text", ["what is it?\n<image>", "<image>\nwhat is it?", "<image>what is it?", "what is it?"])
def test_the_placeholder_of_the_picture_is_taken_out(tmp_path, text):
    record = {"id": "a", "image": "a.jpg", "conversations": turns(text, "a dog")}
    assert llava_instruct(dataset(tmp_path, json.dumps([record])))[0].rounds == (Round("what is it?", "a dog"),)


def test_a_record_without_a_picture_shows_none(tmp_path):
    (found,) = llava_instruct(dataset(tmp_path, json.dumps([{"id": 3, "conversations": turns("hi", "hello")}])))
    assert (found.name, found.image) == ("3", None)


def test_what_comes_before_the_first_question_is_left_out(tmp_path):
    said = [{"from": "gpt", "value": "welcome"}, *turns("q", "a", "r", "b")]
    (found,) = llava_instruct(dataset(tmp_path, json.dumps([{"id": "1", "conversations": said}])))
    assert found.rounds == (Round("q", "a"), Round("r", "b"))


@pytest.mark.parametrize(
    "record",
    [
        {"id": "1", "conversations": turns("q", "a", "r")},
        {"id": "1", "conversations": [*turns("q"), *turns("r")]},
        {"id": "1", "conversations": []},
        {"id": "1", "conversations": [{"from": "system", "value": "x"}]},
        {"id": "1"},
        {"conversations": turns("q", "a")},
    ],
)
def test_a_record_that_is_no_conversation_is_named(tmp_path, record):
    found = llava_instruct(dataset(tmp_path, json.dumps([*records(1), record])))
    assert len(found[0].rounds) == 1
    with pytest.raises(InputError, match=r"llava_instruct_150k\.json: record 1, at byte \d+: .*by turns"):
        _ = found[1]


@pytest.mark.parametrize("kept", [1, 30, -1, -20, -200])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept):
    text = json.dumps(records(4))
    with pytest.raises(InputError, match="is it cut off"):
        llava_instruct(dataset(tmp_path, text[:kept]))


def test_a_file_cut_between_two_records_is_refused(tmp_path):
    text = json.dumps(records(4))
    (tmp_path / "a.json").write_text(text[: text.index("}, {") + 1])
    with pytest.raises(InputError, match="is it cut off"):
        record_spans(tmp_path / "a.json")


@pytest.mark.parametrize(("text", "said"), [("", "not readable"), ("[]", "no objects"), ("[1, 2]", "no objects")])
def test_a_file_without_records_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        llava_instruct(dataset(tmp_path, text))


def test_missing_files_say_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"no llava-instruct here; wanted llava_instruct_150k\.json in it"):
        llava_instruct(tmp_path)
    (tmp_path / "llava_dataset").mkdir()
    (tmp_path / "llava_dataset/llava_instruct_150k.json").write_text(json.dumps(records(1)))
    with pytest.raises(InputError, match=r"no pictures of COCO 2017 here; wanted train2017/\*\.jpg"):
        llava_instruct(tmp_path)


def test_other_files_of_the_same_form_are_read_by_name(tmp_path):
    assert len(llava_instruct(dataset(tmp_path, json.dumps(records(2)), "mine"), "mine")) == 2
