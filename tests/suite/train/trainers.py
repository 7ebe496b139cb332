"""Checks with the real trainers that they take what the scripts and the page give: arguments are the YAML of Axolotl
and the JSON of LLaMA-Factory; the sets are in the working directory."""

import ast
import importlib.util
import json
import os
import sys

import yaml
from datasets import load_dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl.data_utils import apply_chat_template, is_conversational

axolotl, llama_factory = sys.argv[1:]


def fields(package, path, name):
    """The fields of a class in the source of a package, whose import would need torch."""
    root = importlib.util.find_spec(package).submodule_search_locations[0]
    with open(os.path.join(root, path), encoding="utf-8") as file:
        classes = [node for node in ast.parse(file.read()).body if isinstance(node, ast.ClassDef) and node.name == name]
    return {field.target.id for field in classes[0].body if isinstance(field, ast.AnnAssign)}


def check_messages(rows):
    """The documented form of the OpenAI chat format, which Axolotl and LLaMA-Factory share."""
    for row in rows:
        assert [set(message) for message in row["messages"]] == [{"role", "content"}] * 2, row
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"], row
        assert all(message["content"].strip() for message in row["messages"]), row


# TRL: the template of a chat model, as SFTTrainer applies it.
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")))
tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
train = load_dataset("json", data_files="sets/train.jsonl", split="train")
pairs = load_dataset("json", data_files="accepted.jsonl", split="train")
assert len(train) > 1 and len(pairs) > 1
for row in train:
    assert is_conversational(row)
    question, answer = (message["content"] for message in row["messages"])
    assert apply_chat_template({"messages": row["messages"]}, tokenizer) == {"text": f"<user>{question}<assistant>{answer}"}
for row in pairs:
    assert is_conversational(row)
    made = apply_chat_template({"prompt": row["prompt"], "completion": row["completion"]}, tokenizer)
    assert made["completion"].endswith(row["completion"][0]["content"]), made
check_messages(train)

# Axolotl
known = fields("axolotl", "utils/schemas/datasets.py", "SFTDataset")
config = yaml.safe_load(axolotl)
for entry in config["datasets"] + config["test_datasets"]:
    assert known.issuperset(entry), (known, entry)
    assert entry["type"] == "chat_template" and entry["field_messages"] in train.column_names
    check_messages(load_dataset(entry["ds_type"], data_files=entry["path"], split="train"))

# LLaMA-Factory
known = fields("llamafactory", "data/parser.py", "DatasetAttr")
(entry,) = json.loads(llama_factory).values()
assert known.issuperset([*entry["columns"], *entry["tags"]]), (known, entry)
tags, columns = entry["tags"], entry["columns"]
for row in load_dataset("json", data_files=entry["file_name"], split="train"):
    roles = [message[tags["role_tag"]] for message in row[columns["messages"]]]
    assert roles == [tags["user_tag"], tags["assistant_tag"]], roles
    assert all(message[tags["content_tag"]] for message in row[columns["messages"]])

# OpenAI
with open("openai.jsonl", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file.read().split("\n")[:-1]]
assert len(rows) >= 10 and all(row.keys() == {"messages"} for row in rows)
check_messages(rows)
print("ok", len(train), len(pairs), len(rows))
