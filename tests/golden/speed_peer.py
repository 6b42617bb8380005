# Times PyTorch training steps (forward, backward, AdamW) of a twin in f32 on the CPU: the peer of our benchmark.
import argparse
import os
import resource
import time

PRESETS = {"swin_tiny": ("swin", {}), "lipsformer_swin_tiny": ("lipsformer", {})}


def main():
    parser = argparse.ArgumentParser(description="images per second of PyTorch training steps at 224 px")
    parser.add_argument("--model", choices=PRESETS, default="lipsformer_swin_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after one that is not")
    options = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    import torch  # after the environment, which its libraries read once
    import twins

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    family, changes = PRESETS[options.model]
    config = getattr(twins, family)(**changes)
    model = twins.SwinBackbone(config)
    optimizer = twins.make_adamw(model, lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05, low_weight_decay=5e-4)
    images = torch.randn(options.batch, 3, config.img_size, config.img_size)
    targets = torch.softmax(torch.randn(options.batch, config.num_classes), -1)

    seconds = []
    for step in range(options.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        twins.soft_cross_entropy(model(images), targets).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        print(f"step {step}{' (warm-up)' if step == 0 else ''}: {seconds[-1]:.2f} s", flush=True)

    best = min(seconds[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB on Linux
    print(f"{options.model}, PyTorch {torch.__version__}, batch {options.batch}, {options.threads} threads: "
          f"{options.batch / best:.2f} images/s, peak {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
