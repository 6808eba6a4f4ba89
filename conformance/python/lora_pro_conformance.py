"""Serves an optimizer of low-rank adapters to the LoRA-Pro conformance kit.

    serve(step, description)                plain functions on numpy arrays
    serve_torch(make_optimizer, description)         optimizers like torch's

The protocol is described in the book's chapter "The protocol"; this module is all of it.
"""
import copy, json, math, sys

PROTOCOL = 1
GRADIENT = {"A": "grad_A", "B": "grad_B", "value": "grad"}


class Unsupported(Exception):
    """Raised where something is not done at all."""


class NonFinite(Exception):
    """Raised with the adapter's name and a message where a number is not finite."""


def talk(new_session, description):
    """Answers messages; `new_session()` gives a function of one `run` message."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what others print is no answer
    sessions = {}
    for line in sys.stdin:
        message = json.loads(line)
        kind = message["message"]
        try:
            if kind == "hello":
                answer = {"ok": {"protocol": PROTOCOL}}
            elif kind == "describe":
                answer = {"ok": description}
            elif kind == "run":
                number = message["session"]
                if number not in sessions:
                    sessions[number] = new_session()
                answer = {"ok": sessions[number](message) or {}}
            elif kind == "end":
                sessions.pop(message["session"], None)
                answer = {"ok": {}}
            else:
                return
        except Unsupported as reason:
            answer = {"unsupported": str(reason)}
        except NonFinite as found:
            name, text = found.args
            answer = {"error": {"kind": "non_finite", "adapter": name, "message": text}}
        except Exception as error:
            answer = {"error": {"kind": "other", "message": f"{type(error).__name__}: {error}"}}
        print(json.dumps(answer), file=answers, flush=True)


def contents(path):
    """All bytes: a mapped file may change under tensors that are kept."""
    with open(path, "rb") as file:
        return file.read()


def clip(norm, control):
    """What gradients are multiplied by: the caller's scale and the clip by their global norm."""
    limit = control["max_grad_norm"]
    scale = control["grad_scale"]
    return scale if limit is None or norm * scale <= limit else limit / norm


def serve(step, description):
    """`step(adapter, tensors, state, lr)` changes `tensors["A"]`, `tensors["B"]` (and `"W0"`) and
    the dict `state`, which starts empty; what `description["state"]` names of it, if anything, is
    shown to the kit.

    What concerns the whole step is done here: finite numbers, `grad_scale`, the global clip.
    """
    import numpy as np
    from safetensors.numpy import load, save_file

    shown_state = description.get("state", [])

    def new_session():
        memory = {}

        def run(message):
            control, file = message["control"], load(contents(message["input"]))
            adapters = [{} for _ in message["adapters"]]
            for key, value in file.items():
                if not key.startswith("param."):
                    number, name = key.split(".", 1)
                    adapters[int(number)][name] = value
            if message["params"]:
                raise Unsupported("unpaired parameters")
            for adapter, tensors in zip(message["adapters"], adapters):
                for name, value in tensors.items():
                    if not np.isfinite(value).all():
                        reason = f"{name} is not finite"
                        if control["on_non_finite"] == "skip" and name.startswith("grad"):
                            return {"skipped": {"adapter": adapter["name"], "reason": reason}}
                        raise NonFinite(adapter["name"], reason)
            grads = [t[g].astype(np.float64) for t in adapters for g in ("grad_A", "grad_B")]
            norm = math.sqrt(sum(float((g * g).sum()) for g in grads))
            new, after = {}, {}
            for k, (adapter, tensors) in enumerate(zip(message["adapters"], adapters)):
                state = copy.deepcopy(memory.get(adapter["name"], {}))
                if adapter["load"]:
                    state = {name: tensors[name] for name in shown_state if name in tensors}
                for grad in ("grad_A", "grad_B"):
                    tensors[grad] = tensors[grad] * clip(norm, control)
                step(adapter, tensors, state, adapter["hyper"]["lr"] * control["lr_factor"])
                shown = [n for n in ("A", "B", "W0") if n in tensors]
                after.update({f"{k}.{n}": tensors[n] for n in shown})
                after.update({f"{k}.{n}": state[n] for n in shown_state if n in state})
                new[adapter["name"]] = state
            save_file({k: np.ascontiguousarray(v) for k, v in after.items()}, message["output"])
            memory.update(new)  # only now: a step that fails leaves no trace

        return run

    talk(new_session, description)


def serve_torch(make_optimizer, description):
    """`make_optimizer(pairs, params, hyper)` gives an object like a `torch.optim.Optimizer`, for
    pairs `(name, A, B, s)` and parameters `(name, value)` that first appear together and have equal
    hyper-parameters. Learning rates are set through its `param_groups`.

    Where `description["state"]` is there and not empty it has `read_state(name)`, a dict of tensors, and
    `write_state(name, tensors, t)`, which replaces what it keeps before step t.
    """
    import torch
    from safetensors.torch import load, save_file

    shown_state = description.get("state", [])

    def new_session():
        members = {}  # name: (its Parameters by name, its optimizer)

        def run(message):
            control, file = message["control"], load(contents(message["input"]))
            listed = [(f"{k}.", a, ("A", "B")) for k, a in enumerate(message["adapters"])]
            listed += [(f"param.{k}.", p, ("value",)) for k, p in enumerate(message["params"])]
            fresh = {}
            for prefix, item, names in listed:
                if item["name"] not in members:
                    tensors = {n: torch.nn.Parameter(file[prefix + n].clone()) for n in names}
                    fresh.setdefault(json.dumps(item["hyper"]), []).append((item, tensors))
            for group in fresh.values():
                pairs = [(i["name"], t["A"], t["B"], i["s"]) for i, t in group if "A" in t]
                params = [(i["name"], t["value"]) for i, t in group if "value" in t]
                optimizer = make_optimizer(pairs, params, group[0][0]["hyper"])
                members.update({i["name"]: (t, optimizer) for i, t in group})
            for tensors, _ in members.values():
                for tensor in tensors.values():
                    tensor.grad = None
            grads = [file[prefix + GRADIENT[n]] for prefix, _, names in listed for n in names]
            scale = clip(math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads)), control)
            optimizers, grads = [], iter(grads)
            for prefix, item, names in listed:
                tensors, optimizer = members[item["name"]]
                for name in names:
                    tensors[name].data.copy_(file[prefix + name])
                    tensors[name].grad = next(grads) * scale
                if item["load"]:
                    state = {n: file[prefix + n] for n in shown_state if prefix + n in file}
                    optimizer.write_state(item["name"], state, item["t"])
                for group in optimizer.param_groups:
                    group["lr"] = item["hyper"]["lr"] * control["lr_factor"]
                if optimizer not in optimizers:
                    optimizers.append(optimizer)
            for optimizer in optimizers:
                optimizer.step()
            after = {}
            for prefix, item, names in listed:
                tensors, optimizer = members[item["name"]]
                after.update({prefix + n: tensors[n].detach() for n in names})
                if shown_state:
                    state = optimizer.read_state(item["name"])
                    after.update({prefix + n: value for n, value in state.items()})
            save_file({k: v.clone().contiguous() for k, v in after.items()}, message["output"])

        return run

    talk(new_session, description)
