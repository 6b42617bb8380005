# Writes safetensors files, so that making golden files needs nothing but PyTorch and numpy.
import json
import struct

import numpy as np

DTYPES = {np.dtype("<f8"): "F64", np.dtype("<i8"): "I64", np.dtype("<f4"): "F32"}


def save(path, tensors, metadata):
    """tensors: name -> numpy array; metadata: name -> string. Ordered as the format asks: widest dtype, then name."""
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    header, data, offset = {"__metadata__": metadata}, [], 0
    for name in sorted(arrays, key=lambda n: (-arrays[n].itemsize, n)):
        array = arrays[name]
        end = offset + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        data.append(array.tobytes())
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))
