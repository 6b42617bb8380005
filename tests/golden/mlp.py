# PyTorch twin of the plain MLP; `--counts` checks the size of the one of the enforced-Lipschitz paper.
#
# Parameter names: layers.I.weight [out, in], layers.I.bias [out] unless bias is false. An image is flattened channel by
# channel, each row by row, as it lies in images [B, in, H, W].
import argparse
import sys
from dataclasses import dataclass

from torch import nn

import parts as p
import twins


@dataclass(frozen=True)
class Config:
    """The recipe's section [model]. depths: how many linear layers; embed_dim: the width of all but the last."""
    family: str = "mlp"
    img_size: int = 32
    in_chans: int = 3
    num_classes: int = 10
    embed_dim: int = 256
    depths: tuple = (3,)
    bias: bool = False


class PlainMlp(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        self.parts, (depth,) = parts, config.depths
        widths = [config.in_chans * config.img_size ** 2] + [config.embed_dim] * (depth - 1) + [config.num_classes]
        self.layers = nn.ModuleList(p.Linear(parts, i, o, config.bias) for i, o in zip(widths, widths[1:]))

    def forward(self, images):  # [B, in, H, W] -> [B, classes]
        x = images.flatten(1)
        for layer in self.layers[:-1]:
            x = p.activate(self.parts, layer(x))
        return self.layers[-1](x)


ENFORCED = p.Parts(norm="none", activation="relu")


def counts():
    yield "MLP 3072-256-256-10", "parameters", twins.size(PlainMlp(Config(), ENFORCED)), (3072 + 256 + 10) * 256


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twin of the plain MLP")
    parser.add_argument("--counts", action="store_true", help="check the parameter count of the paper's model")
    if parser.parse_args().counts:
        sys.exit(p.print_counts(counts()) != 0)
    parser.print_help()
