"""A training loop of your own: what changes against torch's AdamW is one line.

    python plain_loop.py                       f32
    python plain_loop.py --dtype bf16          autocast
    python plain_loop.py --dtype fp16          autocast and a GradScaler
    python plain_loop.py --checkpointing       activations are computed again in backward

Each step accumulates the gradients of several batches. Adapters stay f32 under autocast, as PEFT makes
them. The GradScaler divides the gradients by its scale before the step and leaves the step out where one
of them is not finite.
"""

from __future__ import annotations

import torch
from tiny_model import adapted_llama, arguments, text
from torch.utils.data import DataLoader

from lorapro import create_lorapro_optimizer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dtype", default="f32", choices=DTYPES, help="of autocast (default %(default)s)")
    parser.add_argument("--accumulate", type=int, default=2, help="batches a step (default %(default)s)")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--mode", default="factored", help="of LoRA-Pro (default %(default)s)")
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = adapted_llama().to(device)
    if args.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batches = DataLoader(text(), batch_size=4)

    optimizer = create_lorapro_optimizer(model, lr=args.lr, mode=args.mode)  # the one line
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=args.steps)
    scaler = torch.amp.GradScaler(device, enabled=args.dtype == "fp16")

    for step in range(args.steps):
        loss = 0.0
        for number, batch in zip(range(args.accumulate), batches):
            batch = {key: value.to(device) for key, value in batch.items()}
            with torch.autocast(device, DTYPES[args.dtype], enabled=args.dtype != "f32"):
                part = model(**batch).loss / args.accumulate
            scaler.scale(part).backward()
            loss += part.item()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == args.steps - 1:
            print(f"step {step:3d}   loss {loss:.3f}   lr {scheduler.get_last_lr()[0]:.1e}")

    adapters = optimizer.reports()
    name, report = next(iter(adapters.items()))
    print(f"{len(adapters)} adapters; `{name}` has taken {report['step']} steps")


if __name__ == "__main__":
    main()
