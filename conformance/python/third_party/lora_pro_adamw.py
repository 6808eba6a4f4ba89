"""The package lora-pro-adamw (0.2.1 from PyPI) as a subject: `python lora_pro_adamw.py [eig] [exact]`.

Its two modes are the methods `full` and `efficient`. Its adjusted gradients, without Adam, are the
method `sgd`: the package gives them as the first moments with both betas 0, and plain descent along
them is done here. `eig` takes the package's other Sylvester solver. Its damping is a literal, 1e-8
in the full mode and 1e-6 elsewhere; `exact` claims the pseudo-inverse, so that laws which speak of
that are tried all the same.
"""
import os, sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import torch
from lora_pro import LoRAProAdamW
from lora_pro._lorapro import lorapro_efficient_adjustment
from lora_pro_conformance import Unsupported, serve_torch

SOLVER = "eig" if "eig" in sys.argv else "vec"
DAMPING = {"full": 1e-8, "efficient": 1e-6, "sgd": 1e-6}
STATE = {"full": {"m": "exp_avg", "v": "exp_avg_sq"},
         "efficient": {"mA": "exp_avg_a", "vA": "exp_avg_sq_a", "mB": "exp_avg_b", "vB": "exp_avg_sq_b"}}


class Packaged:
    """The package's optimizer, its state by this project's names."""

    def __init__(self, pairs, params, hyper):
        model = torch.nn.Module()
        for k, (_, a, b, s) in enumerate(pairs):
            layer = torch.nn.Module()
            layer.lora_A, layer.lora_B, layer.lora_alpha, layer.r = a, b, s, 1
            model.add_module(f"layer{k}", layer)
        for k, (_, value) in enumerate(params):
            model.register_parameter(f"param{k}", value)
        self.names = STATE[hyper["method"]]
        self.index = {name: k for k, (name, *_) in enumerate(pairs)}
        self.params = dict(params)
        self.inner = LoRAProAdamW(
            model, lr=hyper["lr"], weight_decay=hyper["weight_decay"], eps=hyper["eps"],
            betas=(hyper["beta1"], hyper["beta2"]), lorapro_mode=hyper["method"],
            efficient_solver=SOLVER)
        self.param_groups, self.step = self.inner.param_groups, self.inner.step

    def read_state(self, name):
        if name in self.params:
            kept = self.inner._base.state[self.params[name]]
            return {n: kept[n] for n in ("exp_avg", "exp_avg_sq")}
        saved, k = self.inner.state_dict(), self.index[name]
        return {ours: saved[theirs][k] for theirs, ours in self.names.items()}

    def write_state(self, name, tensors, t):
        if name in self.params:
            state = {"step": torch.tensor(float(t - 1)), **tensors}
            self.inner._base.state[self.params[name]] = state
            return
        saved = self.inner.state_dict()
        for theirs, ours in self.names.items():
            saved[theirs][self.index[name]] = tensors[ours]
        self.inner.load_state_dict({**saved, "step": t - 1})


class Adjusted:
    """Descent along the package's adjusted gradients."""

    def __init__(self, pairs, hyper):
        self.pairs = {name: (a, b, s) for name, a, b, s in pairs}
        self.momentum, self.kept = hyper["momentum"], {}
        self.param_groups = [{"lr": hyper["lr"]}]

    @torch.no_grad()
    def step(self):
        for name, (a, b, s) in self.pairs.items():
            if a.grad is None:
                continue
            d_a, _, d_b, _ = lorapro_efficient_adjustment(
                a, b, a.grad, b.grad, s, 0, None, None, None, None, (0.0, 0.0), 1.0, solver=SOLVER)
            old = self.kept.get(name, (0, 0))
            new = [self.momentum * m + d for m, d in zip(old, (d_a, d_b))]
            for factor, direction in zip((a, b), new):
                factor -= self.param_groups[0]["lr"] * direction
            if self.momentum:
                self.kept[name] = new

    def read_state(self, name):
        return dict(zip(("momentum_a", "momentum_b"), self.kept.get(name, ())))

    def write_state(self, name, tensors, t):
        if tensors:
            self.kept[name] = [tensors["momentum_a"], tensors["momentum_b"]]


def make_optimizer(pairs, params, hyper):
    method = hyper["method"]
    if hyper["damping"] not in ("none", {"absolute": DAMPING[method]}):
        raise Unsupported(f"damping {hyper['damping']} in method {method}")
    if method == "sgd" and params:
        raise Unsupported("unpaired parameters in method sgd")
    if not pairs:
        raise Unsupported("a model without adapters")
    return Adjusted(pairs, hyper) if method == "sgd" else Packaged(pairs, params, hyper)


if __name__ == "__main__":
    serve_torch(make_optimizer, {
        "name": "lora-pro-adamw" + (" (eig)" if SOLVER == "eig" else ""),
        "version": "0.2.1",
        "device": "CPU",
        "dtypes": ["f64", "f32"],
        "methods": ["sgd", "efficient", "full"],
        "x": ["sylvester"],
        "dampings": ["absolute 1e-8", "absolute 1e-6"] + ["none"] * ("exact" in sys.argv),
        "options": ["weight_decay", "lr_factor", "momentum", "max_grad_norm", "grad_scale", "unpaired"],
        "state": ["momentum_a", "momentum_b"] + [n for names in STATE.values() for n in names.values()],
        "stability": "kappa_squared",
        "determinism": "rounding",
    })
