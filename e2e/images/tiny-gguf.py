#!/usr/bin/env python3
"""Writes a tiny model for llama.cpp, and prints its path.

Its weights are random, so its words are noise; its tokenizer, chat template, context and speed are those of
a real file, and whoever loads it cannot tell the difference. The same arguments give the same bytes.

    tiny-gguf.py [--output FILE] [--layers 2] [--width 64] [--context 2048] [--seed 0]

Without --output the file goes to ${BERTH_CACHE:-${XDG_CACHE_HOME:-~/.cache}/berth}, once for each set of
arguments. The package `gguf` is installed there too if this Python has none.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GGUF_VERSION = "0.19.0"

# ChatML without a system message of its own: the shortest template that keeps roles apart.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("BERTH_CACHE") or f"{home}/berth")


def with_gguf() -> None:
    """Makes sure that `gguf` can be imported: if not, goes on in a virtual environment that has it."""
    try:
        import gguf  # noqa: F401

        return
    except ImportError:
        pass
    environment = cache() / f"gguf-{GGUF_VERSION}"
    python = environment / "bin" / "python"
    if Path(sys.executable) == python:
        sys.exit(f"tiny-gguf: {environment} has no gguf; remove it and try again")
    if not (environment / "complete").exists():
        print(f"tiny-gguf: installing gguf {GGUF_VERSION} into {environment}", file=sys.stderr)
        quiet = {"check": True, "stdout": sys.stderr}
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], **quiet)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"gguf=={GGUF_VERSION}"], **quiet)
        (environment / "complete").touch()
    os.execv(python, [str(python), *sys.argv])


def tokens():
    """A vocabulary as SentencePiece has it: special tokens, every byte, and a few words."""
    from gguf import TokenType

    special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    chat = [("<|im_start|>", TokenType.CONTROL), ("<|im_end|>", TokenType.CONTROL)]
    byte = [(f"<0x{value:02X}>", TokenType.BYTE) for value in range(256)]
    words = ["▁", "▁a", "▁berth", "▁ship", "▁the", "▁harbour", "e", "t", "a", "o", "n", "i", "s", "r", "h", "l", "d",
             "u", "c", "m", "w", "y", "g", "p", "b"]
    return special + chat + byte + [(word, TokenType.NORMAL) for word in words]


def write(path: Path, layers: int, width: int, context: int, seed: int) -> None:
    import gguf
    import numpy

    vocabulary = tokens()
    heads, feed_forward = 4, 2 * width
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("Tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // 2)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.encode() for text, _ in vocabulary])
    writer.add_token_scores([-float(index) for index in range(len(vocabulary))])
    writer.add_token_types([int(kind) for _, kind in vocabulary])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)

    numbers = numpy.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (numbers.standard_normal(shape) / width**0.5).astype(numpy.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, numpy.ones(width, dtype=numpy.float32))

    tensor("token_embd.weight", len(vocabulary), width)
    for layer in range(layers):
        prefix = f"blk.{layer}"
        ones(f"{prefix}.attn_norm.weight")
        tensor(f"{prefix}.attn_q.weight", width, width)
        tensor(f"{prefix}.attn_k.weight", width // 2, width)
        tensor(f"{prefix}.attn_v.weight", width // 2, width)
        tensor(f"{prefix}.attn_output.weight", width, width)
        ones(f"{prefix}.ffn_norm.weight")
        tensor(f"{prefix}.ffn_gate.weight", feed_forward, width)
        tensor(f"{prefix}.ffn_up.weight", feed_forward, width)
        tensor(f"{prefix}.ffn_down.weight", width, feed_forward)
    ones("output_norm.weight")
    tensor("output.weight", len(vocabulary), width)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny model for llama.cpp, and print its path.")
    parser.add_argument("--output", type=Path, help="file to write; by default one in the cache")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64, help="a multiple of 8; 64 makes half a megabyte")
    parser.add_argument("--context", type=int, default=2048, help="the context length that the file claims")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.width % 8 or min(arguments.width, arguments.layers, arguments.context) < 1:
        parser.error("--width must be a multiple of 8, and all sizes positive")
    output = arguments.output
    if output is None:
        shape = f"{arguments.layers}x{arguments.width}-{arguments.context}-{arguments.seed}"
        source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        output = cache() / f"tiny-{shape}-{source}.gguf"
    if arguments.output is not None or not output.exists():
        with_gguf()
        output.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=output.parent, prefix=".tiny-")
        os.close(handle)
        try:
            write(Path(partial), arguments.layers, arguments.width, arguments.context, arguments.seed)
            os.chmod(partial, 0o644)
            os.replace(partial, output)
        finally:
            Path(partial).unlink(missing_ok=True)
    print(output)


if __name__ == "__main__":
    main()
