# Writes the golden models: four tiny members of the Swin family with outputs, gradients and ten AdamW steps in f64.
#
# Each file is one safetensors file with, for every parameter NAME (see twins.py) and attention layer LAYER:
#   images [B, 3, H, W], targets [B, classes] (each row sums to exactly 1)           F32
#   weight.NAME                                                                      F32, exact: drawn, then rounded
#   logits [B, classes], loss [], entropy.LAYER [heads]                              F64
#   grad.NAME                                                                        F32, rounded at the end
#   losses [10], grad_norms [10]: of each step before its update; norms unclipped    F64
#   final.NAME: the weights after the ten steps                                      F32, rounded at the end
# loss is the mean over the batch of the soft-target cross-entropy; entropy is in nats, the mean over batch, windows and
# queries. Metadata: "config" and "optimizer", each a JSON object of recipe key -> string.
import json
import os

import numpy as np
import torch

import safetensors_file
import twins

HERE = os.path.dirname(os.path.abspath(__file__))

TINY = dict(img_size=16, patch_size=2, num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4,
            mlp_ratio=2.0)

MODELS = {
    # two stages of 8x8 (4 windows) and 4x4 (1 window)
    "lipsformer_cosine": twins.lipsformer(**TINY),
    # two stages of 8x8 (16 windows) and 4x4 (4 windows)
    "lipsformer_bounded": twins.lipsformer(**{**TINY, "window_size": 2}, attention="cosine_bounded", nu=1.5,
                                           attention_eps=1e-2),
    # two stages of 14x14 (shifted by 3) and 7x7 (the window equals the map)
    "swin": twins.swin(**{**TINY, "img_size": 28, "window_size": 7, "mlp_ratio": 4.0}),
    # three stages of 12x12 (shifted by 3), 6x6 (the window equals the map) and 3x3 (the window is clamped to it)
    "swin_mixed": twins.swin(**{**TINY, "img_size": 24, "window_size": 6, "embed_dim": 4, "depths": (2, 2, 1),
                                "num_heads": (1, 2, 4)}, norm="center", attention="cosine"),
}

OPTIMIZER = dict(lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05, low_weight_decay=5e-4)
CLIP = 5.0
STEPS = 10
GAIN, HEAD_GAIN = 0.5, 2.0  # three of the models then clip the gradient at some steps and not at others
BATCH = 3


def rounded(array):
    """The nearest numbers that F32 holds, as f64."""
    return torch.from_numpy(np.asarray(array, np.float32).astype(np.float64))


def randomise(model, random):
    """No weight is left at 0 or 1, and every part of the model moves the loss."""
    for name, p in model.named_parameters():
        draw = random.standard_normal(tuple(p.shape))
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "scale":
            value = 0.4 + 0.15 * draw
        elif leaf == "relative_position_bias_table":
            value = 0.5 * draw
        elif leaf == "bias":
            value = 0.2 * draw
        elif p.dim() == 1:  # the weight of a norm
            value = 1.0 + 0.2 * draw
        else:
            gain = HEAD_GAIN if name == "head.weight" else GAIN
            value = gain * draw / np.sqrt(draw[0].size)
        p.data = rounded(value)


def soft_targets(random, batch, classes):
    """Mixed labels in steps of 1/64, so that F32 holds them and each row sums to exactly 1."""
    draws = random.integers(0, classes, (batch, 3))
    targets = np.zeros((batch, classes))
    for row, draw in zip(targets, draws):
        for label, weight in zip(draw, (41, 17, 6)):
            row[label] += weight / 64
    return torch.from_numpy(targets)


def make(name, config):
    random = np.random.default_rng(sum(name.encode()))
    model = twins.SwinBackbone(config).double()
    randomise(model, random)
    images = rounded(random.standard_normal((BATCH, config.in_chans, config.img_size, config.img_size)))
    targets = soft_targets(random, BATCH, config.num_classes)

    def named(prefix, dtype, of):
        return {prefix + n: of(p).detach().numpy().astype(dtype) for n, p in model.named_parameters()}

    out = {"images": images.numpy().astype("<f4"), "targets": targets.numpy().astype("<f4")}
    out.update(named("weight.", "<f4", lambda p: p))

    optimizer = twins.make_adamw(model, **OPTIMIZER)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        logits = model(images)
        loss = twins.soft_cross_entropy(logits, targets)
        loss.backward()
        if step == 0:
            out.update(logits=logits.detach().numpy(), loss=loss.detach().numpy())
            out.update(named("grad.", "<f4", lambda p: p.grad))
            out.update({"entropy." + layer: e.numpy() for layer, e in model.entropies().items()})
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        losses.append(loss.item())
        optimizer.step()
    out.update(losses=np.array(losses), grad_norms=np.array(norms))
    out.update(named("final.", "<f4", lambda p: p))

    optimizer_keys = {"name": "adamw", **OPTIMIZER, "betas": list(OPTIMIZER["betas"]), "clip_grad": CLIP}
    path = os.path.join(HERE, name + ".safetensors")
    safetensors_file.save(path, out, {"config": json.dumps(config.flat()),
                                      "optimizer": json.dumps({k: str(v) for k, v in optimizer_keys.items()})})
    report(path, out, model)


def report(path, out, model):
    print(f"{os.path.basename(path)}: {os.path.getsize(path):,} bytes, {twins.size(model):,} parameters")
    print("  losses     ", " ".join(f"{v:.4f}" for v in out["losses"]))
    print("  grad norms ", " ".join(f"{v:.3f}" for v in out["grad_norms"]))
    for key, value in out.items():
        if key.startswith("entropy."):
            window = model.get_submodule(key[len("entropy."):]).window
            print(f"  {key}", " ".join(f"{v:.3f}" for v in value), f"of {2 * np.log(window):.3f}")
    smallest = min((np.abs(v).max(), k) for k, v in out.items() if k.startswith("grad."))
    print(f"  smallest gradient: {smallest[1]} {smallest[0]:.2e}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # one order of every sum
    for model_name, model_config in MODELS.items():
        make(model_name, model_config)
