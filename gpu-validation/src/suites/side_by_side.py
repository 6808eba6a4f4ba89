"""Steps that others make, on the same device.

    side_by_side.py measure QUESTION     times, as one line of JSON
    side_by_side.py steps QUESTION       A and B after some steps, as one line of JSON

QUESTION is JSON. The loops below are LoRA-Pro as public code has it: one adapter after the other,
Gram matrices with 1e-8 on their diagonal, moments of the size of the weight in the full mode.
"""

import json
import sys
import time

import torch

DAMPING = 1e-8
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def damped_inverse(gram):
    eye = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    return torch.linalg.inv(gram + DAMPING * eye)


def sylvester(left, right, target):
    """The X of left X + X right = target; left and right are symmetric."""
    values_left, left = torch.linalg.eigh(left)
    values_right, right = torch.linalg.eigh(right)
    rotated = left.T @ target @ right
    return left @ (rotated / (values_left[:, None] + values_right[None, :])) @ right.T


class Adapter:
    """A, B and their gradients; `step` is a method's."""

    def __init__(self, a, b, grad_a, grad_b, s):
        self.a, self.b, self.grad_a, self.grad_b, self.s = a, b, grad_a, grad_b, s
        self.t = 0

    def coordinates(self, grad_a, grad_b):
        """U and V, and the Gram matrices."""
        gram_a, gram_b = self.a @ self.a.T, self.b.T @ self.b
        inverse_a, inverse_b = damped_inverse(gram_a), damped_inverse(gram_b)
        u = inverse_b @ grad_a / self.s**2
        outside = grad_b - self.b @ (inverse_b @ (self.b.T @ grad_b))
        v = outside @ inverse_a / self.s**2
        return u, v, gram_a, gram_b

    def adjusted(self, grad_a, grad_b):
        """dA and dB, with the X that leaves them nearest to the gradients."""
        u, v, gram_a, gram_b = self.coordinates(grad_a, grad_b)
        x = sylvester(gram_b, gram_a, -u @ self.a.T)
        return u + x @ self.a, v - self.b @ x


def adam(first, second, gradient, t):
    """Adam's direction; both moments are updated."""
    first.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    return (first / (1 - BETA1**t)) / ((second / (1 - BETA2**t)).sqrt() + EPS)


class Efficient(Adapter):
    """Adam on A and B, each with its adjusted gradient."""

    def __init__(self, *tensors):
        super().__init__(*tensors)
        self.moments = [torch.zeros_like(x) for x in (self.a, self.a, self.b, self.b)]

    def step(self, lr):
        self.t += 1
        d_a, d_b = self.adjusted(self.grad_a, self.grad_b)
        m_a, v_a, m_b, v_b = self.moments
        self.a -= lr * adam(m_a, v_a, d_a, self.t)
        self.b -= lr * adam(m_b, v_b, d_b, self.t)


class Full(Adapter):
    """Adam on the equivalent gradient, in the weight's space."""

    def __init__(self, *tensors):
        super().__init__(*tensors)
        shape = (self.b.shape[0], self.a.shape[1])
        like = dict(dtype=self.a.dtype, device=self.a.device)
        self.first, self.second = torch.zeros(shape, **like), torch.zeros(shape, **like)

    def step(self, lr):
        self.t += 1
        u, v, _, _ = self.coordinates(self.grad_a, self.grad_b)
        equivalent = self.s * (self.b @ u + v @ self.a)
        n = adam(self.first, self.second, equivalent, self.t)
        d_a, d_b = self.adjusted(self.s * (self.b.T @ n), self.s * (n @ self.a.T))
        self.a -= lr * d_a
        self.b -= lr * d_b


METHODS = {"efficient": Efficient, "full": Full}


def random(shape, size, device):
    return (torch.rand(shape, device=device) * 2 - 1) * size


def adapter(method, m, n, r, device):
    tensors = (
        random((r, n), n**-0.5, device),
        random((m, r), 0.01, device),
        random((r, n), 1e-3, device),
        random((m, r), 1e-3, device),
    )
    return method(*tensors, 2.0)


def milliseconds(work, count, device):
    """Of one `work`, of which `count` are done."""
    if not device.startswith("cuda"):
        start = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - start) * 1e3 / count
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / count


def samples(work, question):
    device = question["device"]
    for _ in range(3):
        first = milliseconds(work, 1, device)
    count = max(1, min(50, round(question["sample_ms"] / first + 0.5)))
    # Slow work is not repeated for minutes.
    wanted = min(question["samples"], max(3, int(2e4 / (first * count))))
    return [milliseconds(work, count, device) for _ in range(wanted)]


def fused_adamw(shapes, device):
    params = [torch.nn.Parameter(random(shape, 0.01, device)) for shape in shapes]
    for param in params:
        param.grad = random(param.shape, 1e-3, device)
    return torch.optim.AdamW(params, lr=1e-7, fused=True).step


def adamw_factors(question):
    r = question["rank"]
    shapes = [shape for m, n in question["weights"] for shape in ((r, n), (m, r))]
    return fused_adamw(shapes, question["device"]), 1.0


def adamw_weights(question):
    """As many square weights as fit into half of the free memory, 16 at most."""
    device, side = question["device"], max(max(pair) for pair in question["weights"])
    side = min(side, 4096)
    free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 2**28
    count = max(1, min(16, free // 2 // (16 * side * side)))
    step = fused_adamw([(side, side)] * count, device)
    all_of_them = sum(m * n for m, n in question["weights"])
    return step, all_of_them / (count * side * side)


def loop(method, question, weights):
    r, device = question["rank"], question["device"]
    adapters = [adapter(method, m, n, min(r, m, n), device) for m, n in weights]

    def step():
        for each in adapters:
            each.step(1e-7)

    return step


def efficient_loop(question):
    return loop(Efficient, question, question["weights"]), 1.0


def full_loop(question):
    """One layer: the moments of all layers fit into no device's memory beside those of others."""
    layer = question["weights"][:7]
    return loop(Full, question, layer), len(question["weights"]) / len(layer)


ROWS = {
    "adamw-factors": ("torch's fused AdamW over A and B of all adapters", adamw_factors),
    "adamw-weights": ("torch's fused AdamW over the weights themselves", adamw_weights),
    "efficient-loop": ("LoRA-Pro efficient in torch, adapter by adapter", efficient_loop),
    "full-loop": ("LoRA-Pro full in torch, adapter by adapter", full_loop),
}


def measured(name, question):
    what, make = ROWS[name]
    row = {"name": name, "what": what, "scaled_by": 1.0, "problem": None}
    try:
        with torch.no_grad():
            work, row["scaled_by"] = make(question)
            row["ms"] = [ms * row["scaled_by"] for ms in samples(work, question)]
    except torch.OutOfMemoryError as error:
        row["problem"] = str(error).splitlines()[0]
    if question["device"].startswith("cuda"):
        torch.cuda.empty_cache()
    return row


def measure(question):
    if question["device"].startswith("cuda"):
        torch.cuda.set_device(question["device"])
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    return {"versions": versions, "rows": [measured(name, question) for name in ROWS]}


def steps(question):
    """Some steps in f64, for a comparison with numbers that are known."""
    tensors = [torch.tensor(question[name], dtype=torch.float64) for name in ("a", "b")]
    method = METHODS[question["method"]]
    each = method(*tensors, None, None, question["s"])
    for grad_a, grad_b in question["gradients"]:
        each.grad_a = torch.tensor(grad_a, dtype=torch.float64)
        each.grad_b = torch.tensor(grad_b, dtype=torch.float64)
        each.step(question["lr"])
    return {"a": each.a.tolist(), "b": each.b.tolist()}


if __name__ == "__main__":
    answer = {"measure": measure, "steps": steps}[sys.argv[1]]
    print(json.dumps(answer(json.loads(sys.argv[2]))))
