"""Files of the command lora-pro in transformers and PEFT, and PEFT's in the command: the same logits everywhere."""

from __future__ import annotations

import json
import random
import subprocess

import peft
import pytest
import torch
from command import COMMAND, ROOT, needs_command
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

pytestmark = needs_command

CLASSES = ["bad", "good", "so-so"]
WORDS = [*"a film to see again and long slow dull bright of the it is was".split(), *CLASSES]
SIZES = dict(
    vocab_size=len(WORDS) + 4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=32, initializer_range=0.3, pad_token_id=0,
)
BERT = ["--target-modules=query,value,dense", "--modules-to-save=pooler", "--rank-pattern=query=3"]
LLAMA = ["--target-modules=q_proj,down_proj", "--rank-pattern=layers.1.mlp.down_proj=1", "--alpha-pattern=q_proj=5"]


def lora_pro(*arguments) -> subprocess.CompletedProcess:
    done = subprocess.run([*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def tokenizer(folder, framed: bool):
    """One token for each word; framed as BERT's are."""
    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if framed:
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        words.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends
        )
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two random models and some text, all of different lengths."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    draw = random.Random(0)
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).save_pretrained(folder / "bert")
    LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, eos_token_id=3)).save_pretrained(folder / "llama")
    tokenizer(folder / "bert", framed=True)
    tokenizer(folder / "llama", framed=False)
    texts = [draw.choices(WORDS, k=draw.randint(2, 12)) for _ in range(60)]
    for text, label in zip(texts, CLASSES * 20):
        text[draw.randrange(len(text))] = label
    rows = [f"{label}\t{' '.join(text)}" for text, label in zip(texts, CLASSES * 20)]
    (folder / "labelled.tsv").write_text("\n".join(["label\ttext", *rows]) + "\n")
    (folder / "texts.tsv").write_text("\n".join(["text", *map(" ".join, texts)]) + "\n")
    scores = [f"{draw.uniform(-1, 1):.3f}\t{' '.join(text)}" for text in texts]
    (folder / "scores.tsv").write_text("\n".join(["score\ttext", *scores]) + "\n")
    lines = [json.dumps({"prompt": " ".join(text[:1]), "completion": " ".join(["", *text[1:]])}) for text in texts]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def train(folder, out, *options, data="labelled.tsv", lr=1e-2):
    lora_pro("train", "--data", folder / data, "--steps=12", "--batch=8", f"--lr={lr}", "--out", out, *options)
    return out


def texts(folder) -> list[str]:
    return (folder / "texts.tsv").read_text().splitlines()[1:]


def predict(folder, *options, data="texts.tsv") -> list[dict]:
    done = lora_pro("predict", "--data", folder / data, *options)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["row"] for row in rows] == list(range(1, 61))
    return rows


def logits(model, files, folder):
    """The logits of each text by itself, the tokens by the tokenizer in `files`."""
    words = AutoTokenizer.from_pretrained(files)
    with torch.no_grad():
        return torch.cat([model(**words(text, return_tensors="pt", return_token_type_ids=False)).logits for text in texts(folder)])


def check(rows, logits, names=CLASSES):
    """Classes and probabilities are those of the logits, up to rounding."""
    found = torch.tensor([[row["probabilities"][name] for name in names] for row in rows])
    torch.testing.assert_close(found, logits.softmax(-1), atol=2e-6, rtol=1e-5)
    assert [row["label"] for row in rows] == [names[k] for k in logits.argmax(-1)]
    assert found.std(0).min() > 1e-3  # a model that says the same of all would show nothing


def with_adapter(base, run):
    """As a user of PEFT loads it, the classes named."""
    config = AutoConfig.from_pretrained(run / "model_config.json")
    model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
    return peft.PeftModel.from_pretrained(model, run).eval()


@pytest.mark.parametrize("name, options", [("bert", BERT), ("llama", LLAMA)])
@pytest.mark.parametrize("method", ["lora-pro", "rslora"])
def test_peft_and_transformers_give_what_predict_gives(name, options, method, folder, tmp_path):
    run = train(folder, tmp_path / "run", "--model", folder / name, "--method", method, *options)
    rows = predict(folder, "--adapter", run)
    adapted = with_adapter(folder / name, run)
    assert list(adapted.config.id2label.values()) == CLASSES
    check(rows, logits(adapted, run, folder))

    merged = tmp_path / "merged"
    lora_pro("merge", "--adapter", run, "--out", merged)
    model = AutoModelForSequenceClassification.from_pretrained(merged).eval()
    assert list(model.config.id2label.values()) == CLASSES and model.dtype == torch.float32
    check(rows, logits(model, merged, folder))
    check(predict(folder, "--model", merged), logits(model, merged, folder))


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_full_fine_tuning_writes_a_model(name, folder, tmp_path):
    out = train(folder, tmp_path / "out", "--model", folder / name, "--method=full-ft")
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    assert list(model.config.id2label.values()) == CLASSES
    check(predict(folder, "--model", out), logits(model, out, folder))


def test_scores(folder, tmp_path):
    run = train(folder, tmp_path / "run", "--model", folder / "llama", "--task=regress", data="scores.tsv")
    expected = logits(with_adapter(folder / "llama", run), run, folder).squeeze(-1)
    found = torch.tensor([row["score"] for row in predict(folder, "--adapter", run)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found.std() > 0.01


def test_a_language_model(folder, tmp_path):
    run = train(folder, tmp_path / "run", "--model", folder / "llama", "--task=lm", data="texts.jsonl")
    merged = tmp_path / "merged"
    lora_pro("merge", "--adapter", run, "--out", merged)
    rows = predict(folder, "--adapter", run, data="texts.jsonl")
    words = AutoTokenizer.from_pretrained(merged)
    whole = AutoModelForCausalLM.from_pretrained(merged).eval()
    adapted = AutoModelForCausalLM.from_pretrained(folder / "llama")
    adapted = peft.PeftModel.from_pretrained(adapted, run).eval()
    for row, text in zip(rows, texts(folder)):
        ids = torch.tensor([[*words(text).input_ids, whole.config.eos_token_id]])
        for model in [whole, adapted]:
            with torch.no_grad():
                loss = model(input_ids=ids, labels=ids).loss.item()
            assert row["loss"] == pytest.approx(loss, rel=1e-5)
        assert row["tokens"] == ids.shape[1] - 1


def adapter_of_peft(folder, out):
    """A random adapter with all that makes modules differ."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / "llama", num_labels=3)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "up_proj"], use_rslora=True,
        rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"up_proj": 3}, modules_to_save=["embed_tokens"],
    )
    model = peft.get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0, 0.3)
    model.save_pretrained(out)
    return model.eval()


def scales(model) -> list[float]:
    return [module.scaling["default"] for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]


def test_an_adapter_of_peft_is_predicted_with_merged_and_continued(folder, tmp_path):
    torch.manual_seed(1)
    made, names = tmp_path / "made", ["LABEL_0", "LABEL_1", "LABEL_2"]
    model = adapter_of_peft(folder, made)
    expected = logits(model, folder / "llama", folder)
    check(predict(folder, "--adapter", made), expected, names)
    lora_pro("merge", "--adapter", made, "--out", tmp_path / "merged")
    check(predict(folder, "--model", tmp_path / "merged"), expected, names)

    still = train(folder, tmp_path / "still", "--adapter", made, "--method=rslora", lr=0)
    tensors = [load_file(run / "adapter_model.safetensors") for run in (made, still)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        assert torch.equal(tensors[1][name], tensor), name

    run = train(folder, tmp_path / "run", "--adapter", made)
    trained = load_file(run / "adapter_model.safetensors")
    assert all(not torch.equal(trained[name], tensor) for name, tensor in tensors[0].items())
    continued = with_adapter(folder / "llama", run)
    assert scales(continued) == pytest.approx(scales(model)) and len(set(scales(model))) == 3
    check(predict(folder, "--adapter", run), logits(continued, run, folder))
