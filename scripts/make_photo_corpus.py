#!/usr/bin/env python3
"""make_photo_corpus.py DIR [IMAGES]: photographs at ImageNet's sizes, cut from those that Debian packages ship.

Writes DIR/a444 and DIR/a420 (the same cuts at quality 96, baseline, chroma in full and in half resolution) and DIR/p444 (every
fifth cut, progressive), each with one folder for each photograph: what `lipsgrad bench data` and `lipsgrad data pack` take as a
source. The photographs are packages' and keep their licences; they are fetched with apt-get and never committed.
Needs python3-pil, dpkg-deb and apt-get. The same photographs give the same cuts.
"""
import glob
import os
import random
import subprocess
import sys
import tempfile

from PIL import Image

# Each package's photographs; drawings and panoramas are left out.
PHOTOS = {
    "lomiri-wallpapers-16.04": ["usr/share/backgrounds/[!u]*.jpg"],
    "lomiri-wallpapers-20.04": ["usr/share/backgrounds/Kleiber*.jpg", "usr/share/backgrounds/Fossa*.jpg"],
    "mate-backgrounds": ["usr/share/backgrounds/mate/nature/*.jpg", "usr/share/backgrounds/mate/abstract/Elephants.jpg"],
    "python3-skimage": ["usr/lib/python3/dist-packages/skimage/data/" + name for name in ("coffee.png", "astronaut.png", "chelsea.png")],
}
# Width, height and how often: 500 x 375 is ImageNet's commonest size by far.
SIZES = [((500, 375), 14), ((375, 500), 2), ((500, 333), 1), ((500, 500), 1), ((333, 500), 1), ((400, 300), 1)]


def fetch(folder):
    photos = []
    for package, patterns in PHOTOS.items():
        print("fetching", package, file=sys.stderr)
        subprocess.run(["apt-get", "-qq", "download", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        root = os.path.join(folder, package)
        subprocess.run(["dpkg-deb", "-x", glob.glob(f"{folder}/{package}_*.deb")[0], root], check=True)
        for pattern in patterns:
            photos += sorted(glob.glob(os.path.join(root, pattern)))
    return photos


def cut(photo, draw):
    """A window at the wished size, of the photograph scaled so that the window shows between 60 and 100 % of its shorter side."""
    (width, height), = draw.choices([size for size, _ in SIZES], [often for _, often in SIZES])
    largest = min(photo.width / width, photo.height / height)
    scale = max(1.0, draw.uniform(0.6 * largest, largest))   # photograph's pixels for one of ours, never less than one
    w, h = min(photo.width, round(width * scale)), min(photo.height, round(height * scale))
    left, top = draw.randint(0, photo.width - w), draw.randint(0, photo.height - h)
    return photo.resize((width, height), Image.LANCZOS, box=(left, top, left + w, top + h))


def save(image, folder, kind, name, number, **options):
    path = os.path.join(folder, kind, name)
    os.makedirs(path, exist_ok=True)
    image.save(os.path.join(path, f"{number:04d}.jpg"), quality=96, **options)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder, images = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 500
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as packages:
        os.chmod(packages, 0o755)                            # apt-get's own user downloads
        photos = fetch(packages)
        for i, path in enumerate(photos):
            draw = random.Random(i)
            photo = Image.open(path).convert("RGB")
            name = os.path.splitext(os.path.basename(path))[0]
            for number in range(i, images, len(photos)):
                image = cut(photo, draw)
                save(image, folder, "a444", name, number, subsampling=0)
                save(image, folder, "a420", name, number, subsampling=2)
                if number % 5 == 0:
                    save(image, folder, "p444", name, number, subsampling=0, progressive=True)
    print(f"{folder}: {images} cuts of {len(photos)} photographs", file=sys.stderr)


if __name__ == "__main__":
    main()
