"""Writes resize.txt and images.txt beside this file: what Pillow makes of small pictures. Needs Pillow and numpy.

resize.txt: kind channels height width out_height out_width hash(output)
images.txt: name height width hash(RGB pixels) hash(gray pixels) hex(file)
The hash is 64-bit FNV-1a of the bytes. The input pixel at byte i is the top byte of the 32-bit product (i + 1) * 2654435761,
half of the time; the other half it is a smooth ramp.
"""
import io
import pathlib

import numpy
from PIL import Image

here = pathlib.Path(__file__).parent


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return f"{h:016x}"


def picture(height, width, channels):
    i = numpy.arange(height * width * channels, dtype=numpy.uint64)
    noise = ((i + 1) * 2654435761 % 2**32) >> 24
    ramp = i * 255 // max(1, len(i) - 1)
    pixels = numpy.where((i // 7) % 2 == 0, noise, ramp).astype(numpy.uint8)
    return pixels.reshape((height, width, channels) if channels > 1 else (height, width))


sizes = [  # height, width -> out_height, out_width
    (28, 28, 28, 28), (28, 28, 32, 32), (20, 25, 28, 28), (7, 5, 28, 28), (1, 1, 4, 4), (2, 3, 1, 1), (64, 48, 28, 28),
    (101, 67, 28, 28), (37, 53, 53, 37), (40, 30, 40, 12), (40, 30, 12, 30), (375, 500, 224, 224), (131, 97, 224, 224),
    (404, 4, 20, 8), (404, 4, 500, 8), (405, 4, 20, 8), (4, 404, 8, 20), (33, 1, 5, 5), (700, 900, 5, 4), (40, 2600, 10, 20),
]
lines = []
for name, kind in ("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC):
    for channels in 1, 3:
        for h, w, oh, ow in sizes:
            out = Image.fromarray(picture(h, w, channels)).resize((ow, oh), kind)
            lines.append(f"{name} {channels} {h} {w} {oh} {ow} {fnv(out.tobytes())}")
(here / "resize.txt").write_text("\n".join(lines) + "\n")

gray, rgb = Image.fromarray(picture(19, 23, 1)), Image.fromarray(picture(19, 23, 3))
rgba = Image.fromarray(picture(19, 23, 4), "RGBA")
files = {
    "gray.jpg": (gray, dict(format="JPEG", quality=95)),
    "rgb444.jpg": (rgb, dict(format="JPEG", quality=90, subsampling=0)),
    "rgb420.jpg": (rgb, dict(format="JPEG", quality=80, subsampling=2)),
    "progressive.jpg": (rgb, dict(format="JPEG", quality=80, progressive=True)),
    "cmyk.jpg": (Image.fromarray(picture(19, 23, 4), "CMYK"), dict(format="JPEG", quality=90)),
    "rgb.png": (rgb, dict(format="PNG")),
    "rgba.png": (rgba, dict(format="PNG")),
    "gray.png": (gray, dict(format="PNG")),
    "palette.png": (rgb.quantize(17), dict(format="PNG")),
    "bits.png": (gray.convert("1"), dict(format="PNG")),
}
lines = []
for name, (image, options) in files.items():
    file = io.BytesIO()
    image.save(file, **options)
    back = Image.open(io.BytesIO(file.getvalue()))
    colours = back.convert("RGB")
    if name.endswith(".jpg") and back.mode == "RGB":  # the luma of the file itself, not of its RGB
        luma = Image.open(io.BytesIO(file.getvalue()))
        luma.draft("L", luma.size)
        grays = luma.convert("L")
    else:
        grays = colours.convert("L")
    lines.append(f"{name} 19 23 {fnv(colours.tobytes())} {fnv(grays.tobytes())} {file.getvalue().hex()}")
(here / "images.txt").write_text("\n".join(lines) + "\n")
