"""transformers' Trainer, three ways to give it LoRA-Pro.

    python trainer.py

1. `optimizers=(optimizer, None)`: the optimizer is made before the Trainer, which makes the scheduler.
2. `optimizer_cls_and_kwargs=(LoraPro, {"model": model, "lr": ...})`: the Trainer makes it when it starts to
   train, and takes "model" out of the dict. It must be there: else the Trainer passes parameters without names.
3. `optimizer_cls_and_kwargs=(LoraProFactory, {"lr": ...})`: what is not an optimizer's class is a factory to
   the Trainer (transformers 5), and gets the model by itself.

In each, `learning_rate`, `weight_decay`, `adam_beta1` and so on of TrainingArguments do not reach the optimizer:
give them to LoRA-Pro. The scheduler, `max_grad_norm` (a clip before the step), accumulation, bf16 and
checkpoints work as ever. The three runs end with the same bits.
"""

from __future__ import annotations

import tempfile

import torch
import transformers
from tiny_model import adapted_llama, arguments, text
from transformers import Trainer, TrainingArguments

from lorapro import LoraPro, LoraProFactory, create_lorapro_optimizer


def ways(model: torch.nn.Module, lr: float) -> dict[str, dict]:
    """Arguments of the Trainer."""
    return {
        "optimizers": {"optimizers": (create_lorapro_optimizer(model, lr=lr), None)},
        "class": {"optimizer_cls_and_kwargs": (LoraPro, {"model": model, "lr": lr})},
        "factory": {"optimizer_cls_and_kwargs": (LoraProFactory, {"lr": lr})},
    }


def train(way: str, steps: int, lr: float, folder: str) -> Trainer:
    """One run; the model is the same for each."""
    model = adapted_llama()
    args = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=4,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, args, train_dataset=text(), **ways(model, lr)[way])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def main() -> None:
    args = arguments(__doc__).parse_args()
    weights = {}
    for way in ("optimizers", "class", "factory"):
        with tempfile.TemporaryDirectory() as folder:
            trainer = train(way, args.steps, args.lr, folder)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        print(f"{way:<12} {type(trainer.optimizer.optimizer).__name__}   loss {losses[0]:.3f} -> {losses[-1]:.3f}")
        weights[way] = torch.cat([p.detach().cpu().flatten() for p in trainer.model.parameters() if p.requires_grad])
    equal = all(torch.equal(weights["optimizers"], other) for other in weights.values())
    print("the same bits in each:", equal)


if __name__ == "__main__":
    main()
