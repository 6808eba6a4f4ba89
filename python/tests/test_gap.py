"""The gap against g, E and the change of W as whole matrices, with g by autograd on the merged weight."""

import copy
import math

import lorapro
import peft
import peft_models
import pytest
import torch
from lorapro.gradient import Gradient
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(trained(model), lr=0.1),
    "adamw": lambda model: torch.optim.AdamW(trained(model), lr=0.01, weight_decay=0.1),
    "lorapro": lambda model: lorapro.LoraPro(model, lr=0.01, mode="factored"),
}


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


class Adapted(nn.Module):
    """A linear layer with an adapter, without PEFT."""

    def __init__(self, m=6, n=9, r=2):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(m, n), requires_grad=False)
        self.lora_A, self.lora_B = nn.Linear(n, r, bias=False), nn.Linear(r, m, bias=False)
        self.scaling = 0.7

    def forward(self, x):
        return functional.linear(x, self.weight) + self.scaling * self.lora_B(self.lora_A(x))


def block(dtype=torch.float64, **options):
    """A PEFT model with two adapted layers, B not zero."""
    torch.manual_seed(0)
    config = peft.LoraConfig(**peft_models.lora(target_modules=["first", "second"], **options))
    model = peft.get_peft_model(peft_models.Block(), config)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    return model.to(dtype)


def products(model):
    """s B A of each adapted layer by the adapter's name."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)}
    return {f"{name}.default": layer.get_delta_weight("default").detach().double() for name, layer in layers.items()}


def full_gradients(model, batches):
    """dL/dW of each adapted layer, of a copy of the model with merged weights."""
    model, weights = copy.deepcopy(model), {}
    for name, delta in products(model).items():
        layer = model.get_submodule(name.removesuffix(".default"))
        base = layer.get_base_layer()
        weights[name] = w = (base.weight + delta).detach().requires_grad_()
        layer.forward = lambda x, w=w, bias=base.bias: functional.linear(x, w, bias)
    for batch in batches:
        peft_models.loss_of(model, batch).backward()
    return {name: w.grad for name, w in weights.items()}


def best(g, e):
    """|g - c E| / |g|, the least over c >= 0."""
    c = max(float((g * e).sum() / e.square().sum()), 0)
    return float((g - c * e).norm() / g.norm())


def expected(g, a, b, s, change):
    """The five numbers of an adapter, by whole matrices."""
    lora = s * s * (b @ b.mT @ g + g @ a.mT @ a)
    outside = [torch.eye(len(p), dtype=g.dtype) - p for p in (b @ torch.linalg.pinv(b), torch.linalg.pinv(a) @ a)]
    return {
        "lora_raw": float((g - lora).norm() / g.norm()),
        "lora_rescaled": best(g, lora),
        "lora_pro": float((outside[0] @ g @ outside[1]).norm() / g.norm()),
        "step_rescaled": best(g, -change),
        "step_cosine": float(-(g * change).sum() / g.norm() / change.norm()),
    }


# 240 / 32 tokens are as many numbers as g of one layer has: below, in between, and above at once.
@pytest.mark.parametrize("sizes", [(2, 4), (5, 5), (30, 12)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_equals_brute_force(optimizer, sizes):
    model = block()
    stepper = OPTIMIZERS[optimizer](model)
    for _ in range(2):  # the second step has moments
        batches = [torch.randint(0, 23, (1, size)) for size in sizes]
        g, before = full_gradients(model, batches), products(model)
        factors = {name: p.detach().clone() for name, p in model.named_parameters()}
        stepper.zero_grad()
        with lorapro.gap(model) as gaps:
            for batch in batches:
                peft_models.loss_of(model, batch).backward()
            stepper.step()
            stepper.zero_grad()
        change = {name: after - before[name] for name, after in products(model).items()}
        assert list(gaps.adapters) == list(g) and not gaps.skipped
        for name, measured in gaps.adapters.items():
            a, b = (factors[name.replace(".default", f".lora_{factor}.default.weight")] for factor in "AB")
            assert vars(measured) == pytest.approx(expected(g[name], a, b, 2.0, change[name]), abs=1e-7)
        whole, moved = (torch.cat([x[name].flatten() for name in g]) for x in (g, change))
        assert gaps.total.step_rescaled == pytest.approx(best(whole, -moved), abs=1e-7)
        least = sum((gaps.adapters[name].lora_pro * g[name].norm()) ** 2 for name in g)
        assert gaps.total.lora_pro == pytest.approx(float(least.sqrt() / whole.norm()), abs=1e-7)


@pytest.mark.parametrize("tokens", [3, 40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision_and_dropout(dtype, tokens):
    """A layer of 16 bits: g is the sum of products of its own numbers, without dropout and without rounding."""
    torch.manual_seed(1)
    config = peft.LoraConfig(**peft_models.lora(target_modules=["0"], lora_dropout=0.5, init_lora_weights="pissa"))
    model = peft.get_peft_model(nn.Sequential(nn.Linear(9, 7)), config).to(dtype)
    layer = model.base_model.model[0]
    x, delta = (torch.randn(tokens, size).to(dtype) for size in (9, 7))
    a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
    old_a, old_b = a.detach().double(), b.detach().double()
    stepper = torch.optim.SGD(trained(model), lr=0.05)
    with lorapro.gap(model) as gaps:
        (model(x) * delta).sum().backward()
        stepper.step()
    change = 2 * (b.double() @ a.double() - old_b @ old_a).detach()
    found = vars(gaps.adapters["base_model.model.0.default"])
    assert found == pytest.approx(expected(delta.double().mT @ x.double(), old_a, old_b, 2.0, change), rel=1e-4)


def test_known_values():
    torch.manual_seed(2)
    x, target = torch.randn(20, 9), torch.randn(20, 6)

    def measure(optimizer, weight=1.0):
        layer = Adapted()
        with lorapro.gap(layer) as gaps:
            (weight * (layer(x) - target)).square().mean().backward()
            optimizer(layer).step()
        return gaps.adapters[""]

    pro = measure(lambda layer: lorapro.LoraPro(layer, lr=1e-3, mode="sgd", damping="none"))
    assert pro.step_rescaled == pytest.approx(pro.lora_pro, rel=1e-3) and 0.1 < pro.lora_pro < pro.lora_rescaled
    lora = measure(lambda layer: torch.optim.SGD(trained(layer), lr=1e-4))
    assert lora.step_rescaled == pytest.approx(lora.lora_rescaled, rel=1e-3)
    assert lora.lora_rescaled < min(lora.lora_raw, 1)
    still = measure(lambda layer: torch.optim.SGD(trained(layer), lr=0.0))
    assert (still.step_rescaled, still.step_cosine) == (1, 0)
    uphill = measure(lambda layer: torch.optim.SGD(trained(layer), lr=1e-4, maximize=True))
    assert uphill.step_rescaled == 1 and uphill.step_cosine < -0.1
    nothing = measure(lambda layer: torch.optim.SGD(trained(layer), lr=0.1), weight=0.0)
    assert set(vars(nothing).values()) == {0}


def test_two_adapters_of_one_layer():
    model = block()
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])
    state = {name: x for name, x in model.state_dict().items() if ".default." in name}
    model.load_state_dict({name.replace(".default.", ".other."): x for name, x in state.items()}, strict=False)
    with lorapro.gap(model) as gaps:
        peft_models.backward(model, torch.arange(14).view(2, 7))
    for layer in ("first", "second"):
        one, other = (gaps.adapters[f"base_model.model.{layer}.{name}"] for name in ("default", "other"))
        assert one == other and 0 < one.lora_pro < 1


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_counted_once(reentrant):
    layer, x = Adapted(), torch.randn(20, 9, requires_grad=True)
    found = []
    for forward in (layer, lambda x: checkpoint(layer, x, use_reentrant=reentrant)):
        layer.zero_grad()
        with lorapro.gap(layer) as gaps:
            forward(x).square().mean().backward()
        found.append(gaps.adapters)
    assert found[0] == found[1] != {}


def test_the_model_is_left_as_it_is():
    """The same bits with and without, also of dropout's random numbers."""
    found = []
    for measured in (False, True):
        model = block(torch.float32, lora_dropout=0.3)
        stepper = OPTIMIZERS["lorapro"](model)
        with lorapro.gap(model, where=lambda name: measured) as gaps:
            peft_models.loss_of(model, torch.arange(14).view(2, 7)).backward()
            stepper.step()
        assert bool(gaps.adapters) == measured
        found.append([torch.rand(3), *(t for p in trained(model) for t in (p.detach(), p.grad))])
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_are_removed(fails, monkeypatch):
    layer, x = Adapted(), torch.randn(4, 9)
    loss = None
    try:
        with lorapro.gap(layer) as gaps:
            assert layer._forward_hooks
            loss = layer(x).sum()
            loss.backward(retain_graph=True)
            if fails:
                raise KeyError("stop")
    except KeyError:
        assert fails
    assert bool(gaps.adapters) != fails
    assert not layer._forward_hooks
    monkeypatch.setattr(Gradient, "add", lambda *_: pytest.fail("a hook is left"))
    loss.backward()
    layer(x).sum().backward()


class Sizes(TorchDispatchMode):
    """The most numbers in any tensor that torch makes (views of parameters aside)."""

    def __init__(self, model):
        super().__init__()
        self.largest = 0
        self._known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self._known:
                self.largest = max(self.largest, x.numel())
        return result


@pytest.mark.parametrize("tokens, largest", [(119, 119 * 300), (121, 200 * 300)])
def test_forms_no_gradient_where_tokens_are_few(tokens, largest):
    """Up to m n / (m + n) = 120 tokens, nothing is larger than these."""
    m, n = 200, 300
    layer = Adapted(m, n)
    stepper = torch.optim.SGD(trained(layer), lr=0.1)
    with Sizes(layer) as sizes, lorapro.gap(layer) as gaps:
        layer(torch.randn(tokens, n)).square().sum().backward()
        stepper.step()
    assert gaps.adapters
    assert sizes.largest == largest


SKIPPED = {
    "embedding": "Embedding, and only linear layers",
    "conv2d": "Conv2d, and only linear layers",
    "experts": "Experts, and only linear layers",
    "dora": "DoraLinearVariant",
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_says_what_is_skipped(kind):
    model, batch = peft_models.make(kind)
    with lorapro.gap(model) as gaps:
        peft_models.backward(model, batch)
    assert gaps.skipped and all(SKIPPED[kind] in why for why in gaps.skipped.values())
    assert len(gaps.adapters) + len(gaps.skipped) == (1 if kind == "experts" else peft_models.MODELS[kind][3])


class Paired(Adapted):
    def forward(self, x):
        return super().forward(x), None


class Copying(Adapted):
    """Its own product does not notice that its input is changed."""

    def forward(self, x):
        return super().forward(x.clone())


def change_input(layer):
    y = layer(x := torch.randn(4, 9))
    x += 1
    y.sum().backward()


def test_says_why_an_adapter_is_not_measured():
    def skipped(layer, backward):
        with lorapro.gap(layer) as gaps:
            backward(layer)
        assert not gaps.adapters and gaps.total is None and gaps.scalars() == {}
        return gaps.skipped[""]

    assert "no backward pass" in skipped(Adapted(), lambda layer: layer(torch.randn(4, 9)))
    assert "NaN" in skipped(Adapted(), lambda layer: layer(torch.full((4, 9), math.nan)).sum().backward())
    first = lambda layer: layer(torch.randn(4, 9))[0].sum().backward()  # noqa: E731
    assert "does not map a tensor (..., 9)" in skipped(Paired(), first)
    assert "changed in place" in skipped(Copying(), change_input)
    frozen = Adapted()
    frozen.lora_A.weight.requires_grad_(False)
    assert "two trained factors" in skipped(frozen, lambda layer: layer(torch.randn(4, 9)).sum().backward())
    unknown = Adapted()
    del unknown.scaling
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got NoneType"), lorapro.gap(None):
        pass
    with pytest.raises(ValueError, match="pass scale"), lorapro.gap(unknown):
        pass
    tied = nn.ModuleList([Adapted(), Adapted()])
    tied[1].lora_A = tied[0].lora_A
    with pytest.raises(ValueError, match="shares the parameter `0.lora_A.weight`"), lorapro.gap(tied):
        pass


class Scalars:
    """Of a TensorBoard writer, what is used."""

    def __init__(self):
        self.seen = {}

    def add_scalar(self, name, x, step):
        self.seen[name, step] = x


class Run:
    """Of a wandb run, what is used."""

    def log(self, values, step):
        self.seen = {(name, step): x for name, x in values.items()}


@pytest.fixture(scope="module")
def measured():
    model = block()
    with lorapro.gap(model) as gaps:
        peft_models.backward(model, torch.arange(7).view(1, 7))
    return gaps


@pytest.mark.parametrize("writer", [Scalars, Run])
def test_logs(writer, measured):
    writer = writer()
    measured.log(writer, 5)
    name = "base_model.model.first.default"
    assert writer.seen["gap/lora_pro", 5] == measured.total.lora_pro
    assert writer.seen[f"gap/{name}/step_cosine", 5] == measured.adapters[name].step_cosine
    assert len(writer.seen) == 15
    with pytest.raises(TypeError, match="writer is a list"):
        measured.log([], 5)


def test_logs_to_tensorboard(measured, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(tmp_path) as writer:
        measured.log(writer, 5)
    assert list(tmp_path.iterdir())
