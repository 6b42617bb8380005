# PyTorch twin of ViT and DeiT; `--counts` checks the sizes of the published models, with and without sigma-Reparam.
#
# Parameter names are timm's, with B a block and D the width:
#   cls_token [1, 1, D]     pos_embed [1, N + 1, D]     patch_embed.proj.weight [D, in, P, P], .bias [D]
#   blocks.B.norm1.weight, .bias [D]                    norm2 and the last norm alike
#   blocks.B.attn.qkv.weight [3D, D], .bias [3D]        rows ordered q, k, v; separate: attn.q_proj, k_proj, v_proj [D, D]
#   blocks.B.attn.proj.weight [D, D], .bias [D]
#   blocks.B.mlp.fc1.weight [rD, D], .bias [rD]         mlp.fc2.weight [D, rD], .bias [D]
#   norm.weight, .bias [D]                              head.weight [classes, D], .bias [classes]
import argparse
import sys
from dataclasses import dataclass, replace

import torch
from torch import nn

import parts as p
import twins


@dataclass(frozen=True)
class Config:
    """The recipe's section [model]."""
    family: str = "vit"
    img_size: int = 224
    patch_size: int = 16
    in_chans: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depths: tuple = (12,)
    num_heads: tuple = (12,)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_position: str = "pre"  # pre | post (after each sum, and then there is no last norm)
    bias: bool = True  # of every other linear map and of the patch convolution; false leaves qkv without one, too


class PatchEmbed(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        self.proj = p.Conv(parts, config.in_chans, config.embed_dim, config.patch_size, config.patch_size, bias=config.bias)

    def forward(self, images):  # [B, in, H, W] -> [B, N, D]
        return self.proj(images).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        width, (depth,), (heads,) = config.embed_dim, config.depths, config.num_heads
        tokens, post = (config.img_size // config.patch_size) ** 2, config.norm_position == "post"
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.patch_embed = PatchEmbed(config, parts)
        self.blocks = nn.Sequential(*(
            p.Block(parts, width, heads, int(width * config.mlp_ratio), depth, config.qkv_bias and config.bias, config.bias,
                    post=post) for _ in range(depth)))
        self.norm = nn.Identity() if post else p.make_norm(parts, width)
        self.head = p.Linear(parts, width, config.num_classes, config.bias)

    def forward(self, images):  # [B, in, H, W] -> [B, classes]
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


def config(width, depth, heads, patch=16):
    return replace(Config(), embed_dim=width, depths=(depth,), num_heads=(heads,), patch_size=patch)


LAYER = p.Parts(norm_eps=1e-6)
SIGMA_REPARAM = p.Parts(norm="none", weight="sigma_reparam")

# name, config, parameters, the same with sigma-Reparam and no norms where known
PUBLISHED = [
    ("ViT-Ti/16", config(192, 12, 3), 5_717_416, 5_707_866),
    ("ViT-S/16", config(384, 12, 6), 22_050_664, 22_031_514),
    ("ViT-S/32", config(384, 12, 6, 32), 22_878_952, None),
    ("ViT-B/16", config(768, 12, 12), 86_567_656, 86_529_306),
    ("ViT-B/32", config(768, 12, 12, 32), 88_224_232, None),
    ("ViT-L/16", config(1024, 24, 16), 304_326_632, 304_226_378),
    ("ViT-H/14", config(1280, 32, 16, 14), 632_045_800, 631_879_530),
]


def counts():
    for name, model, plain, reparametrised in PUBLISHED:
        yield name, "parameters", twins.size(Vit(model, LAYER)), plain
        if reparametrised:
            yield name, "with sigma_reparam, no norms", twins.size(Vit(model, SIGMA_REPARAM)), reparametrised


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twin of ViT")
    parser.add_argument("--counts", action="store_true", help="check the parameter counts of the published models")
    if parser.parse_args().counts:
        sys.exit(p.print_counts(counts()) != 0)
    parser.print_help()
