"""Draws chapters/images/long_run.csv, which `--example long_run` writes. Needs matplotlib."""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "long_run"
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parent / "chapters" / "images"
COLORS = {
    "f32": "#0072b2",
    "bf16 with master copies": "#009e73",
    "bf16, stochastic": "#e69f00",
    "bf16, nearest": "#d55e00",
}

curves = defaultdict(lambda: defaultdict(list))
with open(IMAGES / "long_run.csv") as file:
    for line in csv.DictReader(file):
        curves[line["method"]][line["kind"]].append((int(line["step"]), float(line["error"])))

figure, axes = plt.subplots(1, len(curves), figsize=(10, 3.4), sharey=True)
for axis, (method, kinds) in zip(axes, curves.items()):
    for kind, points in kinds.items():
        steps, errors = zip(*points)
        axis.plot(steps, errors, color=COLORS[kind], label=kind, linewidth=1.4)
    axis.set(title=method, xlabel="step", yscale="log", xscale="log")
    axis.grid(alpha=0.25)
axes[0].set_ylabel("relative distance of s B A")
figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
figure.tight_layout(rect=(0, 0.08, 1, 1))
figure.savefig(IMAGES / "long_run.svg", metadata={"Date": None})
