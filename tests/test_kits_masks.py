"""The mask kits: results whose scores are known beforehand, the metric's own numbers, malformed results, real files."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.image_writers import write_grefcoco, write_reason_seg, write_refcoco_plus
from data_tools.synthtrack import Layout, Order, make
from eval.__main__ import main
from eval.commands import kits
from eval.kit import Row
from eval.kits.davis import Davis
from eval.kits.expressions import ExpressionKit
from eval.kits.images import ImageKit, label_map
from eval.kits.instrack import InsTrack
from eval.kits.masks import write_mask
from eval.kits.mevis import Mevis
from eval.kits.reason_seg import ReasonSeg
from eval.kits.reason_vos import ReasonVos
from eval.kits.refcoco import RefCoco
from eval.kits.refer_davis17 import ReferDavis17, by_annotator, merged
from eval.kits.refer_youtube_vos import ReferYoutubeVos
from eval.kits.revos import Revos
from eval.metrics import expressions as expression_metrics
from eval.metrics import images as image_metrics
from eval.metrics.davis import (
    davis_semi,
    davis_unsupervised,
    over_sequences,
    ref_davis_compat,
    ref_davis_mean,
    ref_davis_strict,
)
from eval.run_folder import read_rows
from trackgpt.data.referring_video import FOREGROUND
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError, UsageError
from trackgpt.synthtrack.clips import make_case
from trackgpt.types import Prediction

VIDEOS = {
    "refer-davis17": (ReferDavis17, "valid"),
    "refer-youtube-vos": (ReferYoutubeVos, "valid"),
    "mevis": (Mevis, "valid_u"),
    "revos": (Revos, "valid"),
    "reason-vos": (ReasonVos, "valid"),
    "instrack": (InsTrack, "test"),
}
IMAGES = {
    "refcoco": (RefCoco, "refcoco+/testA"),
    "grefcoco": (RefCoco, "grefcoco/val"),
    "reason-seg": (ReasonSeg, "val"),
}
Spoil = Callable[[np.ndarray, int], np.ndarray]


def as_it_is(mask: np.ndarray, number: int) -> np.ndarray:
    return mask


def shifted(mask: np.ndarray, number: int) -> np.ndarray:
    """Each expression's mask moved to the right by another distance."""
    return np.roll(mask, number % 5 + 1, axis=1)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Callable[[str], Path]:
    """SynthTrack in the layout of a benchmark, made when it is first asked for; not to be changed."""
    folder = tmp_path_factory.mktemp("trees")

    def tree(name: str) -> Path:
        if not (folder / name).exists():
            make(Order(Layout(name), 2, 3, frames=6, longest=96), folder / name)
        return folder / name

    return tree


@pytest.fixture(scope="module")
def image_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for part, seeds in (("valid", range(4)), ("test", range(4, 8))):
        cases = [make_case(seed, "test", frames=1, longest=96) for seed in seeds]
        for write in (write_refcoco_plus, write_grefcoco, write_reason_seg):
            write(root, cases, part)
    return root


@pytest.fixture
def evaluate(capsys, tmp_path, monkeypatch):
    """Runs `python -m eval ARGS...` in an empty folder, without pictures, which take longer than all the rest.

    Gives exit code, last line of stdout by key, and stderr.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("eval.report.draw", lambda *_: [])

    def run(*arguments: object) -> tuple[int, dict[str, str], str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(one) for one in arguments])
        said = capsys.readouterr()
        last = said.out.splitlines()[-1] if said.out and not stop.value.code else ""
        return int(stop.value.code or 0), dict(pair.split("=", 1) for pair in last.split()), said.err

    return run


def answer(kit: ExpressionKit, results: Path, spoil: Spoil = as_it_is) -> Path:
    """Write a mask for every expression: the truth, or what is made of it."""
    for video in kit.by_name.values():
        for number, said in enumerate(video.expressions):
            masks = [spoil(video.masks.mask(said.objects, t), number) for t in range(len(video))]
            write_all(results / video.name / said.id, video, masks)
    return results


def answer_images(kit: ImageKit, results: Path, spoil: Spoil = as_it_is) -> Path:
    for sample in kit.by_name.values():
        for number, said in enumerate(kit.expressions(sample)):
            write_mask(results / sample.name / f"{said.id}.png", spoil(sample.mask(said), number))
    return results


def answer_label_maps(kit: ReferDavis17, results: Path, spoil: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Write anno_k of every annotator: the truth's label maps, or what is made of them."""
    for video in kit.by_name.values():
        for key in by_annotator(video):
            for file in video.masks.files:
                write_labels(results / f"anno_{key}" / video.name / file.name, spoil(read(file)))
    return results


def write_labels(file: Path, labels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    picture.putpalette(list(range(256)) * 3)
    picture.save(file)


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def stems(video: Video) -> list[str]:
    return [image.stem for image in video.images]


def write_all(folder: Path, video: Video, masks: Iterable[np.ndarray]) -> None:
    for stem, mask in zip(stems(video), masks, strict=True):
        write_mask(folder / f"{stem}.png", mask)


def found_masks(video: Video, said: Expression, results: Path) -> np.ndarray:
    return np.stack([read(results / video.name / said.id / f"{stem}.png") > 0 for stem in stems(video)])


def true_masks(video: Video, said: Expression) -> np.ndarray:
    return np.stack([video.masks.mask(said.objects, t) for t in range(len(video))])


def scored(kit, results: Path) -> list[Row]:
    return [row for task in kit.tasks() for row in kit.score(task, results)]


# Results whose scores are known


@pytest.mark.parametrize("name", VIDEOS)
def test_the_truth_scores_100_in_every_video_kit(name, trees, evaluate, tmp_path):
    make_kit, split = VIDEOS[name]
    kit = make_kit(trees(name), split)
    answer(kit, tmp_path / "results")
    code, last, error = evaluate(name, "--data", trees(name), "--results", "results", "--out", "run")
    assert code == 0, error
    assert {key: float(last[key]) for key in kit.headline} == dict.fromkeys(kit.headline, 100)
    assert last["out"] == "run"
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["run"]["protocol"] == kit.protocol
    assert (tmp_path / "run/report.md").read_text().startswith(f"# {name}: results results, split {split}")


@pytest.mark.parametrize("name", IMAGES)
def test_the_truth_scores_100_in_every_image_kit(name, image_root, evaluate, tmp_path):
    make_kit, split = IMAGES[name]
    kit = make_kit(image_root, split)
    answer_images(kit, tmp_path / "results")
    code, last, error = evaluate(kit.name, "--data", image_root, "--split", split, "--results", "results")
    assert code == 0, error
    assert {key: float(last[key]) for key in kit.headline} == dict.fromkeys(kit.headline, 100)


def test_two_processes_write_the_rows_of_one(trees, evaluate, tmp_path):
    kit = Mevis(trees("mevis"), "valid_u")
    answer(kit, tmp_path / "results", shifted)
    for jobs in (1, 2):
        options = ("--data", trees("mevis"), "--results", "results", "--jobs", jobs, "--out", f"run{jobs}")
        assert evaluate("mevis", *options)[0] == 0
    one, two = (tmp_path / f"run{jobs}/rows.jsonl" for jobs in (1, 2))
    assert one.read_bytes() == two.read_bytes()


def test_every_kit_named_in_the_command_can_be_opened():
    for name in (*VIDEOS, "reason-seg", "refcoco", "davis"):
        command = kits.KITS[name]
        kit = kits.open_kit(command.place, Path("nowhere"), command.own["split"][1])
        assert kit.name == name
        for printed in kit.reported:
            assert printed.source, name
            assert printed.figures, name


def test_a_tracker_without_masks_is_refused_by_a_mask_kit(trees, tmp_path):
    kit = Mevis(trees("mevis"), "valid_u")
    task = kit.tasks()[0]
    box, one = np.zeros((1, 4), np.float32), np.ones(1)

    def boxes_alone(said, frames):
        for _ in frames:
            yield tuple(Prediction(box, None, one, one > 0, one.astype(np.int64)) for _ in said)

    with pytest.raises(InputError, match=f"{task}/.*: the tracker gives boxes and no masks; this kit scores masks"):
        kit.run(task, boxes_alone, tmp_path)
    assert not (tmp_path / task).exists()


# The same numbers as the metric functions on whole stacks


@pytest.mark.parametrize("name", ["mevis", "reason-vos", "refer-youtube-vos"])
def test_expressions_score_as_mevis_does(name, trees, tmp_path):
    make_kit, split = VIDEOS[name]
    kit = make_kit(trees(name), split)
    rows = scored(kit, answer(kit, tmp_path, shifted))
    pairs = [(video, said) for video in kit.by_name.values() for said in video.expressions]
    wanted = [expression_metrics.mevis(found_masks(*pair, tmp_path), true_masks(*pair)) for pair in pairs]
    assert [(row.figures["J"], row.figures["F"]) for row in rows] == [tuple(score) for score in wanted]
    whole = expression_metrics.over_expressions(wanted)
    figures = kit.summarise(rows)
    assert (figures["J"], figures["F"]) == (100 * whole.j, 100 * whole.f)
    assert figures["J&F"] == pytest.approx(100 * whole.jf, rel=1e-14)
    assert 0 < figures["J&F"] < 100


def test_revos_scores_and_rounds_as_its_script(trees, tmp_path):
    kit = Revos(trees("revos"), "valid")
    rows = scored(kit, answer(kit, tmp_path, shifted))
    wanted, kinds = [], []
    for video in kit.by_name.values():
        foreground = np.stack([video.masks.mask((FOREGROUND,), t) for t in range(len(video))])
        for said in video.expressions:
            found = found_masks(video, said, tmp_path)
            wanted.append(expression_metrics.revos(found, true_masks(video, said), foreground))
            kinds.append(said.tags["kind"])
    assert [tuple(row.figures[name] for name in "JFAR") for row in rows] == [tuple(score) for score in wanted]
    kept = [place for place, kind in enumerate(kinds) if kind != "absent"]
    assert len({kinds[place] for place in kept}) == 2
    table = expression_metrics.revos_table([wanted[i] for i in kept], [kinds[i] for i in kept])
    figures = kit.summarise(rows)
    assert tuple(figures[name] for name in ("J", "F", "A", "R", "J&F")) == tuple(table.overall)
    assert figures["reasoning/R"] == table.reasoning.r
    alone = kit.summarise([row for row, kind in zip(rows, kinds) if kind == "referring"])
    assert alone["J&F"] == alone["referring/J&F"] == table.referring.jf
    assert kit.summarise([row for row, kind in zip(rows, kinds) if kind == "absent"]) == {}


def test_instrack_tells_how_much_the_wording_moves_a_tracker(trees, tmp_path):
    kit = InsTrack(trees("instrack"), "test")
    deaf = lambda mask, number: mask & (number % 6 != 4)  # noqa: E731 - the wording that is never understood
    rows = scored(kit, answer(kit, tmp_path, deaf))
    wanted = [
        expression_metrics.instrack(found_masks(video, said, tmp_path), true_masks(video, said))
        for video in kit.by_name.values()
        for said in video.expressions
    ]
    row = expression_metrics.instrack_row(wanted)
    figures = kit.summarise(rows)
    assert tuple(figures[name] / 100 for name in kit.headline) == pytest.approx(
        (row.jf, row.j, row.f, row.j_recall, row.f_recall), rel=1e-14
    )
    heard = {key: kit.summarise(mine)["J&F"] for key, mine in by(rows, "wording").items() if key != "4"}
    assert heard == dict.fromkeys("01235", 100.0)
    # Where an object is out of sight the deaf wording is right; nowhere else.
    deaf_rows = by(rows, "wording")["4"]
    assert figures["worst/J&F"] == pytest.approx(kit.summarise(deaf_rows)["J&F"])
    assert figures["spread/J&F"] == pytest.approx(100 - figures["worst/J&F"])
    assert sum("worst/J&F" in row.figures for row in rows) == len(rows) / 6


def by(rows: list[Row], tag: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        for value in row.tags.get(tag, ()):
            found.setdefault(value, []).append(row)
    return found


def test_reason_vos_breaks_down_by_form_and_source_and_not_by_id(trees):
    kit = ReasonVos(trees("reason-vos"), "valid")
    video = next(iter(kit.by_name.values()))
    tags = [kit.tags(video, said) for said in video.expressions]
    assert {key for each in tags for key in each} == {"form", "source"}
    assert tags[0]["source"] == ["SynthTrack"]


@pytest.mark.parametrize("name", IMAGES)
def test_images_score_as_the_metric_does(name, image_root, tmp_path):
    make_kit, split = IMAGES[name]
    kit = make_kit(image_root, split)
    rows = scored(kit, answer_images(kit, tmp_path, shifted))
    counted = [
        image_metrics.overlap(read(tmp_path / sample.name / f"{said.id}.png") > 0, label_map(sample, said))
        for sample in kit.by_name.values()
        for said in kit.expressions(sample)
    ]
    figures = kit.summarise(rows)
    assert figures["gIoU"] == 100 * image_metrics.giou(counted)
    assert figures["cIoU"] == 100 * image_metrics.ciou(counted)
    official = image_metrics.lisa(counted)
    assert (figures["gIoU"], figures["cIoU"]) == pytest.approx((100 * official.giou, 100 * official.ciou), abs=1e-3)
    assert 0 < figures["cIoU"] < 100


def test_reason_seg_asks_the_first_text_and_leaves_ignored_pixels_out(image_root, tmp_path):
    kit = ReasonSeg(image_root, "val")
    around = {sample.name: sample.ignored() for sample in kit.by_name.values()}
    for sample in kit.by_name.values():
        said = kit.expressions(sample)
        assert [one.id for one in said] == ["0"]
        write_mask(tmp_path / sample.name / "0.png", sample.mask(said[0]) | around[sample.name])
    assert any(mask.any() for mask in around.values())
    rows = scored(kit, tmp_path)
    assert kit.summarise(rows) == {"gIoU": 100, "cIoU": 100}
    assert {row.tags["query"][0] for row in rows} <= {"short", "long"}


def test_grefcoco_counts_silence_where_nothing_is_meant(image_root, tmp_path):
    kit = RefCoco(image_root, "grefcoco/val")
    everything = answer_images(kit, tmp_path / "all", lambda mask, number: np.ones_like(mask))
    nothing = answer_images(kit, tmp_path / "none", lambda mask, number: np.zeros_like(mask))
    loud, silent = (kit.summarise(scored(kit, folder)) for folder in (everything, nothing))
    assert (loud["N-acc"], loud["T-acc"]) == (0, 100)
    assert (silent["N-acc"], silent["T-acc"]) == (100, 0)
    empty = sum(not said.objects for sample in kit.by_name.values() for said in sample.expressions)
    assert empty
    assert silent["gIoU"] == pytest.approx(100 * empty / len(scored(kit, nothing)))


@pytest.mark.parametrize("split", ["refcoco", "refcoco+|unc|testA", "flickr/val", "refcoco//val", "a/b/c/d"])
def test_a_split_of_refcoco_that_is_written_otherwise_is_refused(split):
    with pytest.raises(UsageError, match="wanted SET/SPLIT or SET/BY/SPLIT"):
        RefCoco(Path("data"), split)


# Refer-DAVIS17


def test_refer_davis17_scores_label_maps_as_the_metric_does(trees, tmp_path):
    kit = ReferDavis17(trees("refer-davis17"), "valid")
    swap = np.arange(256, dtype=np.uint8)
    swap[[1, 2]] = 2, 1  # identities of the first two objects, which family A forgives
    answer_label_maps(kit, tmp_path, lambda labels: np.roll(swap[labels], 2, axis=1))
    rows = scored(kit, tmp_path)
    overall, wanted = [], {}
    for key in "0123":
        found = []
        for video in kit.by_name.values():
            truth = np.stack([read(file) for file in video.masks.files])
            folder = tmp_path / f"anno_{key}" / video.name
            mine = np.stack([read(folder / file.name) for file in video.masks.files])
            found.append(ref_davis_compat(mine, truth))
            strict = ref_davis_strict(mine, truth).by_object
            for label, scores in found[-1].by_object.items():
                own = strict[label]
                wanted[f"{video.name}/anno_{key}/{label}"] = (scores.j.mean(), scores.f.mean(), own.j.mean())
        overall.append(over_sequences(found))
    assert {row.unit: (row.figures["J"], row.figures["F"], row.figures["strict/J"]) for row in rows} == wanted
    mean, figures = ref_davis_mean(overall), kit.summarise(rows)
    names = ("J", "J-R", "J-D", "F", "F-R", "F-D")
    assert [figures[name] / 100 for name in names] == pytest.approx([*mean.j, *mean.f], rel=1e-13, abs=1e-15)
    assert figures["J&F"] / 100 == pytest.approx(mean.jf, rel=1e-13)
    assert figures["strict/J&F"] < figures["J&F"]
    assert not any(name.startswith("visa/") for name in figures)


def test_refer_davis17_scores_masks_of_expressions_by_both_families(trees, tmp_path):
    kit = ReferDavis17(trees("refer-davis17"), "valid")
    rows = scored(kit, answer(kit, tmp_path, shifted))
    wanted = {
        f"{video.name}/{said.id}": tuple(expression_metrics.visa(found_masks(video, said, tmp_path), true))
        for video in kit.by_name.values()
        for said in video.expressions
        for true in [true_masks(video, said)]
    }
    assert {row.unit: (row.figures["visa/J"], row.figures["visa/F"]) for row in rows if row.unit in wanted} == wanted
    figures = kit.summarise(rows)
    assert figures["visa/J&F"] == pytest.approx(50 * np.mean([j + f for j, f in wanted.values()]))
    assert {name for name in figures if "J&F" in name} == {"J&F", "strict/J&F", "visa/J&F"}


def test_a_pixel_goes_to_the_highest_score_and_of_equal_ones_to_the_lowest_object():
    left, all_ = np.array([[True, True, False, False]]), np.ones((1, 4), bool)
    assert merged([left, all_], [0.9, 0.5], [1, 2]).tolist() == [[1, 1, 2, 2]]
    assert merged([left, all_], [0.5, 0.9], [1, 2]).tolist() == [[2, 2, 2, 2]]
    assert merged([all_, left], [0.5, 0.5], [2, 1]).tolist() == [[1, 1, 2, 2]]
    assert merged([left, all_], [float("nan"), 0.0], [1, 2]).tolist() == [[2, 2, 2, 2]]


def test_a_model_writes_masks_of_expressions_and_label_maps_of_annotators(trees, tmp_path):
    kit = ReferDavis17(trees("refer-davis17"), "valid")
    task = kit.tasks()[0]
    video = kit.by_name[task]
    scores = {said.id: 0.5 + 0.4 * (said.objects == ("2",)) for said in video.expressions}

    def everywhere(unit, frame):
        mask = np.ones((1, *frame.shape[:2]), bool)
        surest = np.full(1, scores[unit.rsplit("/", 1)[1]], np.float32)
        return Prediction(np.zeros((1, 4), np.float32), mask, surest, np.ones(1, bool), np.ones(1, np.int64))

    def follow(said, frames):
        return (tuple(everywhere(unit, frame) for unit in said) for frame in frames)

    kit.run(task, follow, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([task, "anno_0", "anno_1", "anno_2", "anno_3"])
    stem = stems(video)[0]
    assert (read(tmp_path / "anno_2" / task / f"{stem}.png") == 2).all()  # all cover everything; object 2 is surest
    assert (read(tmp_path / task / "0" / f"{stem}.png") == 255).all()


def test_the_mini_set_has_one_annotator_and_says_so(shared, evaluate, tmp_path):
    root = shared / "data/refer_davis17/mini"
    kit = ReferDavis17(root, "valid")
    answer(kit, tmp_path / "results")
    answer_label_maps(kit, tmp_path / "results", lambda labels: labels)
    code, last, _ = evaluate("refer-davis17", "--data", root, "--results", "results", "--out", "run")
    assert (code, last["J&F"], last["units"]) == (0, "100.00", "10")  # 5 objects, 5 expressions
    assert "This tree has 1 expression of each object" in (tmp_path / "run/report.md").read_text()


def test_a_grey_davis_2016_mask_is_object_1(trees, tmp_path):
    root = Path(shutil.copytree(trees("refer-davis17"), tmp_path / "tree"))
    file = root / "meta_expressions/valid/meta_expressions.json"
    document = json.loads(file.read_text())
    for name, video in document["videos"].items():
        video["expressions"] = {key: said for key, said in video["expressions"].items() if said["obj_id"] == "1"}
        for mask in (root / "valid/Annotations" / name).glob("*.png"):
            Image.fromarray(((read(mask) == 1) * 255).astype(np.uint8)).save(mask)
    file.write_text(json.dumps(document))
    kit = ReferDavis17(root, "valid")
    rows = scored(kit, answer(kit, tmp_path / "results"))
    assert kit.summarise(rows)["strict/J&F"] == kit.summarise(rows)["J&F"] == 100
    assert {row.unit.split("/")[-1] for row in rows if "J" in row.figures} == {"1"}


# Benchmarks that keep their truth


def test_refer_youtube_vos_without_truth_is_checked_and_packed(trees, evaluate, tmp_path):
    root = trees("refer-youtube-vos")
    answer(ReferYoutubeVos(root, "valid"), tmp_path / "results", shifted)
    blind = Path(shutil.copytree(root, tmp_path / "blind"))
    shutil.rmtree(blind / "valid_truth")
    code, last, _ = evaluate("refer-youtube-vos", "--data", blind, "--results", "results", "--out", "run")
    assert code == 0
    assert {key: last[key] for key in ("J&F", "J", "F")} == {"J&F": "nan", "J": "nan", "F": "nan"}
    assert last["submission"] == "run/submission.zip"
    report = (tmp_path / "run/report.md").read_text()
    assert "The truth of 2 of 2 videos is kept back" in report
    assert "put it into valid/Annotations" in report
    names = zipfile.ZipFile(tmp_path / "run/submission.zip").namelist()
    assert len(names) == len(list((tmp_path / "results").rglob("*.png")))
    assert all(name.startswith("Annotations/") and name.count("/") == 3 for name in names)
    # The zip is a result like any other, and gives the same figures as the folder where the truth is.
    by_folder, by_zip = (
        evaluate("refer-youtube-vos", "--data", root, "--results", results, "--out", f"again{number}")[1]
        for number, results in enumerate(("results", "run/submission.zip"))
    )
    assert 0 < float(by_zip["J&F"]) < 100
    assert by_zip["J&F"] == by_folder["J&F"]


def test_soft_masks_are_scored_as_the_scripts_do_and_told_of(trees, evaluate, tmp_path):
    root = trees("mevis")
    kit = Mevis(root, "valid_u")
    answer(kit, tmp_path / "hard")
    for file in sorted((tmp_path / "hard").rglob("*.png")):
        soft = tmp_path / "soft" / file.relative_to(tmp_path / "hard")
        soft.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(read(file) > 0, 200, 30).astype(np.uint8)).save(soft)
    assert evaluate("mevis", "--data", root, "--results", "hard", "--out", "run")[2] == ""
    code, last, error = evaluate("mevis", "--data", root, "--results", "soft", "--out", "run2")
    assert code == 0
    assert float(last["J&F"]) < 50  # every pixel is the object
    assert error.count("\n") == len(kit.tasks())
    assert "/00000.png holds 30, 200: any value but 0 counts as the object" in error
    assert error.splitlines()[0].removeprefix("note: ") in (tmp_path / "run2/report.md").read_text()


def test_results_without_truth_are_still_read(trees, evaluate, tmp_path):
    root = trees("refer-youtube-vos")
    answer(ReferYoutubeVos(root, "valid"), tmp_path / "results")
    blind = Path(shutil.copytree(root, tmp_path / "blind"))
    shutil.rmtree(blind / "valid_truth")
    damaged = min((tmp_path / "results").rglob("*.png"))
    Image.new("L", (7, 5)).save(damaged)
    code, _, error = evaluate("refer-youtube-vos", "--data", blind, "--results", "results", "--out", "run")
    assert code == 3
    assert f"{damaged.relative_to(tmp_path)}: 5 x 7 pixels" in error
    assert not (tmp_path / "run/submission.zip").exists()


def test_mevis_is_scored_on_valid_u_and_packed_without_a_top_folder_on_valid(trees, evaluate, tmp_path):
    kit = Mevis(trees("mevis"), "valid")
    for video in kit.by_name.values():
        height, width = read(video.images[0]).shape[:2]
        for said in video.expressions:
            write_all(tmp_path / "results" / video.name / said.id, video, np.zeros((6, height, width), bool))
    options = ("--data", trees("mevis"), "--results", "results", "--out", "run")
    code, last, error = evaluate("mevis", "--split", "valid", *options)
    assert (code, last.get("J&F")) == (0, "nan"), error
    names = zipfile.ZipFile(tmp_path / last["submission"]).namelist()
    assert {name.split("/")[0] for name in names} == set(kit.tasks())
    assert Mevis(trees("mevis"), "valid_u").submit(tmp_path / "results", tmp_path) is None


# Results that are not as they should be


def damage_nothing(results: Path) -> None:
    shutil.rmtree(results)
    results.mkdir()


def drop_video(results: Path) -> None:
    shutil.rmtree(min(results.iterdir()))


def drop_expression(results: Path) -> None:
    shutil.rmtree(min(results.glob("*/1")))


def first(results: Path) -> Path:
    return min(results.rglob("*.png"))


def drop_frame(results: Path) -> None:
    first(results).unlink()


def wrong_size(results: Path) -> None:
    Image.new("L", (7, 5)).save(first(results))


def wrong_mode(results: Path) -> None:
    Image.new("RGB", read(first(results)).shape[::-1]).save(first(results))


def sixteen_bits(results: Path) -> None:
    Image.new("I;16", read(first(results)).shape[::-1]).save(first(results))


def cut_off(results: Path) -> None:
    first(results).write_bytes(first(results).read_bytes()[:40])


def no_picture(results: Path) -> None:
    first(results).write_text("mask")


DAMAGES = [
    (damage_nothing, "results: missing or empty; wanted result files VIDEO/EXPRESSION/FRAME.png"),
    (drop_video, "results: no results for 1 of 2 tasks"),
    (drop_expression, "/1/00000.png: missing, like 6 of 6 masks"),
    (drop_frame, "/0/00000.png: missing, like 1 of 6 masks"),
    (wrong_size, "/0/00000.png: 5 x 7 pixels (height x width), wanted the truth's"),
    (wrong_mode, "/0/00000.png: a RGB image"),
    (sixteen_bits, "/0/00000.png: a greyscale image of 16 bits"),
    (cut_off, "/0/00000.png: cut off after 40 bytes"),
    (no_picture, "/0/00000.png: no PNG"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_malformed_masks_are_one_clear_line(damage, words, trees, evaluate, tmp_path):
    root = trees("mevis")
    damage(answer(Mevis(root, "valid_u"), tmp_path / "results"))
    code, _, error = evaluate("mevis", "--data", root, "--results", "results")
    assert code == 3
    assert words in error
    assert error.startswith("eval: results")
    assert error.count("\n") == 1


def test_a_partial_folder_is_scored_where_that_is_asked_for(trees, evaluate, tmp_path):
    root = trees("mevis")
    drop_video(answer(Mevis(root, "valid_u"), tmp_path / "results"))
    code, last, _ = evaluate("mevis", "--data", root, "--results", "results", "--partial", "--out", "run")
    assert (code, last["J&F"]) == (0, "100.00")
    assert "**Partial: 1 of 2 tasks have no results" in (tmp_path / "run/report.md").read_text()


def grey_255(file: Path) -> None:
    Image.fromarray((read(file) > 0).astype(np.uint8) * 255).save(file)


def id_too_high(file: Path) -> None:
    write_labels(file, np.full_like(read(file), 9))


def true_colours(file: Path) -> None:
    Image.new("RGB", read(file).shape[::-1]).save(file)


def other_size(file: Path) -> None:
    write_labels(file, np.zeros((5, 7), np.uint8))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (grey_255, "holds the id 255; wanted 0 to"),
        (id_too_high, "holds the id 9; wanted 0 to"),
        (true_colours, "a RGB image, wanted a greyscale or paletted PNG whose pixel values are object ids"),
        (other_size, "5 x 7 pixels (height x width), wanted the truth's"),
        (Path.unlink, "missing, like 1 of 6 masks"),
    ],
)
def test_malformed_label_maps_are_one_clear_line(damage, words, trees, evaluate, tmp_path):
    root = trees("refer-davis17")
    kit = ReferDavis17(root, "valid")
    answer_label_maps(kit, tmp_path / "results", lambda labels: labels)
    video = next(iter(kit.by_name.values()))
    file = Path("results/anno_1") / video.name / "00003.png"
    damage(file)
    code, _, error = evaluate("refer-davis17", "--data", root, "--results", "results")
    assert code == 3
    assert error.startswith(f"eval: {file}: {words}")
    assert error.count("\n") == 1


def test_a_pass_of_an_annotator_that_is_missing_is_named(trees, evaluate, tmp_path):
    root = trees("refer-davis17")
    answer_label_maps(ReferDavis17(root, "valid"), tmp_path / "results", lambda labels: labels)
    shutil.rmtree(tmp_path / "results/anno_3")
    code, _, error = evaluate("refer-davis17", "--data", root, "--results", "results")
    assert code == 3
    assert "results/anno_3/" in error


def write_zip(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("../../outside.png", b"png", "'../../outside.png' leaves the folder or is a link"),
        ("a/0/00000.png", bytes(40_000_000), "unpacks 38"),
        ("/etc/outside.png", b"png", "leaves the folder or is a link"),
    ],
)
def test_a_zip_that_is_no_submission_is_refused_before_anything_is_written(
    name, data, words, trees, evaluate, tmp_path
):
    write_zip(tmp_path / "masks.zip", name, data)
    code, _, error = evaluate("mevis", "--data", trees("mevis"), "--results", "masks.zip", "--out", "run/here")
    assert code == 3
    assert error.startswith("eval: masks.zip: ")
    assert words in error
    assert not list(tmp_path.rglob("*.png"))


def test_a_file_that_is_no_zip_is_said(trees, evaluate, tmp_path):
    (tmp_path / "masks.zip").write_text("masks")
    code, _, error = evaluate("mevis", "--data", trees("mevis"), "--results", "masks.zip")
    assert code == 3
    assert "masks.zip: not a readable zip" in error


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "missing; wanted a mask of 0 and 255 for"),
        (true_colours, "a RGB image"),
        (lambda file: Image.new("L", (7, 5)).save(file), "5 x 7 pixels"),
    ],
)
def test_malformed_masks_of_images_are_one_clear_line(damage, words, image_root, evaluate, tmp_path):
    kit = ReasonSeg(image_root, "val")
    answer_images(kit, tmp_path / "results")
    file = Path("results") / kit.tasks()[0] / "0.png"
    damage(file)
    code, _, error = evaluate("reason-seg", "--data", image_root, "--results", "results")
    assert code == 3
    assert error.startswith(f"eval: {file}: {words}")


@pytest.mark.parametrize("name", [*VIDEOS, "reason-seg", "refcoco", "davis"])
def test_data_that_are_not_there_are_an_error_of_the_input(name, evaluate, tmp_path):
    (tmp_path / "results/a").mkdir(parents=True)
    code, _, error = evaluate(name, "--data", "nowhere", "--results", "results")
    assert code == 3
    assert "nowhere" in error
    assert error.count("\n") == 1


# DAVIS


@pytest.fixture
def davis(tmp_path) -> Path:
    """Two sequences of DAVIS-2017's kind: two objects that move, void, and in one of them an id that comes late."""
    for name, late in (("one", 0), ("two", 3)):
        for t in range(6):
            labels = np.zeros((24, 40), np.uint8)
            labels[4:12, 2 + t : 12 + t] = 1
            labels[14:20, 20 - t : 30 - t] = 2
            labels[22:] = 255
            labels[0:2, 0:4] = late if t > 2 else 0
            write_labels(tmp_path / f"DAVIS/Annotations/480p/{name}/{t:05d}.png", labels)
    return tmp_path / "DAVIS"


@pytest.mark.parametrize(("task", "metric"), [("semi-supervised", davis_semi), ("unsupervised", davis_unsupervised)])
def test_davis_scores_as_the_metric_does(task, metric, davis, tmp_path):
    kit = Davis(davis, f"{task}/val")
    sequences = []
    for name in kit.tasks():
        truth = np.stack([read(file) for file in sorted((davis / "Annotations/480p" / name).iterdir())])
        found = np.roll(np.where(truth > 2, 0, truth), 3, axis=2)
        for t, labels in enumerate(found):
            write_labels(tmp_path / f"results/{name}/{t:05d}.png", labels)
        sequences.append(metric(found, truth))
    rows = scored(kit, tmp_path / "results")
    wanted = [(score.j.mean(), score.f.mean()) for sequence in sequences for score in sequence.rows]
    assert [(row.figures["J"], row.figures["F"]) for row in rows] == wanted
    overall = over_sequences(sequences)
    figures = kit.summarise(rows)
    names = ("J", "J-R", "J-D", "F", "F-R", "F-D")
    assert [figures[name] / 100 for name in names] == pytest.approx([*overall.j, *overall.f], rel=1e-14, abs=1e-15)


def test_the_semi_supervised_task_needs_neither_the_first_nor_the_last_frame(davis, tmp_path, evaluate):
    code, last, error = evaluate("davis", "--data", davis, "--model", "first-mask", "--out", "run")
    assert code == 0, error
    assert 0 < float(last["J&F"]) < 100
    for name in ("00000.png", "00005.png"):
        for file in (tmp_path / "run/results").glob(f"*/{name}"):
            file.unlink()
    assert evaluate("davis", "--data", davis, "--results", "run/results", "--out", "again")[1]["J&F"] == last["J&F"]
    code, _, error = evaluate("davis", "--data", davis, "--results", "run/results", "--split", "unsupervised/val")
    assert code == 3
    assert "00000.png: missing; wanted a label map for every scored frame" in error


def test_an_id_above_the_number_of_objects_is_refused(davis, evaluate, tmp_path):
    evaluate("davis", "--data", davis, "--model", "first-mask", "--out", "run")
    for file in (tmp_path / "run/results").rglob("*.png"):
        write_labels(file, np.where(read(file) == 255, 0, read(file)))
    file = Path("run/results/one/00002.png")
    id_too_high(file)
    code, _, error = evaluate("davis", "--data", davis, "--results", "run/results", "--out", "again")
    assert code == 3
    assert f"{file}: holds the id 9; wanted 0 to 2, the number of objects in the truth's first frame" in error


def test_davis_takes_the_sequences_of_its_list_where_there_is_one(davis):
    (davis / "ImageSets/2017").mkdir(parents=True)
    (davis / "ImageSets/2017/val.txt").write_text("two\n")
    assert Davis(davis, "semi-supervised/val").tasks() == ["two"]
    with pytest.raises(InputError, match="ImageSets/2017 has no list train.txt; it has those of val"):
        Davis(davis, "semi-supervised/train").tasks()
    (davis / "ImageSets/2017/val.txt").unlink()
    assert Davis(davis, "semi-supervised/train").tasks() == ["one", "two"]


@pytest.mark.parametrize("split", ["val", "interactive/val", "unsupervised/"])
def test_davis_has_two_tasks(split):
    with pytest.raises(UsageError, match="wanted semi-supervised/SET or unsupervised/SET"):
        Davis(Path("DAVIS"), split)


def test_nothing_is_shown_in_the_unsupervised_task(davis, tmp_path):
    with pytest.raises(UsageError, match="nothing is shown or said in the unsupervised task"):
        Davis(davis, "unsupervised/val").run("one", lambda *_: iter(()), tmp_path)


def test_osvos_scores_what_the_official_toolkit_gives_it(shared, evaluate, tmp_path):
    """datasets.md, section 9. Of the 13 sequences of one object, six have their truth at 480p in the sample; the values
    of cows, whose truth is there at 240p alone, and the mean over 13 cannot be checked."""
    root, results = shared / "data/davis", shared / "data/davis/osvos_results/semi-supervised/osvos"
    assert evaluate("davis", "--data", root, "--results", results, "--out", "run")[0] == 0
    found = {row.task: (round(row.figures["J"], 3), round(row.figures["F"], 3)) for row in read_rows(tmp_path / "run")}
    assert len(found) == 6
    assert found["blackswan"] == (0.943, 0.974)
    assert found["car-shadow"] == (0.928, 0.917)
    assert found["drift-straight"] == (0.665, 0.707)
