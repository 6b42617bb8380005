"""Writes augment.txt, augment_levels.txt and augment_policies.txt beside this file: what Pillow and timm make of small pictures.
Needs Pillow, numpy and timm's sources.

augment.txt: op argument filter picture height width hash(output) hex(output), the last "-" but for the smallest picture
augment_levels.txt: op level sign filter picture height width hash(output): timm's ops, from their magnitude on
augment_policies.txt: policy number (op chance level) (op chance level) hash(output): AutoAugment's pairs in timm, both carried out, positive
The pictures are made of that of make_resize_golden.py. The hash is 64-bit FNV-1a of the bytes.
"""
import importlib.util
import pathlib
import random

import numpy
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

here = pathlib.Path(__file__).parent
fill = (124, 116, 104)
filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return f"{h:016x}"


def picture(kind, height, width):
    i = numpy.arange(height * width * 3, dtype=numpy.uint64)
    noise = ((i + 1) * 2654435761 % 2**32) >> 24
    ramp = i * 255 // max(1, len(i) - 1)
    pixels = numpy.where((i // 7) % 2 == 0, noise, ramp)
    if kind == "ramp":      # interpolation meets many whole numbers
        pixels = ramp
    if kind == "middle":    # neither black nor white
        pixels = 40 + pixels * 160 // 255
    if kind == "coarse":    # four levels, large even parts
        pixels = ramp // 64 * 64
    if kind == "even":
        pixels = numpy.full(len(i), 77)
    return Image.fromarray(pixels.astype(numpy.uint8).reshape((height, width, 3)))


def timm_ops():
    """timm/data/auto_augment.py alone, because timm itself wants torch."""
    package = pathlib.Path(importlib.util.find_spec("timm").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("auto_augment", package / "data/auto_augment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def affine(image, matrix, kind):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=kind, fillcolor=fill)


def hue(image, turn):
    """torchvision's adjust_hue."""
    h, s, v = image.convert("HSV").split()
    h = Image.fromarray(((numpy.asarray(h).astype(int) + int(255 * turn)) % 256).astype(numpy.uint8))
    return Image.merge("HSV", (h, s, v)).convert("RGB")


def solarize_add(image, add):
    return image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3)


ops = {  # name: what Pillow does, arguments
    "autocontrast": (lambda image, _: ImageOps.autocontrast(image), [0]),
    "equalize": (lambda image, _: ImageOps.equalize(image), [0]),
    "invert": (lambda image, _: ImageOps.invert(image), [0]),
    "posterize": (lambda image, bits: image.point([i & ~(2 ** (8 - bits) - 1) for i in range(256)] * 3), [0, 1, 2, 3, 4, 7, 8]),
    "solarize": (ImageOps.solarize, [0, 1, 26, 128, 255, 256]),
    "solarize_add": (solarize_add, [0, 1, 99, 110, 128]),
    "color": (lambda image, f: ImageEnhance.Color(image).enhance(f), [0.0, 0.1, 0.19, 0.5, 1.0, 1.37, 1.81, 1.9]),
    "contrast": (lambda image, f: ImageEnhance.Contrast(image).enhance(f), [0.0, 0.1, 0.19, 0.5, 1.0, 1.37, 1.81, 1.9]),
    "brightness": (lambda image, f: ImageEnhance.Brightness(image).enhance(f), [0.0, 0.1, 0.19, 0.5, 1.0, 1.37, 1.81, 1.9]),
    "sharpness": (lambda image, f: ImageEnhance.Sharpness(image).enhance(f), [0.0, 0.1, 0.19, 0.5, 1.0, 1.37, 1.81, 1.9]),
    "blur": (lambda image, r: image.filter(ImageFilter.GaussianBlur(r)), [0.1, 0.3, 0.5, 0.77, 1.0, 1.3, 1.7, 2.0]),
    "hue": (hue, [-0.5, -0.31, -0.1, 0.0, 0.1, 0.27, 0.5]),
}
moves = {
    "shear_x": (lambda image, k, kind: affine(image, (1, k, 0, 0, 1, 0), kind), [0.0, 0.013, 0.27, -0.27, 0.3]),
    "shear_y": (lambda image, k, kind: affine(image, (1, 0, 0, k, 1, 0), kind), [0.0, 0.013, 0.27, -0.27, 0.3]),
    "translate_x": (lambda image, k, kind: affine(image, (1, 0, k * image.size[0], 0, 1, 0), kind), [0.0, 0.1, 0.405, -0.405, 0.5, 1.2]),
    "translate_y": (lambda image, k, kind: affine(image, (1, 0, 0, 0, 1, k * image.size[1]), kind), [0.0, 0.1, 0.405, -0.405, 0.5, 1.2]),
    "rotate": (lambda image, g, kind: image.rotate(g, resample=kind, fillcolor=fill), [0.0, 0.001, 3.7, 13.3, 27.0, -27.0, -30.0, 45.0, 90.0, 180.0, 270.0]),
}
sizes = [("mixed", 5, 6), ("mixed", 1, 1), ("mixed", 2, 3), ("mixed", 37, 53), ("ramp", 40, 40), ("middle", 24, 31), ("coarse", 30, 30), ("even", 9, 17),
         ("mixed", 224, 224), ("coarse", 96, 64)]

lines = []
for kind, height, width in sizes:
    image = picture(kind, height, width)

    def add(name, argument, filter_name, out):
        data = out.tobytes()
        raw = data.hex() if (height, width) == (5, 6) else "-"
        lines.append(f"{name} {argument!r} {filter_name} {kind} {height} {width} {fnv(data)} {raw}")

    for name, (op, arguments) in ops.items():
        for argument in arguments:
            add(name, argument, "-", op(image, argument))
    for name, (op, arguments) in moves.items():
        for argument in arguments:
            for filter_name, resample in filters.items():
                add(name, argument, filter_name, op(image, argument, resample))
(here / "augment.txt").write_text("\n".join(lines) + "\n")


def apply(op, image):
    try:
        return op(image)
    except ValueError:   # newer Pillow refuses to keep 0 bits; older ones give black, as the formula has it
        return Image.new("RGB", image.size)


timm = timm_ops()
lines = []
names = sorted({"PosterizeOriginal", *timm._RAND_TRANSFORMS, *timm._RAND_INCREASING_TRANSFORMS, *timm._RAND_3A})
image = picture("middle", 30, 40)
for name in names:
    for level in 0.0, 0.37, 2.5, 5.0, 7.5, 9.0, 9.63, 10.0:
        for sign in 1, -1:
            for filter_name, resample in filters.items():
                random.random = lambda: 0.0 if sign > 0 else 0.75
                op = timm.AugmentOp(name, prob=1.0, magnitude=level, hparams={"img_mean": fill, "interpolation": resample})
                out = apply(op, image)
                lines.append(f"{name} {level!r} {sign} {filter_name} middle 30 40 {fnv(out.tobytes())}")
(here / "augment_levels.txt").write_text("\n".join(lines) + "\n")

random.random = lambda: 0.0
lines = []
for name in "original", "v0":
    for number, pair in enumerate(timm.auto_augment_policy(name, {"img_mean": fill, "interpolation": filters["bicubic"]})):
        out = image
        for op in pair:
            out = apply(op, out)
        steps = " ".join(f"{op.name} {float(op.prob)!r} {float(op.magnitude)!r}" for op in pair)
        lines.append(f"{name} {number} {steps} {fnv(out.tobytes())}")
(here / "augment_policies.txt").write_text("\n".join(lines) + "\n")
