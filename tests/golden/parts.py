# The parts that every backbone's twin is built of: norms, weight parts, residuals, attention; and their recipe keys.
#
# Parameter names, beside those of the backbones:
#   NAME.weight [out, in] (a convolution [out, in, K, K]), NAME.bias [out]
#   NAME.gamma [1], buffer NAME.u [in]       sigma_reparam; spectral_norm has u alone. A convolution counts as [out, in*K*K]
#   NAME.gain [out]                          weight_norm
#   attn.q_norm.weight, attn.k_norm.weight [d]       qk_norm, over each head's d channels
#   alpha1.scale, alpha2.scale               [D] weighted and layer_scale, [1] rezero
#   alpha1.omega, alpha2.omega               [D] admin
import math
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional as F

import channel_norms
import twins


@dataclass(frozen=True)
class Parts:
    """The recipe's section [parts]."""
    norm: str = "layer"  # layer | rms | center | batch | moving_average_batch | power | unified | ball | none
    norm_eps: float = 1e-5
    norm_alpha: float = 0.9  # what a moving average keeps in a step
    norm_window: int = 4
    norm_warmup: int = 4000
    norm_filter: str = "none"  # none | pooled | per_channel
    attention: str = "dot"  # dot | dot_mup | cosine | cosine_bounded | l2
    attention_scale: float = 1.0  # dot_mup: logits are attention_scale / d * q k
    tau: float = 10.0
    nu: float = 1.0
    attention_eps: float = 1e-6
    temperature: float = 1.0  # every attention's logits are divided by it
    qk_norm: str = "none"  # none | layer | rms
    qkv: str = "fused"  # fused | separate; l2 ties q and k and has q_proj and v_proj
    residual: str = "plain"  # plain | weighted | layer_scale | rezero | convex | deepnorm | admin
    alpha: float = 0.0  # at the start; convex: for ever, and 0 is one over the number of branches
    weight: str = "plain"  # plain | sigma_reparam | spectral_norm | weight_norm
    gamma_init: str = "sigma"  # sigma | one
    activation: str = "gelu"  # gelu | gelu_scaled | relu

    def is_smoothed(self):
        return self.norm in channel_norms.KINDS

    def is_used(self, key):
        """Whether the part that this key belongs to is there: a recipe without it leaves the key out."""
        return {"norm_eps": self.norm in ("layer", "rms") or self.is_smoothed() or self.qk_norm != "none",
                "norm_alpha": self.is_smoothed(),
                "norm_window": self.norm in ("unified", "moving_average_batch"),
                "norm_warmup": self.is_smoothed() and self.norm != "batch",
                "norm_filter": self.norm == "unified",
                "attention_scale": self.attention == "dot_mup",
                "tau": self.attention.startswith("cosine"),
                "nu": self.attention == "cosine_bounded",
                "attention_eps": self.attention == "cosine_bounded",
                "alpha": self.alpha != 0,
                "gamma_init": self.weight == "sigma_reparam"}.get(key, True)


def text(value):
    """A value as a recipe would hold it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(v) for v in value) + "]"
    return str(value)


def recipe(config, parts):
    """"section.key" -> text, of a backbone's settings and its parts."""
    keys = {"model." + f.name: text(getattr(config, f.name)) for f in fields(config)}
    keys.update({"parts." + f.name: text(getattr(parts, f.name)) for f in fields(parts) if parts.is_used(f.name)})
    return keys


# --- norms -------------------------------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


class HeadLayerNorm(RMSNorm):
    """LayerNorm without a bias."""

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, None, self.eps)


class Ball(nn.Module):
    """The nearest point whose RMS is at most 1."""

    def forward(self, x):
        return x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(1.0)


def make_norm(parts, width):
    if parts.is_smoothed():
        return channel_norms.KINDS[parts.norm](parts, width)
    return {"layer": lambda: nn.LayerNorm(width, eps=parts.norm_eps), "rms": lambda: RMSNorm(width, parts.norm_eps),
            "center": lambda: twins.CenterNorm(width), "ball": Ball, "none": nn.Identity}[parts.norm]()


def replace_layer_norms(module, parts):
    """Puts the part's norm wherever the twin has a LayerNorm."""
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm):
            setattr(module, name, make_norm(parts, child.weight.numel()))
        else:
            replace_layer_norms(child, parts)
    return module


# --- weights -----------------------------------------------------------------------------------------------------------


def unit(x):
    return x / x.norm().clamp_min(1e-12)


class Weighted(nn.Module):
    """A weight and the part that stands between it and the map that it makes."""

    def __init__(self, parts, shape, bias):
        super().__init__()
        self.part = parts.weight
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        if self.part == "sigma_reparam":
            self.gamma = nn.Parameter(torch.ones(1))
        if self.part in ("sigma_reparam", "spectral_norm"):
            self.register_buffer("u", torch.zeros(self.weight[0].numel()))
            self.sigma = None  # of the last forward
        if self.part == "weight_norm":
            self.gain = nn.Parameter(torch.ones(shape[0]))

    def matrix(self):
        return self.weight.flatten(1)

    @torch.no_grad()
    def start(self):
        """u is the first right singular vector; its largest entry is positive, so that there is only one."""
        u = torch.linalg.svd(self.matrix(), full_matrices=False)[2][0]
        self.u.copy_(u * u[u.abs().argmax()].sign())

    def spectral_norm(self):
        """One power iteration from the stored u, which training moves on; the gradient flows through v^T W u only."""
        with torch.no_grad():
            v = unit(self.matrix() @ self.u)
            u = unit(self.matrix().t() @ v)
            if self.training:
                self.u.copy_(u)
        self.sigma = v @ self.matrix() @ u
        return self.sigma

    def effective(self):
        if self.part == "sigma_reparam":
            return self.gamma / self.spectral_norm() * self.weight
        if self.part == "spectral_norm":
            return self.weight / self.spectral_norm()
        if self.part == "weight_norm":
            rows = self.gain[:, None] * self.matrix() / self.matrix().norm(dim=1, keepdim=True)
            return rows.view(self.weight.shape)
        return self.weight


class Linear(Weighted):
    def __init__(self, parts, fan_in, fan_out, bias=True):
        super().__init__(parts, (fan_out, fan_in), bias)

    def forward(self, x):
        return F.linear(x, self.effective(), self.bias)


class Conv(Weighted):
    def __init__(self, parts, fan_in, fan_out, kernel, stride=1, padding=0, groups=1, bias=True):
        super().__init__(parts, (fan_out, fan_in // groups, kernel, kernel), bias)
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x):  # [B, in, H, W]
        return F.conv2d(x, self.effective(), self.bias, self.stride, self.padding, groups=self.groups)


# --- residuals and activations -----------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, parts, width, branches):
        super().__init__()
        self.share = (parts.alpha or 1.0 / branches) if parts.residual == "convex" else None
        scales = {"weighted": width, "layer_scale": width, "rezero": 1}
        if parts.residual in scales:
            self.scale = nn.Parameter(torch.full((scales[parts.residual],), parts.alpha))
        self.scaled = parts.residual in scales
        self.skip = branches ** 0.25 if parts.residual == "deepnorm" else 1.0
        if parts.residual == "admin":
            self.omega = nn.Parameter(torch.ones(width))
            self.skip = self.omega

    def forward(self, x, branch):
        if self.share is not None:
            return (1 - self.share) * x + self.share * branch
        x = self.skip * x
        return x + (self.scale * branch if self.scaled else branch)


GELU_SLOPE = 1.1290  # no slope of GELU is above it


def activate(parts, x):
    if parts.activation == "relu":
        return F.relu(x)
    return F.gelu(x) / GELU_SLOPE if parts.activation == "gelu_scaled" else F.gelu(x)


# --- attention ---------------------------------------------------------------------------------------------------------


def attend(parts, q, k, v, mask=None):
    """q, k, v [..., N, d], mask [N, N] true where a key is hidden -> [..., N, d] and the entropies [..., N] in nats."""
    d = q.shape[-1]
    if parts.attention.startswith("cosine"):
        eps = parts.attention_eps if parts.attention == "cosine_bounded" else 1e-12
        return twins.attend(q, k, v, 0.0, parts.attention, parts.tau / parts.temperature, parts.nu, eps)
    if parts.attention == "l2":
        logits = -(q[..., :, None, :] - k[..., None, :, :]).square().sum(-1) / math.sqrt(d)
    else:
        scale = parts.attention_scale / d if parts.attention == "dot_mup" else 1 / math.sqrt(d)
        logits = scale * q @ k.transpose(-2, -1)
    logits = logits / parts.temperature
    if mask is not None:
        logits = logits.masked_fill(mask, -math.inf)
    p = logits.softmax(-1)
    return p @ v, -torch.xlogy(p, p).detach().sum(-1)


def rotary(x, base=10000.0):
    """x [..., T, d]: (x_i, x_{i + d/2}) of token t turns by the angle t base^(-2 i / d)."""
    tokens, half = x.shape[-2], x.shape[-1] // 2
    rate = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * rate
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Attention(nn.Module):
    def __init__(self, parts, width, heads, qkv_bias=True, bias=True, causal=False):
        super().__init__()
        self.parts, self.heads, self.causal = parts, heads, causal
        if parts.qkv == "separate" or parts.attention == "l2":
            for name in ("q_proj", "v_proj") if parts.attention == "l2" else ("q_proj", "k_proj", "v_proj"):
                setattr(self, name, Linear(parts, width, width, qkv_bias))
        else:
            self.qkv = Linear(parts, width, 3 * width, qkv_bias)
        if parts.qk_norm != "none":
            kind = {"layer": HeadLayerNorm, "rms": RMSNorm}[parts.qk_norm]
            self.q_norm, self.k_norm = (kind(width // heads, parts.norm_eps) for _ in range(2))
        self.proj = Linear(parts, width, width, bias)
        self.entropy = None  # [heads], of the last forward

    def split(self, x):
        """[B, N, C] -> [B, heads, N, d]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, x):
        if self.parts.attention == "l2":
            return self.project_tied(x)
        if hasattr(self, "qkv"):
            return [self.split(u) for u in self.qkv(x).chunk(3, -1)]
        return [self.split(projection(x)) for projection in (self.q_proj, self.k_proj, self.v_proj)]

    def project_tied(self, x):
        """k = q, and a head's values are x Wq Wq^T / sqrt(d) Wv (Kim et al. 2021); Wq here is the transpose, [d, D]."""
        q = self.split(self.q_proj(x))
        wq, wv = (w.effective().unflatten(0, (self.heads, -1)) for w in (self.q_proj, self.v_proj))  # [heads, d, D]
        return q, q, q @ (wq @ wv.transpose(1, 2)) / math.sqrt(q.shape[-1])

    def forward(self, x):  # [B, N, C]
        q, k, v = self.project(x)
        if self.parts.qk_norm != "none":
            q, k = self.q_norm(q), self.k_norm(k)
        mask = None
        if self.causal:
            q, k = rotary(q), rotary(k)
            mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
        out, entropy = attend(self.parts, q, k, v, mask)
        self.entropy = entropy.mean((0, 2))
        share = 1 / 3 if self.parts.attention == "dot_mup" else 1.0  # (q, k, v) together have three times the slope
        return self.proj(share * out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, parts, width, hidden, bias=True):
        super().__init__()
        self.parts = parts
        self.fc1 = Linear(parts, width, hidden, bias)
        self.fc2 = Linear(parts, hidden, width, bias)

    def forward(self, x):
        return self.fc2(activate(self.parts, self.fc1(x)))


class Block(nn.Module):
    """The norm stands before each branch, or, with post, after each sum."""

    def __init__(self, parts, width, heads, hidden, blocks, qkv_bias=True, bias=True, causal=False, post=False):
        super().__init__()
        self.post = post
        self.norm1 = make_norm(parts, width)
        self.attn = Attention(parts, width, heads, qkv_bias, bias, causal)
        self.alpha1 = Residual(parts, width, 2 * blocks)
        self.norm2 = make_norm(parts, width)
        self.mlp = Mlp(parts, width, hidden, bias)
        self.alpha2 = Residual(parts, width, 2 * blocks)

    def forward(self, x):  # [B, N, C]
        if self.post:
            x = self.norm1(self.alpha1(x, self.attn(x)))
            return self.norm2(self.alpha2(x, self.mlp(x)))
        x = self.alpha1(x, self.attn(self.norm1(x)))
        return self.alpha2(x, self.mlp(self.norm2(x)))


def print_counts(rows):
    """rows of (name, what, got, want); says which differ and returns how many do."""
    wrong = 0
    for name, what, got, want in rows:
        wrong += got != want
        verdict = "equal" if got == want else f"DIFFERS from {want:,}"
        print(f"{name:28} {what:32} {got:>12,}  {verdict}")
    print(f"{wrong} counts differ")
    return wrong
