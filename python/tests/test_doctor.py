"""`python -m lorapro.doctor`: its trajectories are the conformance suite's, and it sees what is wrong.

`LORA_PRO_WRITE=1 pytest tests/test_doctor.py` writes the trajectories that the package carries.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from test_torch_backend import VECTORS, hyper_of, read_vector

from lorapro import LoraPro, doctor

NAMES = ["101-lora-zero-b", "102-sgd-zero-b", "103-efficient-zero-b", "104-factored-zero-b", "105-full-zero-b"]
MODES = ["lora", "sgd", "efficient", "factored", "full"]


def trajectory(name: str) -> dict:
    """One of the conformance suite as the doctor reads it."""
    meta, tensors = read_vector(VECTORS / f"{name}.safetensors")
    hyper = hyper_of(meta)
    betas = [hyper.pop("beta1", 0.9), hyper.pop("beta2", 0.999)]
    options = {"mode": hyper.pop("method"), "betas": betas}
    steps = int(meta["steps"])
    kept = {"A": "A.0", "B": "B.0", "end A": f"A.{steps}", "end B": f"B.{steps}"}
    values = {key: tensors[of].tolist() for key, of in kept.items()}
    g = [tensors[f"g.{step}"].tolist() for step in range(1, steps + 1)]
    return {"name": name, "options": options | hyper, "scale": float(meta["scale"]), **values, "g": g}


def test_the_trajectories_are_the_conformance_suites():
    suite = [trajectory(name) for name in NAMES]
    if os.environ.get("LORA_PRO_WRITE"):
        rows = ",\n".join(json.dumps(one) for one in suite)
        doctor.VECTORS.write_text('{"trajectories": [\n' + rows + "\n]}\n")
    assert doctor.recorded() == suite
    assert [one["options"]["mode"] for one in suite] == MODES
    assert doctor.VECTORS.stat().st_size < 50_000


def test_what_is_here_is_right(capsys):
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "all is right" in printed and f"torch {torch.__version__}" in printed
    assert "cpu on cpu" in printed and "torch on cpu" in printed and "reference on cpu" in printed


def test_as_json_and_as_a_command():
    command = [sys.executable, "-m", "lorapro.doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["right"] and report["auto"]["cpu"] == "cpu"
    assert report["backends"]["cpu"]["code_path"] and report["backends"]["torch"]["version"] == torch.__version__
    for modes in report["checks"].values():
        assert list(modes) == MODES
        assert all(0 < number < report["limit"] for row in modes.values() for number in row.values())


def test_a_backend_that_is_not_there_is_named_with_the_reason(monkeypatch, capsys):
    def absent(name, device=0):
        raise RuntimeError(f"the {name} backend: no driver")

    monkeypatch.setattr(doctor._lorapro, "CompiledBackend", absent)
    monkeypatch.setattr(doctor, "auto", dict)
    assert doctor.main([]) == 0  # the torch backend is right
    assert "the cuda backend: no driver" in capsys.readouterr().out


@pytest.mark.parametrize("mode", MODES)
def test_a_recorded_number_that_differs_is_seen_in_every_place(mode, monkeypatch, capsys):
    wrong = copy.deepcopy(doctor.recorded())
    rows = wrong[MODES.index(mode)]["end B"]
    rows[0][0] += 1e-4 * max(abs(x) for row in rows for x in row)
    monkeypatch.setattr(doctor, "recorded", lambda: wrong)
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    for modes in report["checks"].values():
        seen = {name for name, row in modes.items() if max(row["f64"], row["f32"]) >= report["limit"]}
        assert seen == {mode}


@pytest.mark.parametrize("dtype", ["f64", "f32", "bf16", "f16"])
@pytest.mark.parametrize("fault", ["no step", "half the rate", "descent for ascent"])
def test_a_wrong_step_is_seen_in_every_dtype(fault, dtype, monkeypatch):
    step = LoraPro.step

    def wrong(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.5e-2 if fault == "half the rate" else 1e-2
            group["maximize"] = fault == "descent for ascent"
        return None if fault == "no step" else step(self, closure)

    monkeypatch.setattr(LoraPro, "step", wrong)
    for one in doctor.recorded():
        assert doctor.check(one, "cpu", torch.device("cpu"), dtype) >= doctor.LIMIT


def test_an_error_in_the_check_is_printed_and_is_wrong(monkeypatch, capsys):
    def broken(self, closure=None):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(LoraPro, "step", broken)
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert "bf16: RuntimeError: no kernel" in printed and "SOMETHING IS WRONG" in printed
