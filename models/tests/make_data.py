"""Makes data/: tiny random models by transformers, with what torch computes of them.

Each folder is a model as `save_pretrained` writes it. `expected.safetensors` beside it has inputs, the
logits, and under `grad.<tensor>` gradients of sum(logits * probe). Run: python make_data.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

DATA = Path(__file__).parent / "data"


def sharpen(model):
    """Random weights far from their flat start, so that each part of the model shows in the logits."""
    for name, tensor in model.named_parameters():
        torch.nn.init.normal_(tensor, 1.0 if "norm" in name.lower() and "weight" in name else 0.0, 0.3)


def in_file(name):
    """The name in files, where transformers' own modules have been renamed since."""
    name = name.replace("vit.layers", "vit.encoder.layer")
    return name.replace("attention.q_proj", "attention.attention.query")


def record(folder, model, inputs, trained, wanted=None):
    sharpen(model)
    model.eval()
    model.config.dtype = None
    model.save_pretrained(DATA / folder)
    for extra in ["generation_config.json"]:
        (DATA / folder / extra).unlink(missing_ok=True)
    config = DATA / folder / "config.json"
    text = json.loads(config.read_text())
    text.pop("transformers_version")
    config.write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")
    logits = model(**inputs).logits
    if wanted is not None:
        logits = logits.flatten(0, 1)[wanted]
    probe = torch.randn_like(logits)
    (logits * probe).sum().backward()
    named = dict(model.named_parameters())
    tensors = {f"grad.{in_file(name)}": named[name].grad for name in trained}
    tensors |= {name: value.int() if value.dtype == torch.int64 else value for name, value in inputs.items()}
    tensors |= {"logits": logits.detach(), "probe": probe}
    if wanted is not None:
        tensors["wanted"] = torch.tensor(wanted).int()
    save_file(tensors, DATA / folder / "expected.safetensors")


def texts(vocabulary):
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7])
    # torch gives the row of the padding token no gradient, so only padding has its number, 0.
    return {"input_ids": torch.randint(1, vocabulary, (3, 9)) * mask, "attention_mask": mask}


def bert():
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=12, num_labels=3,
    )
    types = torch.tensor([[0] * 5 + [1] * 4, [0] * 9, [0] * 9])
    trained = [
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.token_type_embeddings.weight",
        "bert.embeddings.LayerNorm.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.encoder.layer.0.attention.self.key.weight",
        "bert.encoder.layer.0.attention.self.value.bias",
        "bert.encoder.layer.1.intermediate.dense.weight",
        "bert.encoder.layer.1.output.LayerNorm.bias",
        "classifier.weight",
    ]
    record("bert", BertForSequenceClassification(config), texts(40) | {"token_type_ids": types}, trained)


def decoder(folder, config, model, extra=()):
    trained = [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.1.mlp.gate_proj.weight",
        *extra,
    ]
    record(folder, model(config), texts(40), trained, wanted=[0, 3, 8, 9, 14, 18, 19])


SMALL = dict(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=24, max_position_embeddings=64,
)


def llama():
    scaling = {
        "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    }
    config = LlamaConfig(**SMALL, rope_parameters=scaling, tie_word_embeddings=False)
    decoder("llama", config, LlamaForCausalLM, ["lm_head.weight"])


def qwen2():
    config = Qwen2Config(**SMALL, tie_word_embeddings=True)
    decoder("qwen2", config, Qwen2ForCausalLM, ["model.layers.0.self_attn.k_proj.bias"])


def vit():
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, image_size=8,
        patch_size=4, num_channels=3, num_labels=3,
    )
    trained = [
        "vit.embeddings.cls_token",
        "vit.embeddings.position_embeddings",
        "vit.embeddings.patch_embeddings.projection.weight",
        "vit.layers.0.attention.q_proj.weight",
        "vit.layers.1.layernorm_before.weight",
        "classifier.weight",
    ]
    pixels = {"pixel_values": torch.randn(2, 3, 8, 8)}
    record("vit", ViTForImageClassification(config), pixels, trained)


if __name__ == "__main__":
    for number, make in enumerate([bert, llama, qwen2, vit]):
        torch.manual_seed(number)
        make()
