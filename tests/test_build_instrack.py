import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_trees import FRAMES, change_json, copies, problems, run, some_cases, tree_fixture
from PIL import Image

from data_tools import vipseg as panoptic
from data_tools.build_instrack import RECORD, build, open_davis, open_vipseg, plan
from data_tools.instructions import Instruction, read_instructions, write_instructions
from data_tools.synthtrack import Layout, Split
from trackgpt.data.referring_video import instrack, refer_davis17
from trackgpt.errors import InputError, OutputError

davis = tree_fixture(Layout.refer_davis17)
vipseg = tree_fixture(Layout.vipseg)
broken = copies
FIVE = tuple(f"wording {k}" for k in range(1, 6))


def seed(**changes: object) -> Instruction:
    values = {"source": "vipseg", "video": "train-30000", "objects": (), "split": "train", "instruction": "Who wins?"}
    return Instruction(**{**values, **changes})


def annotated(path: Path, *instructions: Instruction) -> Path:
    write_instructions(path, instructions)
    return path


@pytest.fixture
def annotations(davis, vipseg, tmp_path):
    """Every instruction of the small VIPSeg, rephrased, and one about a video of Refer-DAVIS17."""
    said = read_instructions(vipseg / "instructions.jsonl")
    video = refer_davis17(davis, "valid")[1]
    label = int(video.expressions[0].objects[0])
    added = Instruction("refer-davis17", video.name, (label,), "test", "What is it?", "It is this. <TK>, <PO>", FIVE)
    renamed = [one for one in said if one.video != video.name]
    rephrased = [Instruction(**{**vars(one), "paraphrases": FIVE}) for one in renamed]
    return annotated(tmp_path / "annotations.jsonl", *rephrased, added)


def arguments(annotations: Path, davis: Path, vipseg: Path, out: Path) -> list[object]:
    roots = ["--refer-davis17", davis, "--vipseg", vipseg]
    return ["build-instrack", *roots, "--annotations", annotations, "-o", out]


def last(capsys) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in capsys.readouterr().out.splitlines()[-1].split(" "))


# What is built


def test_the_tree_that_is_built_is_instrack(annotations, davis, vipseg, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*arguments(annotations, davis, vipseg, out)) == 0
    assert last(capsys) == {
        "layout": "instrack",
        "train": "2",
        "test": "2",
        "made": "4",
        "missing": "0",
        "out": str(out),
    }
    assert problems("instrack", out) == []
    assert sorted(path.name for path in out.iterdir()) == [RECORD, "meta_expressions", "test", "train"]


def test_masks_show_what_the_source_shows_and_nothing_else(annotations, davis, vipseg, tmp_path):
    run(*arguments(annotations, davis, vipseg, tmp_path / "out"))
    said = {one.video: one for one in read_instructions(annotations)}
    for split in ("train", "test"):
        for video in instrack(tmp_path / "out", split):
            one = said[video.name]
            assert [e.tags["wording"] for e in video.expressions] == ["0", "1", "2", "3", "4", "5"]
            assert [e.text for e in video.expressions] == [one.instruction, *one.paraphrases]
            assert {e.tags.get("answer", "") for e in video.expressions} == {one.answer}
            for t in range(FRAMES):
                found = video.masks.mask(video.expressions[0].objects, t)
                if one.source == "vipseg":
                    wanted = np.isin(panoptic.open_video(vipseg, video.name).values(t), one.objects)
                else:
                    (source,) = [v for v in refer_davis17(davis, "valid") if v.name == video.name]
                    wanted = source.masks.mask([str(key) for key in one.objects], t)
                assert np.array_equal(found, wanted)
                with Image.open(tmp_path / f"out/{split}/Annotations/{video.name}/{t:05d}.png") as picture:
                    assert picture.mode == "P"
                    assert np.array_equal(np.asarray(picture) > 0, wanted)  # one object alone is meant


def test_frames_are_copied_byte_for_byte_and_numbered_from_0(annotations, davis, vipseg, tmp_path):
    run(*arguments(annotations, davis, vipseg, tmp_path / "out"))
    for t in range(FRAMES):
        copy = tmp_path / f"out/train/JPEGImages/train-30000/{t:05d}.jpg"
        assert copy.read_bytes() == (vipseg / f"imgs/train-30000/{10 * t:08d}.jpg").read_bytes()
    document = json.loads((tmp_path / "out/meta_expressions/train/meta_expressions.json").read_text())
    video = document["videos"]["train-30000"]
    assert video["source"] == "vipseg"
    assert video["source_frames"] == [f"{10 * t:08d}" for t in range(FRAMES)]
    (said,) = [one for one in read_instructions(annotations) if one.video == "train-30000"]
    assert video["source_objects"] == {"1": said.objects[0]}


def test_several_lines_about_a_video_are_groups_with_shared_numbers(vipseg, tmp_path):
    case = some_cases(Layout.vipseg, Split.train, 1)[0]
    values = [int(value) for value in np.unique(panoptic.open_video(vipseg, case.clip.name).values(0)) if value > 124]
    lines = [
        seed(objects=(values[1],), paraphrases=FIVE),
        seed(objects=(values[0], values[1]), instruction="Which two?", paraphrases=FIVE),
        seed(objects=(), instruction="Is there a ghost?", paraphrases=FIVE),
    ]
    file = annotated(tmp_path / "a.jsonl", *lines)
    build(plan(read_instructions(file), {"vipseg": open_vipseg(vipseg)}), tmp_path / "out")
    (video,) = instrack(tmp_path / "out", "train")
    assert Counter((e.tags["group"], e.objects) for e in video.expressions) == {
        ("0", ("1",)): 6,
        ("1", ("2", "1")): 6,
        ("2", ()): 6,
    }
    assert problems("instrack", tmp_path / "out") == []


# Dry runs and what is missing


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(annotations, davis, vipseg, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*arguments(annotations, davis, vipseg, out), "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: 2 videos of 143 in the paper, 0 made before; 12 expressions of 858"
    assert lines[1] == "test: 2 videos of 40 in the paper, 0 made before; 12 expressions of 240"
    assert lines[-1] == f"layout=instrack train=2 test=2 made=0 missing=0 out={out}"
    assert not out.exists()


def test_seeds_that_were_not_rephrased_are_counted(vipseg, tmp_path, capsys):
    run("build-instrack", "--vipseg", vipseg, "--annotations", vipseg / "instructions.jsonl", "-o", tmp_path / "out")
    assert "4 instructions have no paraphrases" in capsys.readouterr().out
    assert problems("instrack", tmp_path / "out")[0].endswith(
        "group 0 has the wordings 0; wanted each of 0 to 5 once; `data_tools rephrase` writes the others"
    )


def test_what_is_missing_is_named_by_file_and_line(vipseg, tmp_path, capsys):
    file = annotated(
        tmp_path / "a.jsonl",
        seed(),
        seed(video="nowhere", objects=(6100,)),
        seed(source="refer-davis17", video="dogs-jump", objects=(1,)),
        seed(video="train-30001", objects=(9900,)),
    )
    out = tmp_path / "out"
    words = ["build-instrack", "--vipseg", vipseg, "--annotations", file, "-o", out]
    assert run(*words, "--dry-run") == 3
    first, second, third, *_, line = capsys.readouterr().out.splitlines()
    assert first.startswith(f"missing: {file}:2: video nowhere of vipseg: {vipseg / 'imgs/nowhere'}: missing")
    assert second.startswith(f"missing: {file}:3: video dogs-jump: no root of refer-davis17 was given")
    assert third.startswith(f"missing: {file}:4: no mask of video train-30001 shows object 9900; its first mask shows ")
    assert line.startswith("layout=instrack train=2 test=0 made=0 missing=3 ")
    assert run(*words) == 3  # nothing is made while something is missing
    assert not out.exists()


def test_what_there_is_can_be_made_without_what_is_missing(vipseg, tmp_path, capsys):
    file = annotated(tmp_path / "a.jsonl", seed(), seed(video="nowhere"))
    out = tmp_path / "out"
    words = ["build-instrack", "--vipseg", vipseg, "--annotations", file, "-o", out, "--skip-missing"]
    assert run(*words) == 0
    assert last(capsys)["missing"] == "1"
    assert [video.name for video in instrack(out, "train")] == ["train-30000"]


def test_an_object_that_no_mask_shows_stops_the_build_and_leaves_no_video(vipseg, tmp_path, capsys):
    file = annotated(tmp_path / "a.jsonl", seed(objects=(9900,)))
    assert run("build-instrack", "--vipseg", vipseg, "--annotations", file, "-o", tmp_path / "out") == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{file}:1: no mask of video train-30000 shows object 9900; its first mask shows " in error
    assert not (tmp_path / "out/train").exists()


# Going on, and what is never replaced


def test_a_build_that_was_cut_short_goes_on(annotations, davis, vipseg, tmp_path, capsys, monkeypatch):
    out, words = tmp_path / "out", arguments(annotations, davis, vipseg, tmp_path / "out")
    copied: list[str] = []
    copy = shutil.copyfile

    def failing(source: Path, target: Path) -> None:
        if len(copied) == FRAMES + 2:
            raise OSError(28, "No space left on device")
        copied.append(target.name)
        copy(source, target)

    monkeypatch.setattr("data_tools.build_instrack.shutil.copyfile", failing)
    assert run(*words) == 6
    assert "OUT02" in capsys.readouterr().err
    assert [path.name for path in (out / "train/JPEGImages").iterdir()] == ["train-30000"]
    first = (out / "train/JPEGImages/train-30000/00000.jpg").stat().st_mtime_ns
    monkeypatch.setattr("data_tools.build_instrack.shutil.copyfile", copy)
    assert run(*words) == 0
    assert last(capsys)["made"] == "3"
    assert (out / "train/JPEGImages/train-30000/00000.jpg").stat().st_mtime_ns == first
    assert problems("instrack", out) == []
    assert run(*words) == 0
    assert last(capsys)["made"] == "0"


def test_a_video_whose_objects_changed_is_made_anew_and_the_others_are_not(vipseg, tmp_path):
    sources, out = {"vipseg": open_vipseg(vipseg)}, tmp_path / "out"
    values = [int(value) for value in np.unique(panoptic.open_video(vipseg, "train-30000").values(0)) if value > 124]
    other = seed(video="train-30001", instruction="And here?")
    assert build(plan([seed(objects=(values[0],)), other], sources), out) == 2
    assert build(plan([seed(objects=(values[0],), instruction="Who else?"), other], sources), out) == 0
    assert instrack(out, "train")[0].expressions[0].text == "Who else?"
    assert build(plan([seed(objects=(values[1],)), other], sources), out) == 1
    video = instrack(out, "train")[0]
    assert np.array_equal(
        video.masks.mask(("1",), 0), panoptic.open_video(vipseg, "train-30000").values(0) == values[1]
    )


def test_strangers_files_stay(vipseg, tmp_path):
    sources = {"vipseg": open_vipseg(vipseg)}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"OUT01: .*holds thesis\.txt but no instrack_build\.json"):
        build(plan([seed()], sources), tmp_path / "mine")
    out = tmp_path / "out"
    build(plan([seed()], sources), out)
    (out / "train/JPEGImages/train-30001").mkdir()
    with pytest.raises(OutputError, match="OUT01: .*train-30001: exists, and no build recorded it; move it away"):
        build(plan([seed(), seed(video="train-30001")], sources), out)


def test_expressions_that_a_person_changed_stay(vipseg, tmp_path):
    sources, out = {"vipseg": open_vipseg(vipseg)}, tmp_path / "out"
    build(plan([seed()], sources), out)
    file = out / "meta_expressions/train/meta_expressions.json"
    change_json(file, lambda videos: videos["train-30000"]["expressions"]["0"].update(exp="Mine."))
    with pytest.raises(OutputError, match="OUT01: .*was changed since a build wrote it; move it away"):
        build(plan([seed()], sources), out)
    assert "Mine." in file.read_text()


# Damaged sources


def test_damaged_sources_are_named(broken, tmp_path):
    root = broken("vipseg")
    sources = {"vipseg": open_vipseg(root)}
    mask = root / "panomasks/train-30000/00000020.png"
    with Image.open(mask) as picture:
        picture.resize((20, 20), Image.Resampling.NEAREST).save(mask)
    with pytest.raises(InputError, match=r"00000020\.jpg: .*but its mask is 20 x 20; are both of one copy"):
        build(plan([seed()], sources), tmp_path / "a")
    mask.write_bytes(mask.read_bytes()[:30])
    with pytest.raises(InputError, match=r"00000020\.png: not a readable mask"):
        build(plan([seed()], sources), tmp_path / "b")
    mask.unlink()
    (line,) = plan([seed()], sources).missing
    assert "00000020.png: missing; wanted a mask for each of 6 frames" in line


def test_masks_in_colours_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(
        InputError, match="uint8 of shape .*wanted one whole number per pixel; panomasksRGB holds colours"
    ):
        panoptic.read_panoptic(tmp_path / "a.png")


def test_the_known_mistake_of_the_release_is_void(tmp_path):
    # issue 1 of VIPSeg-Dataset: 200 stands where 0 is meant
    Image.fromarray(np.array([[0, 29, 200, 6101]], np.uint16)).save(tmp_path / "a.png")
    assert panoptic.read_panoptic(tmp_path / "a.png").tolist() == [[0, 29, 0, 6101]]
    assert [panoptic.number_of(value) for value in (29, 124, 6100, 6101, 12_403)] == [29, 124, 61, 61, 124]
    assert panoptic.described([29, 6101], {29: "sky", 61: "person"}) == "29 (sky), 6101 (person)"


def test_a_root_that_holds_no_video_of_that_name_says_where_it_looked(davis):
    with pytest.raises(InputError, match="no video nowhere in its parts train, valid"):
        open_davis(davis)("nowhere")


# The annotation file


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no JSON from line 1, column 2 on"),
        ("[1]", "a list; wanted an object"),
        ('{"source": "vipseg"}', "lacks 'video'; wanted source, video, objects, split, instruction"),
        ("source=davis", "source is 'davis'; wanted refer-davis17 or vipseg"),
        ("split=val", "split is 'val'; wanted train or test"),
        ("objects=[0]", r"objects is \[0\]; wanted a list of values of the masks, 1 or more"),
        ("objects=[1, 1]", "wanted each object once"),
        ("objects=person", "objects is 'person'"),
        ("instruction= ", "instruction is ' '; wanted text"),
        ("paraphrases=[1]", "wanted 5 texts, or no such field"),
        ("object=1", "unknown field 'object'"),
    ],
)
def test_a_line_that_is_no_annotation_is_named(line, words, tmp_path):
    sound = {"source": "vipseg", "video": "a", "objects": [6100], "split": "train", "instruction": "Who?"}
    if "=" in line:
        name, value = line.split("=")
        line = json.dumps({**sound, name: json.loads(value) if value[:1] in "[1" else value})
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(sound)}\n\n{line}\n")
    with pytest.raises(InputError, match=rf"a\.jsonl:3: .*{words}"):
        read_instructions(tmp_path / "a.jsonl")


def test_annotations_come_back_as_they_were_written(tmp_path):
    lines = [seed(objects=(6101, 29), note="é"), seed(paraphrases=FIVE, answer="Yes. <TK>, <PO>", rephrased_by="me")]
    file = annotated(tmp_path / "a.jsonl", *lines)
    assert list(read_instructions(file)) == lines
    assert "paraphrases" not in file.read_text().split("\n")[0]
    assert [one.where for one in read_instructions(file)] == [f"{file}:1", f"{file}:2"]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_refused(text, tmp_path):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"a\.jsonl: empty"):
        read_instructions(tmp_path / "a.jsonl")


def test_a_video_in_both_parts_is_refused(vipseg):
    lines = [seed(where="a:1"), seed(split="test", where="a:2")]
    with pytest.raises(InputError, match="a:2: video train-30000 is of vipseg, test, but of vipseg, train in a:1"):
        plan(lines, {"vipseg": open_vipseg(vipseg)})


def test_the_excerpt_of_the_documentation_is_an_annotation_file(tmp_path):
    text = (Path(__file__).parents[1] / "data_tools/INSTRUCTIONS.md").read_text()
    (tmp_path / "a.jsonl").write_text(text.split("```json\n")[1].split("```")[0])
    one, two = read_instructions(tmp_path / "a.jsonl")
    assert (one.objects, one.split, len(two.paraphrases)) == ((6101,), "train", 5)
