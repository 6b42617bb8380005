# Writes ops.safetensors: golden inputs, outputs and gradients of single ops in f64, after checking the twins by hand.
#
# For each op: OP.INPUT for every input, OP.y its output, OP.dy an upstream gradient and OP.dINPUT what that gives back.
# Numbers that an op needs beside its tensors (heads, window, shift, eps, ...) stand in the metadata "attributes".
import json
import math
import os

import numpy as np
import torch
from torch.nn import functional as F

import safetensors_file
import twins

HERE = os.path.dirname(os.path.abspath(__file__))


class Golden:
    def __init__(self):
        self.random = np.random.default_rng(2023)
        self.tensors, self.attributes = {}, {}

    def draw(self, *shape, scale=1.0):
        return torch.from_numpy(scale * self.random.standard_normal(shape))

    def add(self, op, function, inputs, fixed=None, **attributes):
        """function takes the inputs, then the fixed ones (no gradient), by position; returns y or (y, entropy)."""
        for x in inputs.values():
            x.requires_grad_()
        y = function(*inputs.values(), *(fixed or {}).values())
        entropy = None
        if isinstance(y, tuple):
            y, entropy = y
        dy = self.draw(*y.shape) if y.dim() else torch.tensor(0.75, dtype=torch.float64)
        gradients = torch.autograd.grad(y, list(inputs.values()), dy)
        named = {**inputs, **(fixed or {}), "y": y, "dy": dy}
        named.update({"d" + name: g for name, g in zip(inputs, gradients)})
        if entropy is not None:
            named["entropy"] = entropy
        self.tensors.update({f"{op}.{name}": t.detach().contiguous().numpy() for name, t in named.items()})
        if attributes:
            self.attributes[op] = attributes


def depthwise_conv(x, weight, bias):
    """x [B, H, W, C], weight [C, 1, 7, 7]."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=3, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


def patch_embed(x, weight, bias):
    """x [B, in, H, W] -> [B, (H/P)(W/P), C]."""
    return F.conv2d(x, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)


def add_attention(golden, name, kind, shift, eps):
    """Two windows side by side on a 3x6 map; the shift rolls both axes."""
    heads, window, height, width, c = 2, 3, 3, 6, 8
    index = twins.relative_position_index(window)
    mask = twins.shift_mask(height, width, window, shift) if shift else None

    def function(qkv, bias_table, tau=None, nu=None):
        return twins.window_attention(qkv, bias_table, index, mask, heads, window, shift, kind, tau, nu, eps)

    inputs = {"qkv": golden.draw(2, height, width, 3 * c), "bias_table": golden.draw((2 * window - 1) ** 2, heads)}
    attributes = dict(kind=kind, heads=heads, window=window, shift=shift)
    if kind != "dot":
        inputs["tau"] = torch.tensor(10.0, dtype=torch.float64)
        attributes["eps"] = eps
    if kind == "cosine_bounded":
        inputs["nu"] = torch.tensor(1.5, dtype=torch.float64)
        inputs["qkv"][0, 0, 1] *= 0.02  # a token near the origin, where eps decides
    golden.add(name, function, inputs, **attributes)


def make():
    golden = Golden()
    draw = golden.draw

    x = draw(4, 8, scale=2.0)
    x[0, :6] = torch.tensor([0.0, math.sqrt(2), -math.sqrt(2), 9.0, -9.0, 1e-4])
    golden.add("gelu", F.gelu, {"x": x})

    def norm_inputs(width):
        return {"x": draw(5, width) + 0.5, "weight": 1 + 0.3 * draw(width), "bias": draw(width, scale=0.3)}
    golden.add("layer_norm", lambda x, w, b: F.layer_norm(x, (x.shape[-1],), w, b, 1e-5), norm_inputs(12), eps=1e-5)
    golden.add("center_norm", twins.center_norm, norm_inputs(12))

    # taller than the kernel and narrower than it
    golden.add("depthwise_conv", depthwise_conv,
               {"x": draw(2, 9, 5, 4), "weight": draw(4, 1, 7, 7, scale=0.2), "bias": draw(4)})
    golden.add("linear", F.linear, {"x": draw(5, 6), "weight": draw(4, 6), "bias": draw(4)})

    targets = torch.tensor([[1.0, 0, 0, 0, 0], [0.75, 0.25, 0, 0, 0], [0.02, 0.02, 0.02, 0.92, 0.02],
                            [0.2, 0.2, 0.2, 0.2, 0.2]], dtype=torch.float64)
    golden.add("soft_cross_entropy", twins.soft_cross_entropy, {"x": draw(4, 5, scale=3.0)}, {"targets": targets})

    add_attention(golden, "attention_dot", "dot", 0, None)
    add_attention(golden, "attention_dot_shifted", "dot", 1, None)
    add_attention(golden, "attention_cosine", "cosine", 0, 1e-12)
    add_attention(golden, "attention_cosine_shifted", "cosine", 1, 1e-12)
    add_attention(golden, "attention_cosine_bounded", "cosine_bounded", 0, 1e-2)
    add_attention(golden, "attention_cosine_bounded_shifted", "cosine_bounded", 1, 1e-2)

    golden.add("patch_merge", twins.space_to_depth, {"x": draw(2, 4, 6, 3)})
    golden.add("patch_embed", patch_embed,
               {"x": draw(2, 3, 8, 12), "weight": draw(5, 3, 4, 4, scale=0.2), "bias": draw(5)}, patch=4)

    path = os.path.join(HERE, "ops.safetensors")
    safetensors_file.save(path, golden.tensors, {"attributes": json.dumps(golden.attributes)})
    print(f"ops.safetensors: {os.path.getsize(path):,} bytes, {len(golden.tensors)} tensors")


def expect(what, got, want, tolerance):
    worst = (got.detach() - torch.tensor(want, dtype=got.dtype)).abs().max().item()
    print(f"{what:40} worst difference {worst:.1e}")
    if worst > tolerance:
        raise SystemExit(f"{what}: expected {want}, got {got}")


def check_twins():
    """The worked examples of CenterNorm, of the position index and of bounded cosine attention."""
    x = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64, requires_grad=True)
    y = twins.center_norm(x, torch.ones(4), torch.zeros(4))
    expect("center norm", y, [-2, -2 / 3, 2 / 3, 2], 1e-14)
    expect("center norm dx", torch.autograd.grad(y[0], x)[0], [1, -1 / 3, -1 / 3, -1 / 3], 1e-14)

    expect("relative position index", twins.relative_position_index(2),
           [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]], 0)

    def f64(rows):
        return torch.tensor(rows, dtype=torch.float64)
    x = f64([[1, 2], [3, -1], [0.5, 0.25]]).requires_grad_()
    q, k, v = x, x @ f64([[0, 1], [1, 0]]), x @ f64([[1, 1], [0, 1]])
    out, entropy = twins.attend(q, k, v, f64([0.0]), "cosine_bounded", 2.0, 1.5, 0.01)
    p = f64([[0.304967, 0.253533, 0.441500], [0.716706, 0.052655, 0.230639], [0.542236, 0.100203, 0.357561]])
    expect("bounded attention", out, [[0.826003, 1.192295], [0.596219, 1.349275], [0.677784, 1.298113]], 6e-7)
    expect("bounded attention entropy", entropy, (-(p * p.log()).sum(-1)).tolist(), 1e-5)
    dx, = torch.autograd.grad(out, x, f64([[1, 2], [3, 4], [5, 6]]))
    expect("bounded attention dx", dx, [[0.940664, -0.464610], [0.061161, 0.181915], [-0.107313, 0.602037]], 6e-7)


if __name__ == "__main__":
    torch.set_num_threads(1)  # one order of every sum
    check_twins()
    make()
