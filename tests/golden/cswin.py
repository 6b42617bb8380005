# PyTorch twin of CSwin and LipsFormer-CSwin; `--counts` checks their sizes, those of each part too.
#
# Parameter names are those of the original CSwin repository, with S a stage (from 1), B a block (from 0), C the stage's width:
#   stage1_conv_embed.0.weight [C, in, 7, 7], .bias [C]    stage1_conv_embed.2.weight, .bias [C]      stem and its norm
#   stageS.B.norm1.weight, .bias [C]                       norm2 alike; before attention and MLP
#   stageS.B.qkv.weight [3C, C], .bias [3C]                rows ordered q, k, v; inside each head by head
#   stageS.B.attns.J.get_v.weight [C', 1, 3, 3], .bias [C']        LePE; J = 0: vertical stripes on the first half of the
#                                                          channels, 1: horizontal ones; the last stage has J = 0 alone, C' = C
#   stageS.B.proj.weight [C, C], .bias [C]
#   stageS.B.mlp.fc1.weight [rC, C], .bias [rC]            mlp.fc2.weight [C, rC], .bias [C]
#   mergeS.conv.weight [2C, C, 3, 3], .bias [2C]           mergeS.norm.weight, .bias [2C]      after stage S, not the last
#   norm.weight, .bias                                     head.weight, .bias
#
# conv_branches makes it LipsFormer-CSwin: a block then has dwconv_layers.0 and .1, nin, scale_layers.0 and .1, alpha1 and
# alpha2 as in twins.py and one norm, norm2, after the MLP's sum; stem and merges do not overlap; there is no last norm. The
# original also makes a norm1 that it never applies: 2C numbers a block, which only the counts know.
import argparse
import math
import sys
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

import parts as p
import twins


@dataclass(frozen=True)
class Config:
    """The recipe's section [model]."""
    family: str = "cswin"
    img_size: int = 224
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 64
    depths: tuple = (1, 2, 21, 1)
    num_heads: tuple = (2, 4, 8, 16)
    stripe_widths: tuple = (1, 2, 7, 7)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    conv_branches: bool = False


def first(x):
    """[B, H, W, C] -> [B, C, H, W]"""
    return x.permute(0, 3, 1, 2)


def last(x):
    return x.permute(0, 2, 3, 1)


def split_windows(x, height, width):
    """[B, H, W, C] -> [B * windows, height, width, C], windows row-major."""
    b, h, w, c = x.shape
    x = x.view(b, h // height, height, w // width, width, c)
    return x.transpose(2, 3).reshape(-1, height, width, c)


def join_windows(x, h, w):
    """[B * windows, height, width, C] -> [B, H, W, C]"""
    _, height, width, c = x.shape
    x = x.view(-1, h // height, w // width, height, width, c)
    return x.transpose(2, 3).reshape(-1, h, w, c)


class StripeAttention(nn.Module):
    """softmax(q k) v + LePE(v) inside windows of height x width; LipsFormer divides that by the root of its heads."""

    def __init__(self, config, parts, width, heads, window):
        super().__init__()
        self.parts, self.heads, self.window = parts, heads, window
        self.divisor = math.sqrt(heads) if config.conv_branches else 1.0
        self.get_v = p.Conv(parts, width, width, 3, padding=1, groups=width)
        self.entropy = None  # [heads], of the last forward

    def forward(self, q, k, v):  # each [B, H, W, C']
        h, w = v.shape[1:3]
        q, k, v = (split_windows(u, *self.window) for u in (q, k, v))  # [B*, wh, ww, C']
        lepe = last(self.get_v(first(v)))
        heads = [u.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for u in (q, k, v)]  # [B*, heads, N, d]
        out, entropy = p.attend(self.parts, *heads)
        self.entropy = entropy.mean((0, 2))
        out = out.transpose(1, 2).reshape(v.shape) + lepe
        return join_windows(out / self.divisor, h, w)


class Block(nn.Module):
    def __init__(self, config, parts, width, heads, side, stripe, whole):
        super().__init__()
        self.conv_branches = config.conv_branches
        scaled = 2 * sum(config.depths)
        if config.conv_branches:
            self.dwconv_layers = nn.ModuleList(p.Conv(parts, width, width, 7, padding=3, groups=width) for _ in range(2))
            self.nin = p.Conv(parts, width, width, 1)
            self.scale_layers = nn.ModuleList(p.Residual(parts, width, scaled) for _ in range(2))
        else:
            self.norm1 = p.make_norm(parts, width)
        self.qkv = p.Linear(parts, width, 3 * width, config.qkv_bias)
        windows = [(side, side)] if whole or side == stripe else [(side, stripe), (stripe, side)]
        self.attns = nn.ModuleList(
            StripeAttention(config, parts, width // len(windows), heads // len(windows), window) for window in windows)
        self.proj = p.Linear(parts, width, width)
        self.alpha1 = p.Residual(parts, width, scaled)
        self.mlp = p.Mlp(parts, width, int(width * config.mlp_ratio))
        self.alpha2 = p.Residual(parts, width, scaled)
        self.norm2 = p.make_norm(parts, width)

    def attention(self, x):
        q, k, v = (u.chunk(len(self.attns), -1) for u in self.qkv(x).chunk(3, -1))
        return self.proj(torch.cat([attn(*halves) for attn, *halves in zip(self.attns, q, k, v)], -1))

    def convolutions(self, x):
        branch = F.gelu(self.nin(F.gelu(self.dwconv_layers[0](first(x)))))
        x = self.scale_layers[0](x, last(branch))
        return self.scale_layers[1](x, last(F.gelu(self.dwconv_layers[1](first(x)))))

    def forward(self, x):  # [B, H, W, C]
        if self.conv_branches:
            x = self.convolutions(x)
            x = self.alpha1(x, self.attention(x))
            return self.norm2(self.alpha2(x, self.mlp(x)))
        x = self.alpha1(x, self.attention(self.norm1(x)))
        return self.alpha2(x, self.mlp(self.norm2(x)))


class Merge(nn.Module):
    def __init__(self, config, parts, width):
        super().__init__()
        kernel, padding = (2, 0) if config.conv_branches else (3, 1)
        self.conv = p.Conv(parts, width, 2 * width, kernel, 2, padding)
        self.norm = p.make_norm(parts, 2 * width)

    def forward(self, x):
        return self.norm(last(self.conv(first(x))))


class ChannelsLast(nn.Module):
    def forward(self, x):
        return last(x)


class CSwin(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        self.stages, width, patch = len(config.depths), config.embed_dim, config.patch_size
        kernel, padding = (patch, 0) if config.conv_branches else (2 * patch - 1, patch // 2)
        self.stage1_conv_embed = nn.Sequential(
            p.Conv(parts, config.in_chans, width, kernel, patch, padding), ChannelsLast(), p.make_norm(parts, width))
        for s in range(self.stages):
            side = (config.img_size // patch) >> s
            ends = s + 1 == self.stages
            setattr(self, f"stage{s + 1}", nn.Sequential(*(
                Block(config, parts, width << s, config.num_heads[s], side, config.stripe_widths[s], ends)
                for _ in range(config.depths[s]))))
            if not ends:
                setattr(self, f"merge{s + 1}", Merge(config, parts, width << s))
        width <<= self.stages - 1
        self.norm = nn.Identity() if config.conv_branches else p.make_norm(parts, width)
        self.head = p.Linear(parts, width, config.num_classes)

    def forward(self, images):  # [B, in, H, W] -> [B, classes]
        x = self.stage1_conv_embed(images)
        for s in range(1, self.stages):
            x = getattr(self, f"merge{s}")(getattr(self, f"stage{s}")(x))
        x = getattr(self, f"stage{self.stages}")(x)
        return self.head(self.norm(x).mean((1, 2)))


PLAIN = p.Parts()
LIPSFORMER = p.Parts(norm="center", attention="cosine", tau=12.0, residual="weighted", alpha=0.2)

SMALL = dict(depths=(2, 4, 32, 2))
BASE = dict(depths=(2, 4, 32, 2), embed_dim=96, num_heads=(4, 8, 16, 32))
LARGE = dict(depths=(2, 4, 32, 2), embed_dim=144, num_heads=(6, 12, 24, 24))

# name, what differs from Tiny, CSwin's parameters, LipsFormer-CSwin's with those that it never uses, and how many these are
PUBLISHED = [
    ("CSwin-T", {}, 22_320_552, (23_780_136, 12_416)),
    ("CSwin-S", SMALL, 34_643_304, (37_505_832, 19_712)),
    ("CSwin-B", BASE, 77_382_184, (83_052_232, 29_568)),
    ("CSwin-L", LARGE, 173_262_664, None),
]

# of Tiny: the stem, a block of each stage, the merges, the last norm and the head; LipsFormer's with 2C unused a block
PUBLISHED_PARTS = {
    False: [9_600, 50_624, 199_552, 792_320, 3_157_504, 74_112, 295_680, 1_181_184, 1_024, 513_000],
    True: [3_264, 61_440, 229_376, 884_736, 3_473_408, 33_152, 131_840, 525_824, 0, 513_000],
}
LIPSFORMER_DECAYED = (23_645_888, 134_248)  # of Tiny, the unused ones among the second


def unused(config):
    return sum(2 * (config.embed_dim << s) * depth for s, depth in enumerate(config.depths))


def counts():
    for name, changes, plain, lipsformer in PUBLISHED:
        config = replace(Config(), **changes)
        yield name, "parameters", twins.size(CSwin(config, PLAIN)), plain
        if lipsformer:
            model = CSwin(replace(config, conv_branches=True), LIPSFORMER)
            yield "LipsFormer-" + name, "parameters in use", twins.size(model), lipsformer[0] - lipsformer[1]
            yield "LipsFormer-" + name, "with the norms never applied", twins.size(model) + unused(config), lipsformer[0]
    for conv_branches, want in PUBLISHED_PARTS.items():
        config = replace(Config(), conv_branches=conv_branches)
        model = CSwin(config, LIPSFORMER if conv_branches else PLAIN)
        name = "LipsFormer-CSwin-T" if conv_branches else "CSwin-T"
        dead = [2 * (config.embed_dim << s) * conv_branches for s in range(4)]
        got = [twins.size(model.stage1_conv_embed)]
        got += [twins.size(getattr(model, f"stage{s + 1}")[0]) + dead[s] for s in range(4)]
        got += [twins.size(getattr(model, f"merge{s + 1}")) for s in range(3)]
        got += [twins.size(model.norm), twins.size(model.head)]
        names = ["stem"] + [f"block of stage {s}" for s in range(1, 5)] + [f"merge after stage {s}" for s in range(1, 4)]
        yield from zip([name] * 10, names + ["last norm", "head"], got, want)
        if conv_branches:
            decayed = sum(w.numel() for w in model.parameters() if w.dim() >= 2)
            yield name, "decayed", decayed, LIPSFORMER_DECAYED[0]
            yield name, "low decay", twins.size(model) - decayed + unused(config), LIPSFORMER_DECAYED[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twin of CSwin and LipsFormer-CSwin")
    parser.add_argument("--counts", action="store_true", help="check the parameter counts of the published models")
    if parser.parse_args().counts:
        sys.exit(p.print_counts(counts()) != 0)
    parser.print_help()
