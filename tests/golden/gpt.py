# PyTorch twin of the decoder-only Transformer of the enforced-Lipschitz paper; `--counts` checks its two sizes.
#
# Parameter names, with B a block, D the width and V the vocabulary:
#   embed.weight [V, D]
#   blocks.B.attn.q_proj.weight, k_proj, v_proj, proj [D, D]       heads one after the other; rotary positions on q and k
#   blocks.B.mlp.fc1.weight [rD, D]     mlp.fc2.weight [D, rD]
#   head.weight [V, D]
# Norms, if there are any, are blocks.B.norm1 and norm2 and, before the head, norm. With bias, every linear map has one.
import argparse
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
    family: str = "gpt"
    vocab_size: int = 65
    context: int = 256
    embed_dim: int = 256
    depths: tuple = (3,)
    num_heads: tuple = (4,)
    mlp_ratio: float = 4.0
    bias: bool = False


class Embedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.vocab_size, config.embed_dim))

    def forward(self, tokens):
        return F.embedding(tokens, self.weight)


class Gpt(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        width, (depth,), (heads,) = config.embed_dim, config.depths, config.num_heads
        self.embed = Embedding(config)
        self.blocks = nn.Sequential(*(
            p.Block(parts, width, heads, int(width * config.mlp_ratio), depth, config.bias, config.bias, causal=True)
            for _ in range(depth)))
        self.norm = p.make_norm(parts, width)
        self.head = p.Linear(parts, width, config.vocab_size, config.bias)

    def forward(self, tokens):  # [B, T] -> [B, T, V]
        return self.head(self.norm(self.blocks(self.embed(tokens))))


ENFORCED = p.Parts(norm="none", attention="dot_mup", residual="convex", activation="gelu_scaled", qkv="separate")


def counts():
    shakespeare = Gpt(Config(), ENFORCED)
    yield "GPT, Shakespeare", "parameters", twins.size(shakespeare), 3 * 12 * 256 ** 2 + 2 * 65 * 256
    large = Gpt(replace(Config(), vocab_size=50304, context=1024, embed_dim=768, depths=(12,), num_heads=(6,)), ENFORCED)
    yield "GPT, FineWeb", "parameters", twins.size(large), 162_201_600
    yield "GPT, FineWeb", "blocks", twins.size(large.blocks), 84_934_656


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twin of the decoder-only Transformer")
    parser.add_argument("--counts", action="store_true", help="check the parameter counts of the paper's models")
    if parser.parse_args().counts:
        sys.exit(p.print_counts(counts()) != 0)
    parser.print_help()
