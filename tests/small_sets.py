"""Every data set of the recipe in miniature, below one root: four videos of SynthTrack in the real layouts."""

from pathlib import Path

from data_tools import image_writers
from data_tools.synthtrack import Layout, Order, make
from trackgpt.synthtrack.clips import make_case

IMAGE_SETS = {
    "ade20k": image_writers.write_ade20k,
    "coco-stuff": image_writers.write_coco_stuff,
    "paco-lvis": image_writers.write_paco_lvis,
    "pascal-part": image_writers.write_pascal_part,
    "part-imagenet": image_writers.write_part_imagenet,
    "mapillary": image_writers.write_mapillary,
    "refclef": image_writers.write_refclef,
    "refcoco": image_writers.write_refcoco,
    "refcoco+": image_writers.write_refcoco_plus,
    "refcocog": image_writers.write_refcocog,
    "grefcoco": image_writers.write_grefcoco,
    "reason-seg": image_writers.write_reason_seg,
}
VIDEO_SETS = {
    "refer-youtube-vos": Layout.refer_youtube_vos,
    "refer-davis17": Layout.refer_davis17,
    "mevis": Layout.mevis,
    "revos": Layout.revos,
    "lv-vis": Layout.lv_vis,
    "instrack": Layout.instrack,
}


def write_sets(root: Path, images: int = 3, videos: int = 2) -> Path:
    """Write all sets and return the root; frames of at most 64 pixels."""
    cases = [make_case(seed, "train", frames=1, longest=64) for seed in range(images)]
    for write in (*IMAGE_SETS.values(), image_writers.write_llava_instruct):
        write(root, cases, "train")
    for name, layout in VIDEO_SETS.items():
        make(Order(layout, videos, frames=8, longest=64), root / name)
    return root
