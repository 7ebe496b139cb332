"""Writes the effective rows in the form that trainers of chat models take: one JSON object a line to stdout.

    python to_messages.py /srv/lake/data/distilled/sft/sft_export.jsonl > messages.jsonl

`context` names the model that answered (`model=...`), so it is not part of a prompt: a model that is trained on it
learns its teacher's name. `_offset` and `source_run_id` stay, to find a row of the training set in the export.
"""

import json

from export_reader import Dataset, arguments_of, run


def messages(row):
    user = {"role": "user", "content": row["instruction"]}
    return {"messages": [user, {"role": "assistant", "content": row["response"]}]}


def prompt_completion(row):
    both = messages(row)["messages"]
    return {"prompt": both[:1], "completion": both[1:]}


def instruction(row):
    return {"instruction": row["instruction"], "response": row["response"]}


FORMS = {"messages": messages, "prompt-completion": prompt_completion, "instruction": instruction}


def add_form_arguments(parser):
    parser.add_argument("--form", choices=FORMS, default="messages", help="default: messages")
    parser.add_argument(
        "--quality",
        choices=["accepted", "partially_accepted"],
        help="only rows of this category; default: both",
    )
    parser.add_argument("--bare", action="store_true", help="without _offset and source_run_id")


def formed(dataset, arguments):
    """Gives each row, and its line in the form that the arguments name."""
    for row in dataset.rows():
        row = row.value()
        if arguments.quality in (None, row["quality_score"]):
            origin = {} if arguments.bare else {key: row[key] for key in ("_offset", "source_run_id")}
            yield row, json.dumps({**FORMS[arguments.form](row), **origin}, ensure_ascii=False) + "\n"


def main():
    parser = arguments_of(__doc__)
    add_form_arguments(parser)
    arguments = parser.parse_args()
    for _row, line in formed(Dataset(arguments.export, arguments.at), arguments):
        print(line, end="")


if __name__ == "__main__":
    run(main)
