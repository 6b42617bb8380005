# PyTorch twins of the optimizers: AdamW, SGD, LARS, Lion, and Muon with the spectral soft cap. `--check` holds the constants
# of the last against their known values.
import argparse
import math
import sys

import torch

NOT_DECAYED = ("relative_position_bias_table", "cls_token", "pos_embed", "embed.weight")


def is_decayed(name, parameter):
    """Full weight decay: matrices and kernels. Low decay: 1-D tensors, position tables, learned tokens and embeddings."""
    return parameter.dim() >= 2 and not name.endswith(NOT_DECAYED)


class Optimizer:
    """settings: the recipe's section [optimizer] (and [constraint]) as numbers."""

    def __init__(self, model, settings):
        self.named, self.settings = list(model.named_parameters()), settings
        self.state = [torch.zeros_like(w) for _, w in self.named]

    def decay(self, name, w):
        return self.settings["weight_decay" if is_decayed(name, w) else "weight_decay_1d"]

    @torch.no_grad()
    def step(self):
        for (name, w), state in zip(self.named, self.state):
            self.update(name, w, w.grad, state)


class Sgd(Optimizer):
    """torch.optim.SGD: m <- momentum m + (g + decay w), w <- w - lr m."""

    def update(self, name, w, g, m):
        m.mul_(self.settings["momentum"]).add_(g + self.decay(name, w) * w)
        w.sub_(self.settings["lr"] * m)


class Lars(Optimizer):
    """m <- momentum m + local (g + decay w), w <- w - m, local = lr trust |w| / (|g| + decay |w| + eps). What does not decay has
    local = lr and no decay at all."""

    def update(self, name, w, g, m):
        s = self.settings
        local, decay = s["lr"], 0.0
        if is_decayed(name, w):
            decay = s["weight_decay"]
            local = s["lr"] * s["trust_coefficient"] * w.norm() / (g.norm() + decay * w.norm() + s["eps"])
        m.mul_(s["momentum"]).add_(local * (g + decay * w))
        w.sub_(m)


class Lion(Optimizer):
    """w <- (1 - lr decay) w - lr sign(beta1 m + (1 - beta1) g), m <- beta2 m + (1 - beta2) g."""

    def update(self, name, w, g, m):
        s, (beta1, beta2) = self.settings, self.settings["betas"]
        direction = beta1 * m + (1 - beta1) * g
        assert direction.abs().min() > 1e-11, f"{name}: a sign hangs on rounding"
        w.mul_(1 - s["lr"] * self.decay(name, w)).sub_(s["lr"] * direction.sign())
        m.mul_(beta2).add_((1 - beta2) * g)


def adamw(model, settings):
    named = list(model.named_parameters())
    groups = [{"params": [w for n, w in named if is_decayed(n, w)], "weight_decay": settings["weight_decay"]},
              {"params": [w for n, w in named if not is_decayed(n, w)], "weight_decay": settings["weight_decay_1d"]}]
    return torch.optim.AdamW(groups, lr=settings["lr"], betas=settings["betas"], eps=settings["eps"])


# x <- a x + b x^3 + c x^5 of the singular values, never above 1
YOUJIACHENG6 = [(3955, -8306, 5008), (3735, -6681, 3463), (3799, -6499, 3211), (4019, -6385, 2906), (2677, -3029, 1162),
                (2172, -1833, 682)]
YOUJIACHENG6 = [tuple(v / 1024 for v in step) for step in YOUJIACHENG6]


def orthogonalise(x):
    """Newton-Schulz from x / |x|; of a zero matrix, zero."""
    if x.norm() == 0:
        return x
    wide = x if x.shape[0] <= x.shape[1] else x.t()
    wide = wide / x.norm()
    for a, b, c in YOUJIACHENG6:
        gram = wide @ wide.t()
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.t()


def soft_cap_strength(sigma_max, update, decay=0.0):
    """The least alpha for which sigma_max (1 - decay) + update comes back to sigma_max; decay is the rate's product."""
    k = sigma_max * (1 - decay) + update
    if k <= sigma_max:
        return 0.0
    low, high = 0.0, 1.0  # u = alpha k^2 of 3 u^2 - 3 u^3 + u^4 = (k - sigma_max) / k
    for _ in range(200):
        u = (low + high) / 2
        low, high = (u, high) if 3 * u ** 2 - 3 * u ** 3 + u ** 4 < (k - sigma_max) / k else (low, u)
    assert high <= 1 / 3, "above a third the cap's curve is no longer monotone"
    return high / k ** 2


def soft_cap(w, alpha):
    """x - alpha x^3, then x + alpha x^3 of the singular values."""
    w = w - alpha * w @ w.t() @ w
    return w + alpha * w @ w.t() @ w


def groups(name, heads):
    """How many matrices a weight is: with heads > 1, every head's rows of q_proj, k_proj and v_proj are one of their own."""
    return heads if name.rsplit(".", 2)[-2] in ("q_proj", "k_proj", "v_proj") else 1


class Muon(Optimizer):
    """Momentum as a moving average without Nesterov, orthogonalised and scaled so that a step's norm from RMS to RMS is lr; then
    the soft cap. The embedding moves by its rows' momentum at RMS 1, or by AdamW; each row is capped at RMS 1."""

    def __init__(self, model, settings):
        super().__init__(model, settings)
        self.adamw = None
        if "adamw_lr" in settings:
            rest = [w for name, w in self.named if name == "embed.weight"]
            self.adamw = torch.optim.AdamW(rest, lr=settings["lr"] * settings["adamw_lr"], betas=settings["betas"],
                                           eps=settings["eps"], weight_decay=settings["weight_decay_1d"])

    def update(self, name, w, g, m):
        m.add_((1 - self.settings["momentum"]) * (g - m))
        if name == "embed.weight":
            return self.update_rows(w, m)
        count = groups(name, self.settings["heads"])
        for part, momentum in zip(w.chunk(count), m.chunk(count)):
            self.update_matrix(part, momentum)

    def update_matrix(self, w, m):
        lr, sigma_max = self.settings["lr"], self.settings["sigma_max"]
        scale = math.sqrt(w.shape[0] / w.shape[1])
        w.sub_(lr * scale * orthogonalise(m))
        w.copy_(scale * soft_cap(w / scale, soft_cap_strength(sigma_max, lr)))
        assert torch.linalg.matrix_norm(w, 2) / scale <= sigma_max * (1 + 1e-9)

    def update_rows(self, w, m):
        if self.adamw:
            self.adamw.step()
        else:
            rms = m.square().mean(1, keepdim=True).sqrt()
            w.sub_(self.settings["lr"] * torch.where(rms > 0, m / rms, m))
        w.div_(w.square().mean(1, keepdim=True).sqrt().clamp_min(1.0))


MAKERS = {"adamw": adamw, "sgd": Sgd, "lars": Lars, "lion": Lion, "muon": Muon}

STRENGTHS = {(1, 0.01): 0.0580251, (1, 0.05): 0.1224393, (1, 0.1): 0.158864, (2, 0.1): 0.0306098, (2, 0.2): 0.0397161,
             (3, 0.1): 0.0114098, (6, 0.1): 0.00206546, (6, 0.2): 0.00285246, (8, 0.05): 0.000718834, (16, 0.05): 0.000127171}


def check():
    """Returns how many constants differ."""
    wrong = 0
    for (sigma_max, update), want in STRENGTHS.items():
        got = soft_cap_strength(sigma_max, update)
        back = soft_cap(torch.tensor([[sigma_max + update]], dtype=torch.float64), got).item()
        equal = abs(got / want - 1) < 1e-5 and abs(back / sigma_max - 1) < 1e-12
        wrong += not equal
        print(f"soft cap of {sigma_max} after {update}: {got:.9f}, {'equal' if equal else f'DIFFERS from {want}'}")
    x = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    for a, b, c in YOUJIACHENG6:
        x = a * x + b * x ** 3 + c * x ** 5
    equal = abs(x.max().item() - 0.99933) < 5e-6
    print(f"largest singular value of an update: {x.max().item():.6f}, {'equal' if equal else 'DIFFERS from 0.99933'}")
    return wrong + (not equal)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PyTorch twins of the optimizers")
    parser.add_argument("--check", action="store_true", help="hold the soft cap and the updates against known values")
    if parser.parse_args().check:
        sys.exit(check() != 0)
    parser.print_help()
