"""Writes a small ONNX model with the inputs and the output of all-MiniLM-L6-v2 into a folder, with its tokenizer: a text is
the sum of random vectors, one for each word that the vocabulary has. Texts with common words are near each other.

The messages are those of onnx.proto; protobuf's encoding needs no library.
"""

import json
import os
import random
import struct
import sys

WORDS = "the a in is to of red green car door key garage kitchen window parser compiler release database server".split()
VOCABULARY = ["[PAD]", "[UNK]", *WORDS]
WIDTH = 384
FLOAT, INT64 = 1, 7


def varint(number):
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def field(number, value):
    """A field of a message: a number, a text, or an inner message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor_info(name, kind, *dimensions):
    shape = b"".join(field(1, field(1, it) if isinstance(it, int) else field(2, it)) for it in dimensions)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def table():
    dice = random.Random(1)
    rows = [[0.0] * WIDTH] * 2 + [[dice.gauss(0, 1) for _ in range(WIDTH)] for _ in WORDS]
    data = b"".join(struct.pack(f"<{WIDTH}f", *row) for row in rows)
    return field(1, len(VOCABULARY)) + field(1, WIDTH) + field(2, FLOAT) + field(8, "table") + field(9, data)


def model():
    node = field(1, "table") + field(1, "input_ids") + field(2, "last_hidden_state") + field(4, "Gather")
    inputs = [tensor_info(name, INT64, "batch", "words") for name in ("input_ids", "attention_mask", "token_type_ids")]
    output = tensor_info("last_hidden_state", FLOAT, "batch", "words", WIDTH)
    graph = field(1, node) + field(2, "tiny") + field(5, table()) + b"".join(field(11, it) for it in inputs) + field(12, output)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def tokenizer():
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": VOCABULARY[number], **special} for number in (0, 1)],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(VOCABULARY)}, "unk_token": "[UNK]"},
    }


folder = sys.argv[1]
os.makedirs(folder)
for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt"):
    # chromadb wants them to be there, and reads none of them.
    open(f"{folder}/{name}", "w").close()
with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as file:
    json.dump(tokenizer(), file)
with open(f"{folder}/model.onnx", "wb") as file:
    file.write(model())
