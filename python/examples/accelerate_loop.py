"""A loop with Hugging Face accelerate: gradient accumulation, clipping, a checkpoint and the way back to it.

    python accelerate_loop.py
    torchrun --nproc_per_node 2 accelerate_loop.py       # DDP: the same code

The optimizer is made from the model before `prepare`, and both go to `prepare` together. accelerate's
checkpoints hold the moments, and a run goes on from one to the last bit.
"""

from __future__ import annotations

import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tiny_model import adapted_llama, arguments, text
from torch.utils.data import DataLoader

from lorapro import create_lorapro_optimizer


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--mixed-precision", default="no", choices=("no", "bf16", "fp16"))
    args = parser.parse_args()
    cpu = not torch.cuda.is_available()
    accelerator = Accelerator(cpu=cpu, gradient_accumulation_steps=2, mixed_precision=args.mixed_precision)
    model = adapted_llama()
    optimizer = create_lorapro_optimizer(model, lr=args.lr)
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(text(), batch_size=2))

    def train(steps: int) -> float:
        """Steps of the optimizer, rounded to whole epochs; the loss of the last batch."""
        for _ in range(max(1, 2 * steps // len(batches))):
            for batch in batches:
                with accelerator.accumulate(model):  # step() does nothing but at the last batch of each two
                    loss = model(**batch).loss
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
        return loss.item()

    def weights() -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])

    accelerator.print(f"loss {train(0):.3f} after the first epoch")
    accelerator.print(f"loss {train(args.steps):.3f} after {args.steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        folder = broadcast_object_list([folder])[0]
        accelerator.save_state(folder)
        accelerator.print(f"loss {train(args.steps):.3f} after as many more")
        first = weights()
        accelerator.load_state(folder)
        accelerator.wait_for_everyone()
    accelerator.print(f"loss {train(args.steps):.3f} after as many more from the checkpoint")
    accelerator.print("the same bits:", torch.equal(first, weights()))
    accelerator.end_training()


if __name__ == "__main__":
    main()
