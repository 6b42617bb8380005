"""Writes safetensors.safetensors with the reference library: pip install safetensors numpy; python3 safetensors.py"""
from pathlib import Path
import sys

sys.path = sys.path[1:]  # this file must not be imported in place of the library
import numpy as np
from safetensors.numpy import save_file

tensors = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
    "bias": np.array([1.5, -2.5], dtype=np.float64),
    "labels": np.array([3, 1, 4], dtype=np.int64),
    "scalar": np.array(7.0, dtype=np.float32),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "half": np.array([0.5], dtype=np.float16),
    "bytes": np.array([1, 2, 255], dtype=np.uint8),
    "flags": np.array([True, False]),
    'na"me\n\u00fc': np.array([1], dtype=np.int32),
}
save_file(tensors, Path(__file__).with_suffix(".safetensors"), metadata={"format": "pt"})
