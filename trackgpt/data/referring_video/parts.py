"""The trees of the referring-video benchmarks, and what reading a part of any of them has in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trackgpt.data.referring_video.meta_expressions import Entry, ListedVideo
from trackgpt.data.trees import Tree, find_tree, listing, needed_folder
from trackgpt.data.videos import Expression, LabelMasks, MaskTruth, Video, answered
from trackgpt.errors import InputError, UsageError

_BY_PART = ("meta_expressions/*/meta_expressions.json",)
# Counts: datasets.md; the train part of Refer-YouTube-VOS by its paper (full-video expressions), ReVOS by VISA's,
# ReasonVOS by VideoLISA's, LV-VIS by its own (its train part, of which VISA's expressions may cover less).
TREES: Mapping[str, Tree] = {
    tree.name: tree
    for tree in (
        Tree(
            "refer-youtube-vos",
            ("Refer-YouTube-VOS", "ref-youtube-vos", "refytvos", "ref-ytvos", "rvos"),
            _BY_PART,
            ("train", "valid", "test"),
            {"train": (3471, 12913), "valid": (202, None), "test": (305, None)},
        ),
        Tree(
            "refer-davis17",
            ("Refer-DAVIS17", "ref-davis", "ref-davis17", "davis17"),
            _BY_PART,
            ("train", "valid"),
            {"train": (60, None), "valid": (30, 244)},
        ),
        Tree(
            "mevis",
            ("MeViS", "MeViS_release"),
            tuple(f"{part}/meta_expressions*.json" for part in ("train", "valid_u", "valid", "test")),
            ("train", "valid_u", "valid", "test"),
            {"train": (1662, 23051), "valid_u": (50, 793), "valid": (140, 2236), "test": (154, 2490)},
        ),
        Tree(
            "revos",
            ("ReVOS",),
            ("meta_expressions_*.json",),
            ("train", "train_sub", "valid"),
            {"train": (626, None), "valid": (416, None)},
        ),
        Tree(
            "lv-vis",
            ("LV-VIS",),
            ("train/meta_expressions.json", "meta_expressions.json"),
            ("train",),
            {"train": (3083, None)},
        ),
        Tree("reason-vos", ("ReasonVOS",), ("meta_expressions.json",), ("valid",), {"valid": (None, 458)}),
        Tree("instrack", ("InsTrack",), _BY_PART, ("train", "test"), {"train": (143, 858), "test": (40, 240)}),
    )
}


def find_root(name: str, root: str | Path) -> Path:
    """The top folder of a benchmark, known by what it holds.

    Args:
        name: a key of `TREES`.
        root: that folder, or the one above it, in which it goes by any name that projects give it.

    Raises:
        UsageError: no benchmark of that name.
        InputError: it is not there (the error lists what was looked for and what is there), or could be two folders.
    """
    if name not in TREES:
        raise UsageError(f"no referring-video benchmark {name!r}; choose one of {', '.join(TREES)}")
    return find_tree(TREES[name], root)


@dataclass(frozen=True)
class BenchmarkPart:
    """A part of a tree that is being read.

    Attributes:
        root: the top folder of the tree.
        name: of the part.
    """

    root: Path
    name: str

    @classmethod
    def of(cls, benchmark: str, root: str | Path, part: str) -> BenchmarkPart:
        """A part of a benchmark below a root, as readers take them.

        Raises:
            UsageError: the benchmark has no such part.
            InputError: as `find_root`.
        """
        TREES[benchmark].check_part(part)
        return cls(find_root(benchmark, root), part)

    def listed_apart(self, part: str = "") -> Path:
        """`meta_expressions/<part>/meta_expressions.json`, where sets keep it that list their parts apart."""
        return self.root / "meta_expressions" / (part or self.name) / "meta_expressions.json"

    def pictures(self, *places: Path) -> Path:
        """The first of some folders of frames that is there.

        Raises:
            InputError: none is.
        """
        there = [place for place in places if place.is_dir()]
        return there[0] if there else needed_folder(places[0], f"a folder of frames for each video of {self.name}")

    def labels(self, *places: Path) -> Path:
        """The first of some folders of masks that is there.

        Raises:
            InputError: none is; or there is a pickle instead, which is refused.
        """
        there = [place for place in places if place.is_dir()]
        if there:
            return there[0]
        for pickle in (self.root / self.name / "mask_dict.pkl", self.root / "mask_dict.pkl"):
            if pickle.is_file():
                raise InputError(
                    f"{pickle}: masks in a pickle, which can run anything when it is opened and counts its masks in an "
                    f"order of its own; not read; unpack the PNGs of the original release into {places[0]}, and "
                    "rebuild the pickle from them if another program wants it"
                )
        return needed_folder(places[0], f"a folder of masks for each video of {self.name}")

    def run_lengths(self, *places: Path) -> Path:
        """The first of some mask_dict.json that is there.

        Raises:
            InputError: none is.
        """
        there = [place for place in places if place.is_file()]
        if there:
            return there[0]
        beside = places[0].parent
        raise InputError(
            f"{places[0]}: missing; wanted the run lengths of the masks of {self.name}; "
            f"{beside} holds {listing(beside)}; put it there"
        )


def first_file(*places: Path) -> Path:
    """The first file that is there, else the first, whose absence its reader reports."""
    return next((place for place in places if place.is_file()), places[0])


def video_of(
    listed: ListedVideo,
    pictures: Path,
    expressions: Iterable[Expression],
    masks: MaskTruth | None,
    attributes: frozenset[str] = frozenset(),
) -> Video:
    """A listed video with its frames, `pictures`/<video>/<frame>.jpg."""
    images = listed.files(pictures / listed.name, ".jpg")
    return Video(listed.name, images, tuple(expressions), masks, attributes=attributes)


def with_label_maps(listed: ListedVideo, pictures: Path, labels: Path) -> Video:
    """A listed video whose truth is `labels`/<video>/<frame>.png, values being `obj_id`."""
    return video_of(listed, pictures, map(labelled, listed.entries), LabelMasks(label_maps(listed, labels)))


def without_truth(listed: ListedVideo, pictures: Path) -> Video:
    """A listed video of a part whose truth its authors keep."""
    return video_of(listed, pictures, [Expression(entry.id, entry.text) for entry in listed.entries], None)


def label_maps(listed: ListedVideo, labels: Path) -> tuple[Path, ...]:
    """The label maps of a video, one for each frame."""
    return listed.files(labels / listed.name, ".png")


def labelled(entry: Entry, tags: Mapping[str, str] | None = None) -> Expression:
    """An expression whose objects are values of label maps; it keeps the answer that a file of ours gives to it.

    Raises:
        InputError: it names no object.
    """
    return Expression(entry.id, entry.text, needed(entry.labels(), entry, "obj_id"), tags or answered(entry.fields))


def needed(found: tuple[str, ...] | None, entry: Entry, name: str) -> tuple[str, ...]:
    """The objects of an entry that must name them under `name`.

    Raises:
        InputError: it does not.
    """
    if found is None:
        raise InputError(f'{entry.where} names no object; wanted "{name}"; is it the file of a part without truth?')
    return found
