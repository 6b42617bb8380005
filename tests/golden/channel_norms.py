# PyTorch twins of the norms whose statistics run over the batch: batch, moving average batch (MABN), power (PN), unified (UN).
#
# Rows are all tokens of all samples, statistics are those of a channel. Buffers have the released names: running_var (for
# all but batch norm a second moment; PN calls it phi), ema_gz, buffer_x2, buffer_gz, iters, skip_counter; batch norm has
# running_mean beside running_var, and both are torch's. `--check` holds them against traces of the released code.
import argparse
import math
import sys

import torch
from torch import nn
from torch.nn import functional as F


class Smoothed(torch.autograd.Function):
    """weight * norm.normalise(x) + bias, with the backward that the norm states: it is not the forward's derivative."""

    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        z, ctx.saved = norm.normalise(x)
        ctx.norm, ctx.weight = norm, weight
        return weight * z + bias

    @staticmethod
    def backward(ctx, dy):
        return (*ctx.norm.backward_rows(dy, ctx.weight, *ctx.saved), None)


class ChannelNorm(nn.Module):
    """Evaluation is weight * x / sqrt(running_var + eps) + bias for all of them but batch norm."""

    def __init__(self, parts, width):
        super().__init__()
        self.eps, self.alpha = parts.norm_eps, parts.norm_alpha
        self.window, self.warmup, self.filter = parts.norm_window, parts.norm_warmup, parts.norm_filter
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def add_buffers(self, width, windows=False, ema_gz=False, skip_counter=False):
        if ema_gz:
            self.register_buffer("ema_gz", torch.zeros(width))
        if windows:
            self.register_buffer("buffer_x2", torch.zeros(self.window, width))
            self.register_buffer("buffer_gz", torch.zeros(self.window, width))
        self.register_buffer("iters", torch.zeros(1, dtype=torch.int64))
        if skip_counter:
            self.register_buffer("skip_counter", torch.zeros(1, dtype=torch.int64))

    def smooth(self, average, value):
        average.copy_(self.alpha * average + (1 - self.alpha) * value)

    def forward(self, x):
        if not self.training:
            return self.weight * x / (self.running_var + self.eps).sqrt() + self.bias
        y = Smoothed.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias, self)
        return y.view(x.shape)

    def correction(self, v, t):
        """The clipped ratio of this step's scale to the running one; 1 in the first thousand steps."""
        if t <= max(1000, self.warmup):
            return torch.ones_like(v)
        return ((v + self.eps).sqrt() / (self.running_var + self.eps).sqrt()).clamp(0.2, 5.0)


class Batch(ChannelNorm):
    def __init__(self, parts, width):
        super().__init__(parts, width)
        self.register_buffer("running_mean", torch.zeros(width))
        self.add_buffers(width)

    def forward(self, x):
        self.iters += self.training
        y = F.batch_norm(x.reshape(-1, x.shape[-1]), self.running_mean, self.running_var, self.weight, self.bias,
                         self.training, 1 - self.alpha, self.eps)
        return y.view(x.shape)


class MovingAverageBatch(ChannelNorm):
    def __init__(self, parts, width):
        super().__init__(parts, width)
        self.add_buffers(width, windows=True)

    def normalise(self, x):  # [R, C]
        self.iters += 1
        t = int(self.iters)
        q = x.square().mean(0)
        self.buffer_x2[t % self.window] = q
        early = t <= self.window or t < self.warmup
        v = q if early else self.buffer_x2.mean(0)
        r = self.correction(v, t)
        z = x / (v + self.eps).sqrt()
        self.smooth(self.running_var, v)
        return r * z, (z, v, r, t, early)

    def backward_rows(self, dy, weight, z, v, r, t, early):
        g = weight * r * dy
        h = (g * z).mean(0)
        self.buffer_gz[t % self.window] = h
        mean = h if early else self.buffer_gz.mean(0)
        return (g - mean * z) / (v + self.eps).sqrt(), (dy * r * z).sum(0), dy.sum(0)


class Power(ChannelNorm):
    """Without the online pre-scale a token."""

    def __init__(self, parts, width):
        super().__init__(parts, width)
        self.add_buffers(width, ema_gz=True)

    def normalise(self, x):  # [R, C]
        self.iters += 1
        t = int(self.iters)
        q = x.square().mean(0)
        phi = self.running_var
        z = x / ((q if t <= self.warmup else phi) + self.eps).sqrt()
        if t < self.warmup:
            phi.copy_(phi * (t - 1) / t + q / t)
        self.smooth(phi, q)
        return z, (z, q)

    def backward_rows(self, dy, weight, z, q):
        a = weight * dy - (1 - self.alpha) * self.ema_gz * z
        self.ema_gz += (a * z).mean(0)
        return a / (q + self.eps).sqrt(), (dy * z).sum(0), dy.sum(0)


class Unified(ChannelNorm):
    def __init__(self, parts, width):
        super().__init__(parts, width)
        self.add_buffers(width, windows=True, ema_gz=True, skip_counter=True)
        self.margin = math.inf  # of the outlier decision, relative to the statistic: how far it was from the other one

    def is_outlier(self, threshold):
        """Whether any channel of the window has an arithmetic mean too far above its geometric one."""
        mean = self.buffer_x2.mean(0)
        worst = ((mean - self.geometric_mean() - threshold) / mean).max().item()
        self.margin = min(self.margin, abs(worst))
        return worst > 0

    def threshold(self):
        """Before the window takes its next entry: pooled as released, [1]; of each channel as in the paper, [C]."""
        roots = self.buffer_x2.sqrt()
        if self.filter == "per_channel":
            return self.window * roots.var(0, unbiased=False)
        return self.window * roots.var(unbiased=True)

    def geometric_mean(self):
        return self.buffer_x2.log().mean(0).exp()

    def normalise(self, x):  # [R, C]
        self.iters += 1
        t = int(self.iters)
        slot = t % self.window
        q = x.square().mean(0)
        threshold = self.threshold()
        self.buffer_x2[slot] = q
        skip = self.window <= 1
        if t >= self.warmup and self.filter != "none" and self.is_outlier(threshold):
            self.buffer_x2[slot] = self.running_var
            self.skip_counter += 1
            skip = True
        early = t <= self.window or t < self.warmup
        v = q if early or skip else self.geometric_mean()
        r = torch.ones_like(v) if skip else self.correction(v, t)
        z = x / (v + self.eps).sqrt()
        self.smooth(self.running_var, v)
        return z, (z, v, r, t, early, skip)

    def backward_rows(self, dy, weight, z, v, r, t, early, skip):
        g = weight * r * dy
        h = (g * z).mean(0)
        self.buffer_gz[t % self.window] = self.ema_gz if skip else h
        m = h if early or skip else self.buffer_gz.mean(0)
        self.smooth(self.ema_gz, m)
        psi = m if skip else self.ema_gz
        return (g - psi * z) / (v + self.eps).sqrt(), (dy * r * z).sum(0), dy.sum(0)


KINDS = {"batch": Batch, "moving_average_batch": MovingAverageBatch, "power": Power, "unified": Unified}

# method, window, warm-up, alpha, filter, then rows of what the released code gave: step, columns of two channels each.
TRACES = [
    ("unified", 3, 4, 0.9, "pooled", ("running_var", "ema_gz", "y", "dx", "dweight"), {
        1: (0.971749, 1.040371, 0.039579, 0.025170, 1.487634, 0.690155, 1.056388, 0.627125, 1.319310, 1.258518),
        4: (0.866860, 1.032591, 0.141574, 0.059293, 1.514783, -0.296918, 0.402479, 0.590856, 1.410943, 0.566054),
        7: (5.716641, 17.371117, 0.275791, 0.076848, 0.555677, -1.137391, -0.065362, 0.027797, 2.814308, 0.575686),
        11: (3.980779, 11.775286, 0.470281, 0.046961, -1.043275, -1.006882, -0.524497, -0.288747, 2.641141, -1.255166)}),
    ("unified", 3, 4, 0.9, "none", ("running_var", "ema_gz", "y", "dx", "dweight"), {
        7: (0.859625, 1.500391, 0.387831, 0.094989, 2.595581, -5.160357, -0.733417, 0.334381, 15.412972, 3.046337),
        1001: (0.502612, 1.192914, 0.454863, -0.023378, 0.112950, -1.120964, 0.888750, 0.577885, 1.809008, -1.686069),
        1003: (0.515746, 1.136290, 0.462891, -0.078040, -0.692213, -1.255121, 0.768433, 0.304076, 1.385815, -1.426614)}),
    ("moving_average_batch", 3, 4, 0.98, "none", ("running_var", "y", "dx", "dweight"), {
        1: (0.994350, 1.008074, 1.487634, 0.690155, 0.570101, 0.414377, 1.319310, 1.258518),
        7: (1.266928, 2.098617, 0.884481, -1.812601, -0.178204, 0.072662, 4.845034, 0.990357),
        1001: (0.510349, 1.159896, 0.114663, -1.218226, 0.868786, 0.250283, 1.770737, -1.696838)}),
    ("power", 3, 4, 0.9, "none", ("running_var", "ema_gz", "y", "dx", "dweight"), {
        1: (0.717491, 1.403710, 0.395793, 0.251704, 1.487634, 0.690155, 1.110420, 0.650764, 1.319310, 1.258518),
        6: (0.558616, 1.110186, 2.299320, 0.707307, 0.829288, -0.975234, -0.089847, 0.357700, 1.840790, 0.710950),
        8: (5.046665, 15.869378, -9.904511, -8.279799, 0.077290, -0.532066, -0.426146, -0.206575, 1.115886, 0.105844)}),
]


class TraceParts:
    """What a ChannelNorm asks of its parts."""

    def __init__(self, window, warmup, alpha, outliers):
        self.norm_eps, self.norm_window, self.norm_warmup, self.norm_alpha = 1e-5, window, warmup, alpha
        self.norm_filter = outliers


def trace_input(t):
    """x and dy [4, 2] of step t."""
    i, c = torch.arange(4, dtype=torch.float64)[:, None], torch.arange(2, dtype=torch.float64)[None]
    x = (1 + 0.5 * c) * (1 + 0.2 * (0.9 * t + c).sin()) * (0.7 * (i + 1) + 1.3 * c + 0.31 * t).sin()
    return x * (10 if t == 7 else 1), (0.5 * (i + 1) - 0.4 * c + 0.17 * t).cos()


def check():
    """Replays the traces; returns how many numbers differ."""
    wrong = 0
    for method, window, warmup, alpha, outliers, columns, rows in TRACES:
        norm = KINDS[method](TraceParts(window, warmup, alpha, outliers), 2).double()
        norm.weight.data = torch.tensor([1.2, 0.8], dtype=torch.float64)
        norm.bias.data = torch.tensor([0.1, -0.2], dtype=torch.float64)
        for t in range(1, max(rows) + 1):
            x, dy = trace_input(t)
            x.requires_grad_()
            norm.weight.grad = None
            y = norm(x)
            y.backward(dy)
            if t not in rows:
                continue
            found = {"y": y[0], "dx": x.grad[0], "dweight": norm.weight.grad, **dict(norm.named_buffers())}
            got = torch.cat([found[column].detach() for column in columns])
            want = torch.tensor(rows[t], dtype=torch.float64)
            off = ((got - want).abs() > 1e-5 * want.abs() + 2e-6).sum().item()
            wrong += off
            print(f"{method:22} filter {outliers:8} step {t:5}: {'equal' if not off else f'{off} numbers DIFFER'}")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twins of the norms over the batch")
    parser.add_argument("--check", action="store_true", help="hold them against traces of the released code")
    if parser.parse_args().check:
        sys.exit(check() != 0)
    parser.print_help()
