"""Writes meta.mat and meta_plain.mat beside this file: the devkit's array of synsets in small, as scipy writes it, deflated and not. Needs scipy.

Five synsets, of which three have no children: IDs 1, 2, 3 are n09, n01 and n05.
"""
import pathlib

import numpy
import scipy.io

here = pathlib.Path(__file__).parent
rows = [(1, "n09", "kit fox, Vulpes", "small fox", 0, [], 0, 1300), (2, "n01", "setter", "a dog", 0, [], 0, 1300),
        (3, "n05", "b\u00e9b\u00e9", "not ASCII", 0, [], 0, 732), (4, "n77", "animal", "an inner node", 2, [1, 2], 1, 0),
        (5, "n78", "entity", "the root", 2, [3, 4], 2, 0)]
names = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
synsets = numpy.zeros((len(rows), 1), dtype=[(name, object) for name in names])
for i, row in enumerate(rows):
    for name, value in zip(names, row):
        synsets[name][i, 0] = value if isinstance(value, str) else numpy.array(value, dtype=float if isinstance(value, list) else numpy.uint16)
for name, deflated in ("meta.mat", True), ("meta_plain.mat", False):
    path = here / name
    scipy.io.savemat(path, {"note": "passed over", "synsets": synsets}, do_compression=deflated)
    data = bytearray(path.read_bytes())
    data[:116] = b"MATLAB 5.0 MAT-file, written by scipy".ljust(116)   # without the date
    path.write_bytes(data)
