#!/usr/bin/env python3
"""data_peers.py LIPSGRAD FOLDER [IMAGES] [ROUNDS]: this project's input pipeline beside those that others use, on the same files.

Each round runs everything once, one after the other, from memory, on one thread: RandomResizedCrop to 224 x 224 (bicubic) and a flip, to
u8 pixels; then the same with the recipe's augmentation. Printed are medians over the rounds of CPU time, of all threads of a process, and
of its ratio to ours in the same round: other work on the machine changes images/s and hardly the ratios. Needs torch, torchvision, timm,
opencv-python-headless and nvidia-dali; who is missing is left out and named.
"""
import glob
import io
import json
import os
import statistics
import subprocess
import sys
import time

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

SIDE, BATCH = 224, 50


def torchvision_pillow():
    from PIL import Image
    from torchvision.transforms import InterpolationMode, v2
    change = v2.Compose([v2.RandomResizedCrop(SIDE, interpolation=InterpolationMode.BICUBIC), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    return lambda files: [change(Image.open(io.BytesIO(f)).convert("RGB")) for f in files]


def torchvision_tensors():
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import InterpolationMode, v2
    torch.set_num_threads(1)
    change = v2.Compose([v2.RandomResizedCrop(SIDE, interpolation=InterpolationMode.BICUBIC, antialias=True), v2.RandomHorizontalFlip()])
    return lambda files: [change(decode_jpeg(torch.frombuffer(bytearray(f), dtype=torch.uint8), ImageReadMode.RGB)) for f in files]


def opencv():
    import cv2
    import numpy
    import torch
    from torchvision.transforms import RandomResizedCrop
    cv2.setNumThreads(1)

    def change(file):
        image = cv2.imdecode(numpy.frombuffer(file, numpy.uint8), cv2.IMREAD_COLOR)
        top, left, height, width = RandomResizedCrop.get_params(torch.empty(3, *image.shape[:2], device="meta"), (0.08, 1.0), (3 / 4, 4 / 3))
        image = cv2.resize(image[top:top + height, left:left + width], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(cv2.flip(image, 1) if numpy.random.rand() < 0.5 else image, cv2.COLOR_BGR2RGB)

    return lambda files: [change(f) for f in files]


def dali():
    import numpy
    from nvidia.dali import fn, pipeline_def, types
    files = []

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipeline():
        bytes_ = fn.external_source(source=lambda: files, batch=True, dtype=types.UINT8)
        image = fn.decoders.image_random_crop(bytes_, device="cpu", output_type=types.RGB, random_aspect_ratio=[3 / 4, 4 / 3], random_area=[0.08, 1.0])
        image = fn.resize(image, size=[SIDE, SIDE], interp_type=types.INTERP_CUBIC, antialias=True)
        return fn.flip(image, horizontal=fn.random.coin_flip())

    built = []

    def run(given):
        arrays = [numpy.frombuffer(f, numpy.uint8) for f in given]
        files[:] = arrays[:BATCH]
        if not built:
            built.append(pipeline())
            built[0].build()
        for begin in range(0, len(arrays), BATCH):
            files[:] = arrays[begin:begin + BATCH]
            built[0].run()
    return run


def timm_transform():
    from timm.data import create_transform
    return create_transform(SIDE, is_training=True, use_prefetcher=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", re_prob=0.25)


def timm_image(change, file):
    from PIL import Image
    while True:
        try:
            return change(Image.open(io.BytesIO(file)).convert("RGB"))
        except ValueError:   # timm draws a posterization to 0 bits now and then, which newer releases of Pillow refuse
            continue


def timm_images():
    change = timm_transform()
    return lambda files: [timm_image(change, f) for f in files]


def timm_batches():
    from timm.data import FastCollateMixup
    change, collate = timm_transform(), FastCollateMixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000)

    def run(files):
        for begin in range(0, len(files), BATCH):
            collate([(timm_image(change, f), 0) for f in files[begin:begin + BATCH]])
    return run


# Name, what makes it, which of our stages it is held to.
CROP, RECIPE = "decode, resize", "decode, resize, augment"
PEERS = [("torchvision v2, Pillow", torchvision_pillow, CROP), ("torchvision v2, tensors", torchvision_tensors, CROP),
         ("OpenCV, INTER_AREA (other pixels)", opencv, CROP), ("DALI, CPU", dali, CROP),
         ("timm, images", timm_images, RECIPE), ("timm, batches with mixup", timm_batches, RECIPE)]


def ours(lipsgrad, folder, images):
    command = [lipsgrad, "bench", "data", folder, "--recipe", "lipsformer_swin_tiny", "--images", str(images), "--rounds", "1", "--json"]
    stages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["stages"]
    return {name: stage["one_thread"]["cpu_ms_per_image"] for name, stage in stages.items()}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    lipsgrad, folder = sys.argv[1:3]
    images, rounds = map(int, sys.argv[3:] + ["100", "5"][len(sys.argv) - 3:])
    paths = sorted(glob.glob(os.path.join(folder, "*", "*.jpg")))
    files = [open(paths[i * len(paths) // images], "rb").read() for i in range(images)]
    peers = []
    for name, make, stage in PEERS:
        try:
            run = make()
            run(files[:BATCH])
            peers.append((name, run, stage))
        except Exception as error:
            print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
    own, cpu, ratios = [], {}, {}
    for _ in range(rounds):
        own.append(ours(lipsgrad, folder, images))
        for name, run, stage in peers:
            start = time.process_time()
            run(files)
            cpu.setdefault(name, []).append(1e3 * (time.process_time() - start) / images)
            ratios.setdefault(name, []).append(cpu[name][-1] / own[-1]["files: " + stage])
    median = statistics.median
    print(f"{images} images of {folder}, {rounds} rounds\n{'':<40}{'CPU ms':>8}{'images/CPU s':>14}{'ours is faster':>16}")
    for name in own[0]:
        ms = median(o[name] for o in own)
        print(f"{'lipsgrad ' + name:<40}{ms:>8.2f}{1e3 / ms:>14.0f}")
    for name, _, stage in peers:
        ms = median(cpu[name])
        print(f"{name:<40}{ms:>8.2f}{1e3 / ms:>14.0f}{median(ratios[name]):>15.2f}x")


if __name__ == "__main__":
    main()
