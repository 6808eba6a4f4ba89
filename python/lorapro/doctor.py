"""What works on this machine, and whether it is right.

    python -m lorapro.doctor            versions, backends, and a self-check of a second
    python -m lorapro.doctor --json     the same for programs

The self-check takes the steps of recorded trajectories, one a mode, with every backend, device and dtype that
is there. Its numbers are ||x - recorded|| / ||recorded|| of the factors at the end, in units of the dtype's
rounding (2^-53 for f64, 2^-24 for f32, 2^-8 for bf16, 2^-11 for f16). Four steps round a few times, so about 1 to
10 is right; 30 and more is wrong. Exit code 0: everything that is there is right. 1: something is wrong.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from . import __version__, _lorapro
from .backends import Backends
from .optimizer import LoraPro
from .torch_backend import DTYPES, TorchBackend
from .torch_backend.precision import f64_device

# What an error may reach, in units of rounding: as in the conformance kit, and in LAPACK's testers.
LIMIT = 30.0

VECTORS = Path(__file__).with_name("vectors.json")


def recorded() -> list[dict[str, Any]]:
    """The trajectories: options, scale s, A and B at the start, the gradients g of W, A and B at the end."""
    trajectories: list[dict[str, Any]] = json.loads(VECTORS.read_text())["trajectories"]
    return trajectories


def examine() -> dict[str, Any]:
    """Everything that is printed."""
    checks = {
        f"{backend} on {device.type}": {
            one["options"]["mode"]: {dtype: check(one, backend, device, dtype) for dtype in dtypes(device)}
            for one in recorded()
        }
        for backend, device in places()
    }
    numbers = [number for modes in checks.values() for row in modes.values() for number in row.values()]
    right = all(isinstance(number, float) and number < LIMIT for number in numbers)
    about = {"versions": versions(), "backends": backends(), "auto": auto()}
    return about | {"checks": checks, "limit": LIMIT, "right": right}


def versions() -> dict[str, str]:
    """Of this package, and of what it works with."""
    found = {"lorapro": __version__, "torch": torch.__version__}
    for name in ("peft", "transformers", "accelerate"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"python": platform.python_version(), "platform": platform.platform()}


def backends() -> dict[str, dict[str, Any]]:
    """The manifest of each backend, or why it is not there."""
    found: dict[str, dict[str, Any]] = {}
    for name in _lorapro.backends():
        try:
            found[name] = _lorapro.CompiledBackend(name).manifest()
        except RuntimeError as error:
            found[name] = {"missing": str(error)}
    return found | {"torch": TorchBackend().manifest()}


def devices() -> list[torch.device]:
    """The CPU, and the accelerator that torch has, if any."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return [torch.device("cpu")] + ([accelerator] if accelerator is not None else [])


def auto() -> dict[str, str]:
    """For each device, the backend that `backend="auto"` takes there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that the torch backend is taken, as the result does
        return {device.type: Backends("auto").of(device).manifest()["name"] for device in devices()}


def places() -> list[tuple[str, torch.device]]:
    """Each backend that is there with the devices whose tensors it takes."""
    def takes(name: str, device: torch.device) -> bool:
        return name == "torch" or device.type == ("cuda" if name == "cuda" else "cpu")

    there = [name for name, manifest in backends().items() if "missing" not in manifest]
    return [(name, device) for name in there for device in devices() if takes(name, device)]


def dtypes(device: torch.device) -> list[str]:
    """Of factors on a device."""
    return [name for name in DTYPES if name != "f64" or f64_device(device) == device]


def check(trajectory: dict[str, Any], backend: str, device: torch.device, dtype: str) -> float | str:
    """The error at the end of a trajectory in units of rounding, or what prevented it."""
    try:
        return follow(trajectory, backend, device, DTYPES[dtype])
    except (ArithmeticError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def follow(trajectory: dict[str, Any], backend: str, device: torch.device, dtype: torch.dtype) -> float:
    """Steps along a trajectory; gives the larger error of A and B. A gradient is that of g at the present factors."""
    start = [torch.tensor(trajectory[factor], dtype=torch.float64) for factor in "AB"]
    a, b = (torch.nn.Parameter(x.to(dtype).to(device)) for x in start)
    s = trajectory["scale"]
    optimizer = LoraPro([(a, b, s)], backend=backend, **trajectory["options"])
    for rows in trajectory["g"]:
        g = torch.tensor(rows, dtype=torch.float64)
        a64, b64 = (x.detach().cpu().double() for x in (a, b))
        a.grad, b.grad = (x.to(dtype).to(device) for x in (s * b64.mT @ g, s * g @ a64.mT))
        optimizer.step()
    errors = []
    for x, factor in ((a, "end A"), (b, "end B")):
        end = torch.tensor(trajectory[factor], dtype=torch.float64)
        errors.append(float((x.detach().cpu().double() - end).norm() / end.norm()))
    return max(errors) / (torch.finfo(dtype).eps / 2)


def text(report: dict[str, Any]) -> str:
    """The report to read."""
    lines = ["  ".join(f"{name} {version}" for name, version in report["versions"].items()), "", "backends"]
    for name, manifest in report["backends"].items():
        there = [manifest.get("device"), manifest.get("code_path"), " ".join(manifest.get("dtypes", []))]
        lines.append(f"  {name:<10} {manifest.get('missing') or '; '.join(map(str, there))}")
    taken = ", ".join(f"{backend} on {device}" for device, backend in report["auto"].items())
    lines += [f'  backend="auto" takes {taken}; torch\'s number of threads is {torch.get_num_threads()}', ""]
    lines.append(f"self-check: error in units of rounding; below {report['limit']:g} is right")
    for place, modes in report["checks"].items():
        lines.append("  " + f"{place:<20}" + "".join(f"{dtype:>8}" for dtype in next(iter(modes.values()))))
        for mode, row in modes.items():
            numbers = [f"{x:>8.1f}" if isinstance(x, float) else f"{'error':>8}" for x in row.values()]
            lines.append("  " + f"  {mode:<18}" + "".join(numbers))
            lines += [f"    {dtype}: {x}" for dtype, x in row.items() if isinstance(x, str)]
    lines += ["", "all is right" if report["right"] else "SOMETHING IS WRONG: see the self-check"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lorapro.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="versions, backends, auto, checks, limit and right as JSON")
    args = parser.parse_args(arguments)
    report = examine()
    print(json.dumps(report, indent=2) if args.json else text(report))
    return 0 if report["right"] else 1


if __name__ == "__main__":
    sys.exit(main())
