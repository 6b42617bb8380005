#!/usr/bin/env python3
"""torch_step.py MODEL BATCH STEPS: images/s and peak memory of a training step of timm's model in PyTorch: bf16 autocast, channels last, torch.compile,
fused AdamW, on made-up pixels. What gpu-check.sh puts beside lipsgrad's figures; LipsFormer has no model in timm and is compared with Swin's."""
import sys
import time

import timm
import torch

names = {"swin_tiny": "swin_tiny_patch4_window7_224", "lipsformer_swin_tiny": "swin_tiny_patch4_window7_224",
         "deit_small": "deit_small_patch16_224", "deit_base": "deit_base_patch16_224"}
name, batch, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if name not in names:
    sys.exit(f"timm has no {name}")
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
model = timm.create_model(names[name], drop_path_rate=0.2).cuda().to(memory_format=torch.channels_last)
compiled = torch.compile(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
targets = torch.randint(1000, (batch,), device="cuda")


def step():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(compiled(images), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()


for _ in range(10):
    step()
torch.cuda.synchronize()
blocks = []
for _ in range(7):
    start = time.perf_counter()
    for _ in range(max(1, steps // 7)):
        step()
    torch.cuda.synchronize()
    blocks.append((time.perf_counter() - start) / max(1, steps // 7))
print(f"{batch / sorted(blocks)[3]:.0f} images/s, {torch.cuda.max_memory_allocated() / 1e9:.1f} GB ({names[name]}, torch {torch.__version__})")
