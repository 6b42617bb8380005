# PyTorch twins of the Swin family (Swin, LipsFormer-Swin and every mix of their parts); `--counts` checks their sizes.
#
# Parameter names are those of the original Swin and LipsFormer repositories, with S a stage and B a block:
#
#   patch_embed.proj.weight [C, in, P, P], .bias [C]       patch_embed.norm.weight, .bias [C]
#   layers.S.blocks.B.dwconv_layers.0.weight [C, 1, 7, 7], .bias [C]       first conv branch, depthwise 7x7
#   layers.S.blocks.B.nin.weight [C, C, 1, 1], .bias [C]                   first conv branch, pointwise
#   layers.S.blocks.B.dwconv_layers.1.weight [C, 1, 7, 7], .bias [C]       second conv branch, depthwise 7x7
#   layers.S.blocks.B.scale_layers.0.scale, scale_layers.1.scale [C]       residual alpha of the two conv branches
#   layers.S.blocks.B.alpha1.scale, alpha2.scale [C]                       residual alpha of attention and of the MLP
#   layers.S.blocks.B.norm1.weight, .bias [C]              norm2 alike
#   layers.S.blocks.B.attn.qkv.weight [3C, C], .bias [3C]  rows ordered q, k, v; inside each head by head
#   layers.S.blocks.B.attn.relative_position_bias_table [(2w-1)^2, heads]
#   layers.S.blocks.B.attn.proj.weight [C, C], .bias [C]
#   layers.S.blocks.B.mlp.fc1.weight [rC, C], .bias [rC]   mlp.fc2.weight [C, rC], .bias [C]
#   layers.S.downsample.norm.weight, .bias [4C]            at the END of stage S, not in the last one
#   layers.S.downsample.reduction.weight [2C, 4C]          no bias
#   norm.weight, .bias [C of the last stage]               head.weight [classes, C], .bias [classes]
#
# Plain residuals have no scales; a block without conv branches has no dwconv_layers, nin or scale_layers. tau and nu
# are fixed numbers. The window w of a stage is clamped to its feature map, and such a stage never shifts.
import argparse
import sys
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    """One model, in recipe keys."""
    family: str = "swin"
    img_size: int = 224
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 96
    depths: tuple = (2, 2, 6, 2)
    num_heads: tuple = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    shift_windows: bool = True
    norm_position: str = "pre"  # pre | post (after the residual sum)
    conv_branches: bool = False
    norm: str = "layer"  # layer | center
    attention: str = "dot"  # dot | cosine | cosine_bounded
    tau: float = 10.0
    nu: float = 1.0
    attention_eps: float = 1e-12  # cosine clamps the norm at it; cosine_bounded adds it inside the root
    residual: str = "plain"  # plain | weighted
    alpha: float = 1.0  # what every weighted residual scale starts from
    norm_eps: float = 1e-5  # LayerNorm only

    def flat(self):
        """Every value as the string a recipe would hold."""
        def text(value):
            if isinstance(value, bool):
                return "true" if value else "false"
            if isinstance(value, tuple):
                return "[" + ", ".join(str(v) for v in value) + "]"
            return str(value)
        return {key: text(value) for key, value in asdict(self).items()}


def swin(**changes):
    return replace(Config(), **changes)


def lipsformer(**changes):
    """LipsFormer-Swin as released; alpha starts at one over the number of blocks."""
    config = Config(shift_windows=False, norm_position="post", conv_branches=True, norm="center",
                    attention="cosine", residual="weighted")
    config = replace(config, **changes)
    return replace(config, alpha=1.0 / sum(config.depths))


def center_norm(x, weight, bias):
    width = x.shape[-1]
    centred = x - x.mean(-1, keepdim=True)
    return weight * (width / (width - 1) * centred) + bias


class CenterNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return center_norm(x, self.weight, self.bias)


def make_norm(config, width):
    return CenterNorm(width) if config.norm == "center" else nn.LayerNorm(width, eps=config.norm_eps)


class Scale(nn.Module):
    """Multiplies every channel by its own residual scale; with none, by nothing."""
    def __init__(self, config, width):
        super().__init__()
        self.weighted = config.residual == "weighted"
        if self.weighted:
            self.scale = nn.Parameter(torch.full((width,), config.alpha))

    def forward(self, branch):
        return self.scale * branch if self.weighted else branch


def relative_position_index(window):
    """[window^2, window^2]: the row of the bias table that query i and key j share."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    return rows * (2 * window - 1) + columns


def split_windows(x, window):
    """[B, H, W, C] -> [B, windows, window^2, C], windows and tokens row-major."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.transpose(2, 3).reshape(b, -1, window * window, c)


def join_windows(x, window, height, width):
    b, _, _, c = x.shape
    x = x.view(b, height // window, width // window, window, window, c)
    return x.transpose(2, 3).reshape(b, height, width, c)


def shift_mask(height, width, window, shift):
    """[windows, N, N]: -100 between tokens that only the roll has made neighbours."""
    def regions(side):
        region = torch.zeros(side)
        region[side - window:side - shift] = 1
        region[side - shift:] = 2
        return region
    label = 3 * regions(height)[:, None] + regions(width)[None, :]
    label = split_windows(label[None, :, :, None], window)[0, :, :, 0]
    return -100.0 * (label[:, :, None] != label[:, None, :])


def attend(q, k, v, bias, kind, tau, nu, eps):
    """softmax(logits + bias) v for q, k, v [..., N, d]; returns the output and the softmax's entropies [..., N]."""
    if kind == "dot":
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    elif kind == "cosine":
        q, k = (u / u.norm(dim=-1, keepdim=True).clamp_min(eps) for u in (q, k))
        logits = tau * (q @ k.transpose(-2, -1))
    elif kind == "cosine_bounded":
        q, k, v = (u / (u.square().sum(-1, keepdim=True) + eps).sqrt() for u in (q, k, v))
        v = nu * v
        logits = tau * (q @ k.transpose(-2, -1))
    else:
        raise ValueError(f"unknown attention {kind}")
    log_p = (logits + bias).log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p).detach().sum(-1)
    return p @ v, entropy


def window_attention(qkv, table, index, mask, heads, window, shift, kind, tau, nu, eps):
    """qkv [B, H, W, 3C] -> [B, H, W, C] and the mean entropy in nats of each head over batch, windows and queries."""
    _, height, width, c3 = qkv.shape
    c = c3 // 3
    if shift:
        qkv = qkv.roll((-shift, -shift), (1, 2))
    windows = split_windows(qkv, window)  # [B, windows, N, 3C]
    b, count, n, _ = windows.shape
    parts = windows.view(b, count, n, 3, heads, c // heads)
    q, k, v = parts.permute(3, 0, 1, 4, 2, 5)  # each [B, windows, heads, N, d]
    bias = table[index].permute(2, 0, 1)  # [heads, N, N]
    if mask is not None:
        bias = bias + mask.to(bias.dtype)[:, None]  # [windows, heads, N, N]
    out, entropy = attend(q, k, v, bias, kind, tau, nu, eps)
    out = join_windows(out.transpose(2, 3).reshape(b, count, n, c), window, height, width)
    if shift:
        out = out.roll((shift, shift), (1, 2))
    return out, entropy.mean((0, 1, 3))


class WindowAttention(nn.Module):
    def __init__(self, config, width, heads, side, shifted):
        super().__init__()
        self.config, self.heads = config, heads
        self.window = min(config.window_size, side)
        self.shift = self.window // 2 if shifted and side > config.window_size else 0
        self.qkv = nn.Linear(width, 3 * width)
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * self.window - 1) ** 2, heads))
        self.proj = nn.Linear(width, width)
        mask = shift_mask(side, side, self.window, self.shift) if self.shift else None
        self.register_buffer("index", relative_position_index(self.window), persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.entropy = None  # [heads], of the last forward

    def forward(self, x):
        config = self.config
        out, self.entropy = window_attention(
            self.qkv(x), self.relative_position_bias_table, self.index, self.mask, self.heads, self.window,
            self.shift, config.attention, config.tau, config.nu, config.attention_eps)
        return self.proj(out)


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config, width, heads, side, shifted):
        super().__init__()
        self.conv_branches = config.conv_branches
        self.pre = config.norm_position == "pre"
        if config.conv_branches:
            self.dwconv_layers = nn.ModuleList(
                nn.Conv2d(width, width, 7, padding=3, groups=width) for _ in range(2))
            self.nin = nn.Conv2d(width, width, 1)
            self.scale_layers = nn.ModuleList(Scale(config, width) for _ in range(2))
        self.norm1 = make_norm(config, width)
        self.attn = WindowAttention(config, width, heads, side, shifted)
        self.alpha1 = Scale(config, width)
        self.norm2 = make_norm(config, width)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.alpha2 = Scale(config, width)

    def forward(self, x):  # [B, H, W, C]
        if self.conv_branches:
            u = F.gelu(self.nin(F.gelu(self.dwconv_layers[0](x.permute(0, 3, 1, 2)))))
            x = x + self.scale_layers[0](u.permute(0, 2, 3, 1))
            u = F.gelu(self.dwconv_layers[1](x.permute(0, 3, 1, 2)))
            x = x + self.scale_layers[1](u.permute(0, 2, 3, 1))
        if self.pre:
            x = x + self.alpha1(self.attn(self.norm1(x)))
            return x + self.alpha2(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.alpha1(self.attn(x)))
        return self.norm2(x + self.alpha2(self.mlp(x)))


def space_to_depth(x):
    """[B, H, W, C] -> [B, H/2, W/2, 4C], phases in the order (row, column) = (0,0), (1,0), (0,1), (1,1)."""
    return torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)


class PatchMerging(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        self.norm = make_norm(config, 4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x):
        return self.reduction(self.norm(space_to_depth(x)))


class PatchEmbed(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.proj = nn.Conv2d(config.in_chans, config.embed_dim, config.patch_size, config.patch_size)
        self.norm = make_norm(config, config.embed_dim)

    def forward(self, images):  # [B, in, H, W] -> [B, H/P, W/P, C]
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Stage(nn.Module):
    def __init__(self, config, stage):
        super().__init__()
        width = config.embed_dim << stage
        side = (config.img_size // config.patch_size) >> stage
        self.blocks = nn.ModuleList(
            Block(config, width, config.num_heads[stage], side, config.shift_windows and i % 2 == 1)
            for i in range(config.depths[stage]))
        last = stage + 1 == len(config.depths)
        self.downsample = None if last else PatchMerging(config, width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class SwinBackbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.embed_dim << (len(config.depths) - 1)
        self.patch_embed = PatchEmbed(config)
        self.layers = nn.ModuleList(Stage(config, s) for s in range(len(config.depths)))
        self.norm = make_norm(config, width)
        self.head = nn.Linear(width, config.num_classes)

    def forward(self, images):  # [B, in, H, W] -> [B, classes]
        x = self.patch_embed(images)
        for stage in self.layers:
            x = stage(x)
        return self.head(self.norm(x).mean((1, 2)))

    def entropies(self):
        """Name of each attention layer -> [heads], of the last forward."""
        return {name: m.entropy for name, m in self.named_modules() if isinstance(m, WindowAttention)}


def soft_cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def is_decayed(name, parameter):
    """Full weight decay: matrices and kernels. Low decay: 1-D tensors and relative position bias tables."""
    return parameter.dim() >= 2 and not name.endswith("relative_position_bias_table")


def make_adamw(model, lr, betas, eps, weight_decay, low_weight_decay):
    named = list(model.named_parameters())
    groups = [{"params": [p for n, p in named if is_decayed(n, p)], "weight_decay": weight_decay},
              {"params": [p for n, p in named if not is_decayed(n, p)], "weight_decay": low_weight_decay}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


SMALL = dict(depths=(2, 2, 18, 2))
BASE = dict(depths=(2, 2, 18, 2), embed_dim=128, num_heads=(4, 8, 16, 32))
LARGE = dict(depths=(2, 2, 18, 2), embed_dim=192, num_heads=(6, 12, 24, 48))

# name, config, published parameters, (decayed, low-decay) parameters where known
PUBLISHED = [
    ("Swin-T", swin(), 28_288_354, (28_199_424, 88_930)),
    ("Swin-S", swin(**SMALL), 49_606_258, None),
    ("Swin-B", swin(**BASE), 87_768_224, None),
    ("Swin-L", swin(**LARGE), 196_532_476, None),
    ("LipsFormer-Swin-T", lipsformer(), 30_908_578, (30_788_736, 119_842)),
    ("LipsFormer-Swin-T 2-2-5-2", lipsformer(depths=(2, 2, 5, 2)), 28_944_310, None),
    ("LipsFormer-Swin-S", lipsformer(**SMALL), 54_479_794, (54_243_456, 236_338)),
    ("LipsFormer-Swin-B", lipsformer(**BASE), 96_011_168, (95_696_384, 314_784)),
    ("LipsFormer-Swin-L", lipsformer(**LARGE), 214_131_580, None),
]

# parameters of one block in each stage, then of stem, merges, final norm and head
PUBLISHED_PARTS = {
    "Swin-T": [112_347, 445_878, 1_776_492, 7_091_928, 4_896, 74_496, 296_448, 1_182_720, 1_536, 769_000],
    "LipsFormer-Swin-T": [131_643, 502_902, 1_964_268, 7_762_392, 4_896, 74_496, 296_448, 1_182_720, 1_536, 769_000],
    "Swin-B": [198_948, 791_112, 3_155_088, 12_601_632, 6_528, 132_096, 526_336, 2_101_248, 2_048, 1_025_000],
    "LipsFormer-Swin-B": [228_772, 883_528, 3_470_992, 13_757_728, 6_528, 132_096, 526_336, 2_101_248, 2_048,
                          1_025_000],
}


def size(module):
    return sum(p.numel() for p in module.parameters())


def print_counts():
    """Builds every published model and says which counts differ; returns how many do."""
    wrong = 0

    def line(name, what, got, want):
        nonlocal wrong
        wrong += got != want
        verdict = "equal" if got == want else f"DIFFERS from {want:,}"
        print(f"{name:28} {what:24} {got:>12,}  {verdict}")

    for name, config, parameters, groups in PUBLISHED:
        model = SwinBackbone(config)
        line(name, "parameters", size(model), parameters)
        if groups:
            decayed = sum(p.numel() for n, p in model.named_parameters() if is_decayed(n, p))
            line(name, "decayed", decayed, groups[0])
            line(name, "low decay", size(model) - decayed, groups[1])
        if name in PUBLISHED_PARTS:
            stages = model.layers
            parts = [(f"block of stage {s}", stages[s].blocks[0]) for s in range(4)]
            parts += [("stem", model.patch_embed)]
            parts += [(f"merge after stage {s}", stages[s].downsample) for s in range(3)]
            parts += [("final norm", model.norm), ("head", model.head)]
            for (what, module), want in zip(parts, PUBLISHED_PARTS[name]):
                line(name, what, size(module), want)
    print(f"{wrong} counts differ")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twins of the Swin family")
    parser.add_argument("--counts", action="store_true", help="check the parameter counts of the published models")
    if parser.parse_args().counts:
        sys.exit(print_counts() != 0)
    parser.print_help()
