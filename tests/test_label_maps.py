"""Label maps and masks from PNGs: the ids that Pillow gives, and a sentence for every file that is not what it says."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import label_maps
from eval.label_maps import read_label_map, read_mask
from trackgpt.errors import InputError

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, rows: bytes | None, depth: int = 8, colour: int = 3, interlaced: int = 0, parts: int = 1
) -> bytes:
    """A PNG written by hand: `rows` are the bytes before deflate; None leaves the pixels out."""
    packed = b"" if rows is None else zlib.compress(rows, 9)
    cuts = [len(packed) * i // parts for i in range(parts + 1)]
    return b"".join(
        [
            label_maps.SIGNATURE,
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)),
            chunk(b"PLTE", bytes(PALETTE)) if colour == 3 else b"",
            *(chunk(b"IDAT", packed[a:b]) for a, b in zip(cuts, cuts[1:])),
            chunk(b"IEND", b""),
        ]
    )


def unfiltered(labels: np.ndarray) -> bytes:
    return np.pad(labels, ((0, 0), (1, 0))).astype(np.uint8).tobytes()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (37, 53)).astype(np.uint8)


# What can be read


@pytest.mark.parametrize("mode", ["P", "L"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"bits": 8}, {"compress_level": 0}])
def test_ids_are_those_that_were_saved(tmp_path, labels, mode, options):
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette(PALETTE)
    image.save(tmp_path / "a.png", **options)
    found = read_label_map(tmp_path / "a.png", (37, 53))
    assert found.dtype == np.uint8
    assert np.array_equal(found, labels)
    assert np.array_equal(read_label_map(str(tmp_path / "a.png")), labels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [1, 7, 8, 53])
def test_palettes_of_1_2_4_and_8_bits_hold_ids(tmp_path, bits, width):
    labels = np.random.default_rng(bits).integers(0, 2**bits, (5, width)).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette((PALETTE * 64)[: 3 * 2**bits])
    image.save(tmp_path / "a.png", bits=bits)
    data = (tmp_path / "a.png").read_bytes()
    assert data[24:26] == bytes([bits, 3])  # depth, colour type
    assert np.array_equal(read_label_map(tmp_path / "a.png", (5, width)), labels)
    assert np.array_equal(read_mask(tmp_path / "a.png"), labels > 0)


@pytest.mark.parametrize("filtered", range(5))
def test_rows_with_any_filter_give_the_same_ids(tmp_path, filtered):
    # Filters: 0 none, 1 less the left pixel, 2 less the upper, 3 less their mean, 4 less whichever predicts best.
    rows = np.zeros((2, 5), np.uint8)
    rows[1, 0] = filtered  # the second row alone is filtered: the first says nothing about the others
    rows[:, 1:] = [[7, 7, 9, 9], [1, 0, 0, 2]]
    expected = [[7, 7, 9, 9]]
    expected += [[[1, 0, 0, 2], [1, 1, 1, 3], [8, 7, 9, 11], [4, 5, 7, 10], [8, 8, 9, 11]][filtered]]
    assert read_label_map(written(tmp_path / "a.png", png(4, 2, rows.tobytes()))).tolist() == expected
    rows = np.roll(rows, 1, 0)  # filtered from the first row on
    with Image.open(written(tmp_path / "b.png", png(4, 2, rows.tobytes()))) as image:
        assert np.array_equal(read_label_map(tmp_path / "b.png"), np.array(image))


def test_pixels_in_several_chunks_and_255_for_void_are_read(tmp_path, labels):
    labels[5:9] = 255
    path = written(tmp_path / "a.png", png(53, 37, unfiltered(labels), colour=0, parts=7))
    assert np.array_equal(read_label_map(path), labels)


def test_interlaced_pixels_are_read(tmp_path):
    # Of 2 x 2 pixels the first comes in pass 1, the second in pass 6 and the second row in pass 7.
    assert read_label_map(
        written(tmp_path / "a.png", png(2, 2, bytes([0, 1, 0, 2, 0, 3, 4]), interlaced=1))
    ).tolist() == [[1, 2], [3, 4]]


def test_both_ways_to_inflate_give_the_same_ids(tmp_path, labels, monkeypatch):
    path = written(tmp_path / "a.png", png(53, 37, unfiltered(labels)))
    first = read_label_map(path)
    monkeypatch.setattr(label_maps, "_inflate", label_maps._stdlib_inflate)
    assert label_maps.uses_stdlib()
    assert np.array_equal(read_label_map(path), first)
    monkeypatch.setattr(label_maps, "_HARMLESS", 0)  # as if the file could become too large: counted while inflating
    assert np.array_equal(read_label_map(path), first)


def test_ids_cannot_be_written_to(tmp_path, labels):
    for name, rows in (("a.png", unfiltered(labels)), ("b.png", b"\1" + unfiltered(labels)[1:])):
        with pytest.raises(ValueError, match="read-only"):
            read_label_map(written(tmp_path / name, png(53, 37, rows)))[0, 0] = 1


def test_a_mask_is_every_value_but_0(tmp_path):
    values = np.array([[0, 1, 128], [255, 0, 2]], np.uint8)
    path = written(tmp_path / "a.png", png(3, 2, unfiltered(values), colour=0))
    assert read_mask(path).tolist() == [[False, True, True], [True, False, True]]
    Image.fromarray(values > 0).save(tmp_path / "b.png")  # 1 bit
    assert read_mask(tmp_path / "b.png", (2, 3)).tolist() == read_mask(path).tolist()
    assert read_mask(path).dtype == np.bool_


# What cannot


def refused(path: Path, *words: str, read=read_label_map, **options) -> None:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("read", [read_label_map, read_mask])
def test_a_file_that_is_missing_or_no_png_is_named(tmp_path, read):
    refused(tmp_path / "none.png", "No such file", "wanted", read=read)
    refused(tmp_path, "cannot be read", read=read)
    for content in (b"", b"\xff\xd8\xff\xe0 a JPEG" * 9, label_maps.SIGNATURE, png(2, 2, None)[:30]):
        refused(written(tmp_path / "a.png", content), "no PNG", f"{len(content)} bytes", read=read)


@pytest.mark.parametrize("read", [read_label_map, read_mask])
def test_a_file_cut_off_anywhere_or_with_a_bit_turned_is_damaged(tmp_path, labels, read):
    whole = png(53, 37, unfiltered(labels))
    for end in range(0, len(whole), 13):
        refused(written(tmp_path / "a.png", whole[:end]), read=read)
    assert read(written(tmp_path / "a.png", whole)).shape == (37, 53)
    for at in range(16, len(whole) - 12, 13):
        turned = bytearray(whole)
        turned[at] ^= 1
        refused(written(tmp_path / "a.png", bytes(turned)), read=read)


@pytest.mark.parametrize("first", [0, 1])  # unfiltered rows, and rows that go through Pillow
def test_pixels_that_are_no_or_half_a_stream_are_damaged(tmp_path, first):
    rows = bytes([first, *range(1, 33)]) * 8
    packed = zlib.compress(rows)
    for content in (b"", b"12", b"not zlib at all", packed[:40], packed[:2] + b"\xff" * 30):
        head = png(32, 8, None)
        at = head.index(b"IDAT") - 4
        refused(written(tmp_path / "a.png", head[:at] + chunk(b"IDAT", content) + chunk(b"IEND", b"")), "damaged")


def test_fewer_rows_than_declared_are_refused(tmp_path, labels):
    refused(written(tmp_path / "a.png", png(53, 38, unfiltered(labels))), "1998 bytes, wanted 2052", "53 x 38")


@pytest.mark.parametrize("harmless", [2**26, 0])
def test_more_pixels_than_declared_are_refused_and_not_inflated(tmp_path, monkeypatch, harmless):
    monkeypatch.setattr(label_maps, "_HARMLESS", harmless)
    refused(written(tmp_path / "a.png", png(100, 100, bytes(3_000_000))), "more bytes, wanted 10100")


def test_a_bomb_is_inflated_no_further_than_declared(tmp_path, monkeypatch):
    """100 MB of zeros in a file of 100 KB that declares 100 x 100 pixels."""

    def never(stream, size):
        raise AssertionError("inflated without a bound")

    monkeypatch.setattr(label_maps, "_inflate", never)
    path = written(tmp_path / "a.png", png(100, 100, bytes(100_000_000)))
    assert path.stat().st_size < 110_000
    refused(path, "more bytes, wanted 10100")


def test_a_size_that_needs_too_much_memory_is_refused_unread(tmp_path, labels):
    refused(written(tmp_path / "a.png", png(100_000, 100_000, bytes(1000))), "100000 x 100000", "at most 67108864")
    path = written(tmp_path / "b.png", png(53, 37, unfiltered(labels)))
    refused(path, "at most 1960", max_pixels=1960)
    assert read_label_map(path, max_pixels=1961).shape == (37, 53)
    refused(written(tmp_path / "c.png", path.read_bytes() + bytes(2**21)), "bytes, wanted at most", max_pixels=2000)
    refused(written(tmp_path / "d.png", png(0, 37, b"")), "0 x 37")


def test_colours_are_no_ids(tmp_path):
    for mode, word in (("RGB", "RGB image"), ("RGBA", "RGB with alpha"), ("LA", "greyscale with alpha")):
        Image.new(mode, (5, 4)).save(tmp_path / "a.png")
        refused(tmp_path / "a.png", word, "convert its colours to ids")
        refused(tmp_path / "a.png", word, "save masks as uint8", read=read_mask)


def test_greys_of_other_depths_are_no_ids(tmp_path):
    Image.fromarray(np.ones((4, 5), bool)).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "greyscale image of 1 bits")
    Image.fromarray(np.full((4, 5), 300, np.uint16)).save(tmp_path / "b.png")
    refused(tmp_path / "b.png", "greyscale image of 16 bits")
    refused(tmp_path / "b.png", "16 bits", "at most 8 bits", read=read_mask)


@pytest.mark.parametrize("read", [read_label_map, read_mask])
def test_a_prediction_of_another_size_than_its_truth_is_named(tmp_path, labels, read):
    path = written(tmp_path / "a.png", png(53, 37, unfiltered(labels)))
    refused(path, "37 x 53 pixels (height x width), wanted the truth's 53 x 37", read=read, shape=(53, 37))
