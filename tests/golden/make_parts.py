# Writes the golden files of every backbone, part and optimizer beside the first four (make_models.py): ten steps each, in f64.
#
# For every parameter NAME, buffer BUFFER, reparametrised weight WEIGHT and attention layer LAYER a file holds
#   images [B, in, H, W] and targets [B, classes] (each row sums to exactly 1), F32; or tokens and labels [B, T], I64
#   weight.NAME                  F32, exact
#   buffer.BUFFER                before the first step; F64, counters I64
#   eval_logits                  in evaluation, before the first step
#   logits, loss, grad.NAME      of the first step, in training
#   entropy.LAYER [heads]        of the first step: nats, the mean over batch, windows and queries
#   sigma.WEIGHT []              of the first step: the spectral norm that it used
#   losses, grad_norms [10]      of each step before its update; norms unclipped
#   input_scales [10]            if there: a step's images are images times its number
#   final.NAME, final_buffer.BUFFER, final_logits      after the ten steps, the last in evaluation
# all F64 where nothing is said. loss is the mean over the batch, and over positions, of the cross-entropy. The metadata
# "recipe" is a JSON object of "section.key" -> text: a recipe of the model and of the steps.
import json
import os
from dataclasses import fields, replace

import numpy as np
import torch
from torch.nn import functional as F

import channel_norms
import cswin
import gpt
import mlp
import optimizers
import parts as p
import safetensors_file
import t2t
import twins
import vit
from make_models import rounded, soft_targets

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH, STEPS = 4, 10

VIT = vit.Config(img_size=16, patch_size=4, num_classes=5, embed_dim=16, depths=(2,), num_heads=(2,), mlp_ratio=2.0)
UNBIASED_VIT = replace(VIT, qkv_bias=False)  # a key's bias has no gradient: the sign that Lion takes of it is rounding
POST_VIT = replace(VIT, norm_position="post")
BARE_VIT = replace(VIT, qkv_bias=False, bias=False)
SWIN = twins.swin(img_size=16, patch_size=2, num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4,
                  mlp_ratio=2.0)
CSWIN = cswin.Config(img_size=32, num_classes=5, embed_dim=8, depths=(1, 2, 1), num_heads=(2, 4, 8), stripe_widths=(2, 1, 2),
                     mlp_ratio=2.0)
LIPSFORMER_CSWIN = replace(CSWIN, conv_branches=True, depths=(1, 1, 1))
SHORT_LIPSFORMER_CSWIN = replace(LIPSFORMER_CSWIN, depths=(1, 1), num_heads=(2, 4), stripe_widths=(2, 2))
T2T = t2t.Config(img_size=32, num_classes=5, embed_dim=16, depths=(2,), num_heads=(2,), mlp_ratio=2.0, token_dim=8)
MLP = mlp.Config(img_size=6, num_classes=5, embed_dim=16, depths=(3,))
GPT = gpt.Config(vocab_size=13, context=12, embed_dim=16, depths=(2,), num_heads=(2,), mlp_ratio=2.0)

LAYER = p.Parts()
ENFORCED = gpt.ENFORCED
QK_NORM = p.Parts(norm="rms", norm_eps=1e-6, qk_norm="layer", residual="layer_scale", qkv="separate", temperature=0.8)
BALL = p.Parts(norm="ball", weight="spectral_norm", attention="cosine_bounded", tau=5.0, nu=1.5, attention_eps=1e-2,
               residual="weighted", alpha=0.5)


def smoothed(norm, outliers="none", alpha=0.9):
    return p.Parts(norm=norm, norm_window=3, norm_warmup=3, norm_alpha=alpha, norm_filter=outliers)


ADAMW = dict(name="adamw", lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05, weight_decay_1d=5e-4, clip_grad=5.0)
SGD = dict(name="sgd", lr=0.05, momentum=0.9, weight_decay=0.05, weight_decay_1d=5e-4, clip_grad=5.0)
LARS = dict(name="lars", lr=0.05, momentum=0.9, trust_coefficient=0.1, eps=1e-8, weight_decay=0.05, weight_decay_1d=0.0,
            clip_grad=0.0)
LION = dict(name="lion", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.05, weight_decay_1d=5e-4, clip_grad=0.0)
MUON = dict(name="muon", lr=0.05, momentum=0.95, nesterov=False, coefficients="youjiacheng6", update_scale="rms",
            weight_decay=0.0, weight_decay_1d=0.0, clip_grad=0.0)
MUON_ROWS = dict(MUON, embedding="rows")
MUON_ADAMW = dict(MUON, adamw_lr=0.1, betas=(0.9, 0.95), eps=1e-8)
SOFT_CAP = dict(method="spectral_soft_cap", sigma_max=1.0)

# scale of each step's images where statistics outlive a step: they vary, and the seventh is an outlier
SCALES = (1.0, 1.25, 0.75, 1.5, 1.0, 0.875, 4.0, 1.25, 0.75, 1.0)

# name, model, its parts, the optimizer and what else differs: constraint, scales, gain of the drawn weights, iters at the start,
# draw (another one, for which no decision about an outlier is close)
FILES = [
    ("vit", VIT, p.Parts(norm_eps=1e-6), ADAMW, {}),
    ("vit_sigma_reparam", VIT, vit.SIGMA_REPARAM, ADAMW, {}),
    ("vit_qk_norm", VIT, QK_NORM, ADAMW, {}),
    ("vit_rezero_weightnorm", VIT, p.Parts(norm="none", residual="rezero", weight="weight_norm"), ADAMW, {}),
    ("vit_l2", UNBIASED_VIT, p.Parts(norm_eps=1e-6, attention="l2", qkv="separate"), ADAMW, {}),
    ("vit_ball_spectral", VIT, BALL, ADAMW, {}),
    ("vit_enforced", BARE_VIT, replace(ENFORCED, attention_scale=4.0), ADAMW, {}),
    ("vit_deepnorm", POST_VIT, p.Parts(residual="deepnorm"), ADAMW, {}),
    ("vit_admin", POST_VIT, p.Parts(residual="admin"), ADAMW, {}),
    ("vit_unified", VIT, smoothed("unified", "pooled"), ADAMW, {"scales": SCALES, "draw": 2}),
    ("vit_unified_per_channel", VIT, smoothed("unified", "per_channel"), ADAMW, {"scales": SCALES, "draw": 2}),
    ("vit_batch", VIT, smoothed("batch"), ADAMW, {"scales": SCALES}),
    ("vit_power", VIT, smoothed("power"), ADAMW, {"scales": SCALES}),
    ("vit_mabn", VIT, smoothed("moving_average_batch", alpha=0.98), ADAMW, {"scales": SCALES}),
    ("swin_unified", SWIN, smoothed("unified"), ADAMW, {"scales": SCALES}),
    ("cswin", CSWIN, LAYER, ADAMW, {}),
    ("lipsformer_cswin", LIPSFORMER_CSWIN, cswin.LIPSFORMER, ADAMW, {}),
    ("lipsformer_cswin_sigma", SHORT_LIPSFORMER_CSWIN, replace(cswin.LIPSFORMER, weight="sigma_reparam"), ADAMW, {}),
    ("t2t", T2T, LAYER, ADAMW, {}),
    ("t2t_unified", T2T, smoothed("unified", "pooled"), ADAMW, {"scales": SCALES, "iters": 995, "draw": 4}),
    ("mlp", MLP, mlp.ENFORCED, ADAMW, {}),
    ("gpt_enforced", GPT, ENFORCED, ADAMW, {"gain": 2.0}),
    ("mlp_muon", MLP, mlp.ENFORCED, MUON, {"constraint": SOFT_CAP}),
    ("gpt_enforced_muon", GPT, replace(ENFORCED, attention_scale=4.0), MUON_ROWS, {"constraint": dict(SOFT_CAP, per_head=False)}),
    ("gpt_enforced_muon_heads", GPT, replace(ENFORCED, attention_scale=4.0), MUON_ROWS, {"constraint": dict(SOFT_CAP, per_head=True)}),
    ("gpt_enforced_muon_adamw", GPT, replace(ENFORCED, attention_scale=4.0), MUON_ADAMW, {"constraint": dict(SOFT_CAP, per_head=True)}),
    ("vit_sgd", UNBIASED_VIT, p.Parts(norm_eps=1e-6), SGD, {}),
    ("vit_lars", UNBIASED_VIT, p.Parts(norm_eps=1e-6), LARS, {}),
    ("vit_lion", UNBIASED_VIT, p.Parts(norm_eps=1e-6), LION, {}),
]


def build(config, parts):
    if config.family == "swin":
        return p.replace_layer_norms(twins.SwinBackbone(config), parts)
    makers = {"vit": vit.Vit, "cswin": cswin.CSwin, "t2t_vit": t2t.T2tVit, "mlp": mlp.PlainMlp, "gpt": gpt.Gpt}
    return makers[config.family](config, parts)


def recipe(config, parts, optimizer, constraint):
    keys = p.recipe(config, parts)
    if config.family == "swin":  # its config holds keys of [parts], too, which `parts` says again
        keys = {k: v for k, v in keys.items() if k.removeprefix("model.") not in {f.name for f in fields(parts)}}
    if config.family == "mlp":  # it has no tokens and no branches
        keys = {k: v for k, v in keys.items() if not k.startswith("parts.") or k in ("parts.norm", "parts.weight", "parts.activation")}
        keys["model.num_heads"] = "[1]"
    else:
        keys["model.drop_path_rate"] = "0"
    keys.update({"optimizer." + k: p.text(v) for k, v in optimizer.items()})
    keys["optimizer.lr_base_batch"] = "0"
    keys.update({"constraint." + k: p.text(v) for k, v in constraint.items()})
    if parts.is_smoothed():
        keys["run.shards"] = "1"  # statistics are those of the whole batch
    return keys


def below_cap(matrix):
    """The matrix with a norm from RMS to RMS just below 1."""
    return 0.97 * matrix / np.linalg.norm(matrix, 2) * np.sqrt(matrix.shape[0] / matrix.shape[1])


def randomise(model, random, gain, capped, heads):
    """No weight is left at 0 or 1, and every part of the model moves the loss. capped: the weights start below their cap, those
    of q, k and v each of `heads` heads on its own."""
    for name, w in model.named_parameters():
        draw = random.standard_normal(tuple(w.shape))
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "scale":
            value = 0.4 + 0.15 * draw
        elif leaf == "omega":
            value = 1.2 + 0.2 * draw
        elif leaf in ("relative_position_bias_table", "cls_token", "pos_embed"):
            value = 0.5 * draw
        elif leaf == "bias":
            value = 0.2 * draw
        elif name == "embed.weight":
            value = draw / np.sqrt((draw ** 2).mean(1, keepdims=True)) * random.uniform(0.6, 1.0, (len(draw), 1))
        elif w.dim() == 1:  # the weight of a norm; gamma and gain are multiplied by what they stand for below
            value = 1.0 + 0.2 * draw
        elif capped:
            value = np.concatenate([below_cap(rows) for rows in np.split(draw, optimizers.groups(name, heads))])
        else:
            value = (2.0 if name == "head.weight" else gain) * draw / np.sqrt(draw[0].size)
        w.data = rounded(value)
    for module in model.modules():
        if getattr(module, "part", "plain") in ("sigma_reparam", "spectral_norm"):
            module.start()
        if getattr(module, "part", "plain") == "sigma_reparam":
            module.gamma.data = rounded(module.gamma.data * torch.linalg.matrix_norm(module.matrix().data, 2))
        if getattr(module, "part", "plain") == "weight_norm":
            module.gain.data = rounded(module.gain.data * module.matrix().data.norm(dim=1))
        if isinstance(module, t2t.TokenLayer):
            rows, columns = module.w.shape
            orthogonal = np.linalg.qr(random.standard_normal((columns, rows)))[0].T
            module.w = rounded(orthogonal * np.sqrt(rows))


def make_inputs(config, random):
    """Names -> tensors; the first goes into the model, the second is what it should say."""
    if config.family == "gpt":
        text = random.integers(0, config.vocab_size - 1, (BATCH, config.context + 1))  # the last token is never seen
        return {"tokens": torch.from_numpy(text[:, :-1].copy()), "labels": torch.from_numpy(text[:, 1:].copy())}
    images = rounded(random.standard_normal((BATCH, config.in_chans, config.img_size, config.img_size)))
    return {"images": images, "targets": soft_targets(random, BATCH, config.num_classes)}


def loss_of(logits, wanted):
    if wanted.dtype == torch.int64:
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    return twins.soft_cross_entropy(logits, wanted)


def tensors(prefix, named, dtype=None):
    out = {prefix + name: t.detach().numpy().copy() for name, t in named}
    return {name: a.astype(dtype) if dtype and a.dtype.kind == "f" else a for name, a in out.items()}


def evaluate(model, x):
    model.eval()
    with torch.no_grad():
        logits = model(x).numpy().copy()
    model.train()
    return logits


def run_in(model, inputs, iters):
    """Fills what the norms remember from a few steps, as if there had been `iters` of them."""
    x, wanted = inputs
    for scale in (1.0, 1.5, 0.75, 1.25, 0.875):
        loss_of(model(scale * x), wanted).backward()
    model.zero_grad()
    for module in model.modules():
        if isinstance(module, channel_norms.ChannelNorm):
            module.iters.fill_(iters)


def first_step(model, logits, loss):
    out = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    out.update(tensors("grad.", ((n, w.grad) for n, w in model.named_parameters())))
    for name, module in model.named_modules():
        if getattr(module, "entropy", None) is not None:
            out["entropy." + name] = module.entropy.numpy().copy()
        if getattr(module, "sigma", None) is not None:
            out["sigma." + name] = module.sigma.detach().numpy().copy()
    return join_stripes(out)


def join_stripes(out):
    """The heads of a block's stripes, vertical ones first, under the name of the block."""
    for name in [n for n in out if n.startswith("entropy.") and ".attns." in n]:
        whole, entropy = name[:name.index(".attns.")], out.pop(name)
        out[whole] = np.concatenate([out[whole], entropy]) if whole in out else entropy
    return out


def make(name, config, parts, settings, extra):
    random = np.random.default_rng(sum(name.encode()) + extra.get("draw", 0))
    constraint, scales = extra.get("constraint", {}), extra.get("scales")
    model = build(config, parts).double().train()
    heads = config.num_heads[0] if constraint.get("per_head") else 1
    randomise(model, random, extra.get("gain", 1.0), bool(constraint), heads)
    inputs = make_inputs(config, random)
    x, wanted = inputs.values()
    if "iters" in extra:
        run_in(model, (x, wanted), extra["iters"])

    out = tensors("", inputs.items(), "<f4")
    out.update(tensors("weight.", model.named_parameters(), "<f4"))
    out.update(tensors("buffer.", saved_buffers(model)))
    out["eval_logits"] = evaluate(model, x)
    if scales:
        out["input_scales"] = np.array(scales)

    optimizer = optimizers.MAKERS[settings["name"]](model, {**settings, **constraint, "heads": heads})
    losses, norms = [], []
    for step in range(STEPS):
        model.zero_grad()
        logits = model(scales[step] * x if scales else x)
        loss = loss_of(logits, wanted)
        loss.backward()
        if step == 0:
            out.update(first_step(model, logits, loss))
        limit = settings["clip_grad"] or float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item())
        losses.append(loss.item())
        optimizer.step()
    out.update(losses=np.array(losses), grad_norms=np.array(norms))
    out.update(tensors("final.", model.named_parameters()))
    out.update(tensors("final_buffer.", saved_buffers(model)))
    out["final_logits"] = evaluate(model, x)

    path = os.path.join(HERE, name + ".safetensors")
    safetensors_file.save(path, out, {"recipe": json.dumps(recipe(config, parts, settings, constraint))})
    report(path, out, model)


def saved_buffers(model):
    return [(name, b) for name, b in model.named_buffers() if name in model.state_dict()]


def report(path, out, model):
    print(f"{os.path.basename(path)}: {os.path.getsize(path):,} bytes, {twins.size(model):,} parameters")
    print("  losses     ", " ".join(f"{v:.4f}" for v in out["losses"]))
    print("  grad norms ", " ".join(f"{v:.3f}" for v in out["grad_norms"]))
    for key, value in out.items():
        if key.startswith("entropy."):
            print(f"  {key}", " ".join(f"{v:.3f}" for v in value))
    outliers = [m for m in model.modules() if isinstance(m, channel_norms.Unified) and m.filter != "none"]
    if outliers:
        margin = min(m.margin for m in outliers)
        print("  filtered steps of each norm", " ".join(str(int(m.skip_counter)) for m in outliers), f"margin {margin:.1e}")
        assert margin > 1e-4, "a decision about an outlier hangs on rounding"
    smallest = min((np.abs(v).max(), k) for k, v in out.items() if k.startswith("grad."))
    print(f"  smallest gradient: {smallest[1]} {smallest[0]:.2e}")
    assert all(np.isfinite(v).all() for v in out.values())


if __name__ == "__main__":
    torch.set_num_threads(1)  # one order of every sum
    for row in FILES:
        make(*row)
