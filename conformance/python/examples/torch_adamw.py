"""torch's own AdamW on the factors, which is plain LoRA: the method `lora`."""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import torch
from lora_pro_conformance import serve_torch

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """With its state under this project's names: `exp_avg_a` is A's `exp_avg`."""

    def __init__(self, pairs, params, hyper):
        self.named = {name: {"_a": a, "_b": b} for name, a, b, _ in pairs}
        self.named |= {name: {"": value} for name, value in params}
        tensors = [tensor for named in self.named.values() for tensor in named.values()]
        super().__init__(
            tensors, lr=hyper["lr"], betas=(hyper["beta1"], hyper["beta2"]), eps=hyper["eps"],
            weight_decay=hyper["weight_decay"], maximize=hyper["maximize"])

    def read_state(self, name):
        named = self.named[name].items()
        return {m + suffix: self.state[tensor][m] for suffix, tensor in named for m in MOMENTS}

    def write_state(self, name, tensors, t):
        for suffix, tensor in self.named[name].items():
            moments = {m: tensors[m + suffix] for m in MOMENTS}
            self.state[tensor] = {"step": torch.tensor(float(t - 1)), **moments}


if __name__ == "__main__":
    serve_torch(AdamW, {
        "name": "torch-adamw",
        "version": torch.__version__,
        "device": "CPU",
        "dtypes": ["f64", "f32"],
        "methods": ["lora"],
        "x": [],
        "dampings": [],
        "options": ["weight_decay", "maximize", "lr_factor", "max_grad_norm", "grad_scale", "unpaired"],
        "state": [m + suffix for suffix in ("_a", "_b", "") for m in MOMENTS],
        "stability": "kappa",
        "determinism": "bitwise",
    })
