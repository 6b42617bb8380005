# PyTorch twin of T2T-ViT with performer token layers; `--counts` checks its size and that of each part.
#
# Parameter names are those of the original T2T-ViT repository, with e the token width, d = in * 49 or e * 9, D the width:
#   tokens_to_token.attention1.norm1.weight, .bias [d]     attention2 alike
#   tokens_to_token.attention1.kqv.weight [3e, d], .bias [3e]      rows ordered k, q, v
#   tokens_to_token.attention1.w [e/2, e]                  the random features, never trained: a buffer here
#   tokens_to_token.attention1.proj.weight [e, e], .bias [e]
#   tokens_to_token.attention1.norm2.weight, .bias [e]
#   tokens_to_token.attention1.mlp.0.weight [e, e], .bias [e]      mlp.2 alike
#   tokens_to_token.project.weight [D, e * 9], .bias [D]
#   cls_token [1, 1, D]     pos_embed [1, N + 1, D]        sines, never trained: a buffer here
#   blocks.B.*, norm.*, head.*                             as in vit.py; qkv has no bias
# The dropouts of the token layers are off.
import argparse
import sys
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

import parts as p
import twins


@dataclass(frozen=True)
class Config:
    """The recipe's section [model]."""
    family: str = "t2t_vit"
    img_size: int = 224
    patch_size: int = 16  # what three soft splits of stride 4, 2, 2 come to: no other works
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 384
    depths: tuple = (14,)
    num_heads: tuple = (6,)
    mlp_ratio: float = 3.0
    qkv_bias: bool = False  # of the blocks
    token_dim: int = 64


def sines(count, width):
    """[1, count, width]: sines at even, cosines at odd channels."""
    position, channel = torch.arange(count, dtype=torch.float64)[:, None], torch.arange(width)
    angle = position / 10000.0 ** (2 * channel.div(2, rounding_mode="floor") / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())[None]


def features(x, w):
    """phi(x) [..., m] = exp(x w^T - |x|^2 / 2) / sqrt(m)"""
    return (x @ w.t() - x.square().sum(-1, keepdim=True) / 2).exp() / len(w) ** 0.5


class TokenLayer(nn.Module):
    def __init__(self, parts, width, token_dim):
        super().__init__()
        self.parts = parts
        self.norm1 = p.make_norm(parts, width)
        self.kqv = p.Linear(parts, width, 3 * token_dim)
        self.register_buffer("w", torch.zeros(token_dim // 2, token_dim))
        self.proj = p.Linear(parts, token_dim, token_dim)
        self.norm2 = p.make_norm(parts, token_dim)
        self.mlp = nn.Sequential(p.Linear(parts, token_dim, token_dim), nn.GELU(), p.Linear(parts, token_dim, token_dim))

    def forward(self, x):  # [B, T, d] -> [B, T, e]
        k, q, v = self.kqv(self.norm1(x)).chunk(3, -1)
        k, q = features(k, self.w), features(q, self.w)
        numerator = q @ (k.transpose(1, 2) @ v)
        denominator = (q * k.sum(1, keepdim=True)).sum(-1, keepdim=True)
        y = v + self.proj(numerator / (denominator + 1e-8))
        return y + self.mlp(self.norm2(y))


class TokensToToken(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        e = config.token_dim
        self.attention1 = TokenLayer(parts, config.in_chans * 49, e)
        self.attention2 = TokenLayer(parts, e * 9, e)
        self.project = p.Linear(parts, e * 9, config.embed_dim)

    def forward(self, images):
        x = F.unfold(images, 7, stride=4, padding=2).transpose(1, 2)
        side = images.shape[-1] // 4
        for attention in (self.attention1, self.attention2):
            x = attention(x).transpose(1, 2).unflatten(2, (side, side))
            x = F.unfold(x, 3, stride=2, padding=1).transpose(1, 2)
            side //= 2
        return self.project(x)  # [B, N, D]


class T2tVit(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        width, (depth,), (heads,) = config.embed_dim, config.depths, config.num_heads
        self.tokens_to_token = TokensToToken(config, parts)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sines((config.img_size // 16) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(
            p.Block(parts, width, heads, int(width * config.mlp_ratio), depth, config.qkv_bias) for _ in range(depth)))
        self.norm = p.make_norm(parts, width)
        self.head = p.Linear(parts, width, config.num_classes)

    def forward(self, images):  # [B, in, H, W] -> [B, classes]
        x = self.tokens_to_token(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


LAYER = p.Parts()


def counts():
    model = T2tVit(Config(), LAYER)
    token = model.tokens_to_token
    frozen = sum(b.numel() for b in model.buffers())
    layers = [token.attention1, token.attention2]
    yield "T2T-ViT-14", "parameters, frozen ones too", twins.size(model) + frozen, 21_545_550
    yield "T2T-ViT-14", "trained", twins.size(model), 21_465_806
    for i, want in enumerate((43_366, 126_592)):
        yield "T2T-ViT-14", f"token layer {i + 1}", twins.size(layers[i]) + layers[i].w.numel(), want
    yield "T2T-ViT-14", "projection", twins.size(token.project), 221_568
    yield "T2T-ViT-14", "class token", model.cls_token.numel(), 384
    yield "T2T-ViT-14", "positions, frozen", model.pos_embed.numel(), 75_648
    yield "T2T-ViT-14", "block", twins.size(model.blocks[0]), 1_478_016
    yield "T2T-ViT-14", "last norm", twins.size(model.norm), 768
    yield "T2T-ViT-14", "head", twins.size(model.head), 385_000
    norms = [m.weight.numel() for m in model.modules() if isinstance(m, nn.LayerNorm)]
    yield "T2T-ViT-14", "norms", len(norms), 33
    yield "T2T-ViT-14", "channels of all norms", sum(norms), 11_987


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twin of T2T-ViT")
    parser.add_argument("--counts", action="store_true", help="check the parameter counts of T2T-ViT-14")
    if parser.parse_args().counts:
        sys.exit(p.print_counts(counts()) != 0)
    parser.print_help()
