"""One image file: 16 bits of which some are used, images that are too large, and formats that are not read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metantk.data.image_files import UnreadableError, read_image, used_bits
from metantk.data.sources import open_source
from metantk.data.store import gather, write_dataset
from metantk.options.dataset import DatasetOptions
from metantk.runtime.files import InputError

SIZE = 16


def png_16(pixels: np.ndarray) -> bytes:
    """A PNG file of 16 bits, of pixels `(height, width)` or with 3 or 4 channels. Pillow writes grey ones only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    colours = {(): 0, (3,): 2, (4,): 6}[pixels.shape[2:]]
    header = struct.pack(">IIBBBBB", width, height, 16, colours, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def ramp(largest: int, shape=(SIZE, SIZE)) -> np.ndarray:
    values = np.linspace(0, largest, int(np.prod(shape))).round().astype(np.uint16)
    return values.reshape(shape)


def write(path, content: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (900, 10), (4095, 12), (4096, 13), (65535, 16)])
def test_pixels_are_scaled_by_the_bits_in_use(tmp_path, largest, bits, colours):
    pixels = ramp(largest, (SIZE, SIZE, *colours))
    file = write(tmp_path / "deep.png", png_16(pixels))
    assert used_bits([file]) == bits
    expected = pixels >> (bits - 8)
    if not colours:
        expected = np.repeat(expected[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(file, SIZE, bits), expected)
    np.testing.assert_array_equal(read_image(file, SIZE), expected)


@pytest.mark.parametrize("alpha", [65535, 65534])
def test_an_alpha_channel_changes_nothing_where_nothing_is_transparent(tmp_path, alpha):
    pixels = ramp(4095, (SIZE, SIZE, 3))
    with_alpha = np.concatenate([pixels, np.full((SIZE, SIZE, 1), 65535, np.uint16)], axis=-1)
    with_alpha[0, 0, 3] = alpha
    file = write(tmp_path / "deep.png", png_16(with_alpha))
    is_opaque = alpha == 65535
    assert used_bits([file]) == (12 if is_opaque else None)
    expected = pixels >> (4 if is_opaque else 8)
    np.testing.assert_array_equal(read_image(file, SIZE)[1:], expected[1:])


@pytest.mark.parametrize("name", ["deep.tiff", "deep.pgm"])
def test_other_formats_of_16_bits(tmp_path, name):
    pixels = ramp(65535)
    Image.fromarray(pixels).save(tmp_path / name)
    assert used_bits([tmp_path / name]) == 16
    np.testing.assert_array_equal(read_image(tmp_path / name, SIZE)[..., 1], pixels >> 8)


def test_values_above_the_bits_are_white(tmp_path):
    file = write(tmp_path / "deep.png", png_16(ramp(65535)))
    assert np.unique(read_image(file, SIZE, 12)[ramp(65535) > 4095]).tolist() == [255]


def test_16_bit_images_that_would_be_misread_are_refused(tmp_path):
    transparent = png_16(ramp(65535))
    header = transparent.index(b"IDAT") - 4
    colour = b"tRNS" + struct.pack(">H", 0)
    chunk = struct.pack(">I", 2) + colour + struct.pack(">I", zlib.crc32(colour))
    write(tmp_path / "transparent.png", transparent[:header] + chunk + transparent[header:])
    write(tmp_path / "deep.jpg", png_16(ramp(65535)))
    Image.fromarray(ramp(65535)).save(tmp_path / "white.tif", tiffinfo={262: 0})
    for name, message in (
        ("transparent.png", "16 bits with a transparent colour"),
        ("deep.jpg", r"PNG of 16 bits, named \.jpg: rename it"),
        ("white.tif", "in which 0 is white"),
    ):
        with pytest.raises(UnreadableError, match=message):
            read_image(tmp_path / name, SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(510, 337), (300, 261), (131, 997)])
def test_a_jpeg_that_is_decoded_at_a_part_of_its_size_is_the_same_image(tmp_path, size, orientation):
    """Its last column and row are padding in part, which is not to shift or stretch the middle square."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    pixels = np.stack([np.sin(across + down), np.cos(across), np.sin(2 * down)], -1)
    image = Image.fromarray((127.5 * (1 + pixels)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", quality=95, exif=exif)
    image.save(tmp_path / "a.png", exif=exif)
    found, whole = (read_image(tmp_path / name, SIZE).astype(int) for name in ("a.jpg", "a.png"))
    assert abs(found - whole).mean() < 1.5


def test_images_of_8_bits_have_none_to_scale(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "b.jpg")
    write(tmp_path / "c.png", b"no image")
    assert used_bits(sorted(tmp_path.iterdir())) is None


@pytest.mark.parametrize("largest", [4095, 65535])
def test_one_scale_for_all_splits(tmp_path, largest):
    """A training class is dark; one of test uses all the bits."""
    for index, split in enumerate(("train", "val", "test")):
        pixels = ramp([1000, 2000, largest][index])
        write(tmp_path / "source" / split / split / "0.png", png_16(pixels))
    source = str(tmp_path / "source")
    opened = open_source(DatasetOptions(source=source, image_size=SIZE, ways=1))
    bits = largest.bit_length()
    for index, split in enumerate(opened.splits.values()):
        expected = ramp([1000, 2000, largest][index]) >> (bits - 8)
        np.testing.assert_array_equal(gather(split).images[0, ..., 0], expected)
    manifest = write_dataset(tmp_path / "data", opened, name="n", source=source)
    assert manifest["bits"] == bits
    said = ["16-bit images use 12 bits: 4095 becomes white, in all splits alike"]
    assert manifest["warnings"] == (said if bits == 12 else [])


def test_heic_is_named_with_the_cure(tmp_path):
    for name in "abc":
        write(tmp_path / name / "0.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    stream = open_source(DatasetOptions(source=str(tmp_path), ways=1)).splits["train"]
    with pytest.raises(InputError, match=r"0\.heic \(HEIC\).*; convert HEIC to JPEG \(magick .*\), mend or remove"):
        gather(stream)


@pytest.fixture
def _limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)


@pytest.mark.usefixtures("_limit")
def test_a_large_jpeg_is_judged_by_the_size_at_which_it_is_decoded(tmp_path):
    large = Image.new("RGB", (400, 400), (200, 30, 60))
    large.save(tmp_path / "large.jpg")
    assert np.abs(read_image(tmp_path / "large.jpg", SIZE).astype(int) - (200, 30, 60)).max() <= 3
    large.save(tmp_path / "progressive.jpg", progressive=True)  # needs memory for its whole size
    large.save(tmp_path / "large.png")
    for name in ("progressive.jpg", "large.png"):
        with pytest.raises(UnreadableError, match="more than 0 million pixels"):
            read_image(tmp_path / name, SIZE)
    assert Image.MAX_IMAGE_PIXELS == 100 * 100


@pytest.mark.usefixtures("_limit")
def test_an_image_that_is_too_large_is_left_out_if_asked(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name / "0.png")
    Image.new("RGB", (400, 400)).save(tmp_path / "a" / "large.png")
    opened = open_source(DatasetOptions(source=str(tmp_path), ways=1, skip_unreadable=True))
    assert opened.warnings == ["left out, cannot be read: a/large.png (more than 0 million pixels)"]
    assert sum(len(split.labels) for split in opened.splits.values()) == 3
