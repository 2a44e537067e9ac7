#!/usr/bin/env python3
"""Writes a GGUF of a given shape, and prints what its tensors take.

Every weight is zero: llama.cpp loads the file, allocates its buffers and says how large they are, which is all
that is wanted of it. Use --no-warmup. The file is sparse where the file system can.

    llama-shapes.py --output FILE --arch qwen3 --layers 4 --hidden 1024 --heads 16 --kv-heads 8 --head-dim 128
                    --ffn 3072 --vocab 8000 --type Q4_K

Prints one JSON object: the bytes of all tensors, and those of the input table and of the output layer.
The package `gguf` is installed into ${BERTH_CACHE:-${XDG_CACHE_HOME:-~/.cache}/berth} if this Python has none.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

GGUF_VERSION = "0.19.0"


def with_gguf() -> None:
    """Makes sure that `gguf` can be imported: if not, goes on in a virtual environment that has it."""
    try:
        import gguf  # noqa: F401

        return
    except ImportError:
        pass
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(os.environ.get("BERTH_CACHE") or f"{home}/berth")
    environment = cache / f"gguf-{GGUF_VERSION}"
    python = environment / "bin" / "python"
    if Path(sys.executable) == python:
        sys.exit(f"llama-shapes: {environment} has no gguf; remove it and try again")
    if not (environment / "complete").exists():
        print(f"llama-shapes: installing gguf {GGUF_VERSION} into {environment}", file=sys.stderr)
        quiet = {"check": True, "stdout": sys.stderr}
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], **quiet)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"gguf=={GGUF_VERSION}"], **quiet)
        (environment / "complete").touch()
    os.execv(python, [str(python), *sys.argv])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write a GGUF of a given shape.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--arch", default="llama")
    for name, default in [
        ("layers", 2), ("hidden", 512), ("heads", 8), ("kv-heads", 8), ("head-dim", 64), ("ffn", 1536),
        ("vocab", 8000), ("context", 65536), ("experts", 0), ("experts-used", 0), ("expert-ffn", 0),
        ("shared-ffn", 0), ("dense-layers", 0), ("window", 0),
        # Multi-head latent attention.
        ("kv-lora", 0), ("q-lora", 0), ("rope-dim", 0), ("nope-dim", 0), ("value-dim", 0),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tied", action="store_true", help="input and output share one table")
    parser.add_argument("--type", default="F16", help="of the layers' matrices")
    parser.add_argument("--expert-type", help="of the experts, where it differs")
    parser.add_argument("--embedding-type", help="of the input table, where it differs")
    parser.add_argument("--output-type", help="of the output layer, where it differs")
    return parser.parse_args()


class Shape:
    """One file being written."""

    def __init__(self, writer, asked: argparse.Namespace):
        self.writer, self.asked, self.bytes = writer, asked, {}

    def tensor(self, name: str, *shape: int, kind: str | None = None) -> None:
        """A tensor of zeros; a vector is always F32, as llama.cpp's own converter has it."""
        import numpy
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        kind = kind or (self.asked.type if len(shape) > 1 else "F32")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        if shape[-1] % block:
            sys.exit(f"llama-shapes: {name}: rows of {shape[-1]} are not whole blocks of {kind} ({block})")
        rows = (*shape[:-1], shape[-1] // block * size)
        self.writer.add_tensor(name, numpy.zeros(rows, dtype=numpy.uint8), raw_dtype=GGMLQuantizationType[kind])
        self.bytes[name] = math.prod(rows)

    def attention(self, prefix: str) -> None:
        asked, tensor = self.asked, self.tensor
        hidden, heads = asked.hidden, asked.heads
        if asked.kv_lora:
            query = asked.nope_dim + asked.rope_dim
            if asked.q_lora:
                tensor(f"{prefix}.attn_q_a.weight", asked.q_lora, hidden)
                tensor(f"{prefix}.attn_q_a_norm.weight", asked.q_lora)
                tensor(f"{prefix}.attn_q_b.weight", heads * query, asked.q_lora)
            else:
                tensor(f"{prefix}.attn_q.weight", heads * query, hidden)
            tensor(f"{prefix}.attn_kv_a_mqa.weight", asked.kv_lora + asked.rope_dim, hidden)
            tensor(f"{prefix}.attn_kv_a_norm.weight", asked.kv_lora)
            tensor(f"{prefix}.attn_k_b.weight", heads, asked.kv_lora, asked.nope_dim)
            tensor(f"{prefix}.attn_v_b.weight", heads, asked.value_dim, asked.kv_lora)
            tensor(f"{prefix}.attn_output.weight", hidden, heads * asked.value_dim)
            return
        query, key = heads * asked.head_dim, asked.kv_heads * asked.head_dim
        for name, width in [("q", query), ("k", key), ("v", key)]:
            tensor(f"{prefix}.attn_{name}.weight", width, hidden)
            if asked.arch in ("qwen2", "qwen2moe", "gpt-oss"):
                tensor(f"{prefix}.attn_{name}.bias", width)
        if asked.arch in ("qwen3", "qwen3moe", "gemma3"):
            tensor(f"{prefix}.attn_q_norm.weight", asked.head_dim)
            tensor(f"{prefix}.attn_k_norm.weight", asked.head_dim)
        tensor(f"{prefix}.attn_output.weight", hidden, query)
        if asked.arch == "gpt-oss":
            tensor(f"{prefix}.attn_output.bias", hidden)
            tensor(f"{prefix}.attn_sinks.weight", heads)

    def feed_forward(self, prefix: str, layer: int) -> None:
        asked, tensor = self.asked, self.tensor
        hidden = asked.hidden
        if not asked.experts or layer < asked.dense_layers:
            tensor(f"{prefix}.ffn_gate.weight", asked.ffn, hidden)
            tensor(f"{prefix}.ffn_up.weight", asked.ffn, hidden)
            tensor(f"{prefix}.ffn_down.weight", hidden, asked.ffn)
            return
        experts, width = asked.experts, asked.expert_ffn or asked.ffn
        kind = asked.expert_type
        tensor(f"{prefix}.ffn_gate_inp.weight", experts, hidden, kind="F32")
        tensor(f"{prefix}.ffn_gate_exps.weight", experts, width, hidden, kind=kind)
        tensor(f"{prefix}.ffn_up_exps.weight", experts, width, hidden, kind=kind)
        tensor(f"{prefix}.ffn_down_exps.weight", experts, hidden, width, kind=kind)
        if asked.arch == "gpt-oss":
            tensor(f"{prefix}.ffn_gate_inp.bias", experts)
            tensor(f"{prefix}.ffn_gate_exps.bias", experts, width, kind="F32")
            tensor(f"{prefix}.ffn_up_exps.bias", experts, width, kind="F32")
            tensor(f"{prefix}.ffn_down_exps.bias", experts, hidden, kind="F32")
        if asked.shared_ffn:
            if asked.arch == "qwen2moe":
                tensor(f"{prefix}.ffn_gate_inp_shexp.weight", hidden)
            tensor(f"{prefix}.ffn_gate_shexp.weight", asked.shared_ffn, hidden)
            tensor(f"{prefix}.ffn_up_shexp.weight", asked.shared_ffn, hidden)
            tensor(f"{prefix}.ffn_down_shexp.weight", hidden, asked.shared_ffn)

    def write(self) -> None:
        asked, writer = self.asked, self.writer
        self.metadata()
        self.tensor("token_embd.weight", asked.vocab, asked.hidden, kind=asked.embedding_type)
        for layer in range(asked.layers):
            prefix = f"blk.{layer}"
            self.tensor(f"{prefix}.attn_norm.weight", asked.hidden)
            self.attention(prefix)
            if asked.arch == "gemma3":
                self.tensor(f"{prefix}.post_attention_norm.weight", asked.hidden)
                self.tensor(f"{prefix}.post_ffw_norm.weight", asked.hidden)
            norm = "post_attention_norm" if asked.arch == "gpt-oss" else "ffn_norm"
            self.tensor(f"{prefix}.{norm}.weight", asked.hidden)
            self.feed_forward(prefix, layer)
        self.tensor("output_norm.weight", asked.hidden)
        if not asked.tied:
            self.tensor("output.weight", asked.vocab, asked.hidden, kind=asked.output_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def metadata(self) -> None:
        asked, writer = self.asked, self.writer
        writer.add_name("Shape")
        writer.add_context_length(asked.context)
        writer.add_embedding_length(asked.hidden)
        writer.add_block_count(asked.layers)
        writer.add_feed_forward_length(asked.ffn)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(asked.vocab)
        writer.add_head_count(asked.heads)
        if asked.kv_lora:
            writer.add_head_count_kv(1)
            writer.add_kv_lora_rank(asked.kv_lora)
            if asked.q_lora:
                writer.add_q_lora_rank(asked.q_lora)
            writer.add_key_length(asked.kv_lora + asked.rope_dim)
            writer.add_value_length(asked.kv_lora)
            writer.add_key_length_mla(asked.nope_dim + asked.rope_dim)
            writer.add_value_length_mla(asked.value_dim)
            writer.add_rope_dimension_count(asked.rope_dim)
        else:
            writer.add_head_count_kv(asked.kv_heads)
            writer.add_key_length(asked.head_dim)
            writer.add_value_length(asked.head_dim)
            writer.add_rope_dimension_count(asked.head_dim)
        if asked.window:
            writer.add_sliding_window(asked.window)
        if asked.experts:
            writer.add_expert_count(asked.experts)
            writer.add_expert_used_count(asked.experts_used)
            writer.add_expert_feed_forward_length(asked.expert_ffn or asked.ffn)
            if asked.arch == "deepseek2":
                writer.add_leading_dense_block_count(asked.dense_layers)
                writer.add_expert_shared_count(1)
                writer.add_expert_weights_scale(1.0)
            elif asked.shared_ffn:
                writer.add_expert_shared_feed_forward_length(asked.shared_ffn)
        self.tokenizer()

    def tokenizer(self) -> None:
        """SentencePiece: special tokens, every byte, and numbered words up to the size asked for."""
        from gguf import TokenType

        tokens = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
        tokens += [(f"<0x{value:02X}>", TokenType.BYTE) for value in range(256)]
        tokens += [(f"t{index}", TokenType.NORMAL) for index in range(len(tokens), self.asked.vocab)]
        writer = self.writer
        writer.add_tokenizer_model("llama")
        writer.add_token_list([text.encode() for text, _ in tokens])
        writer.add_token_scores([-float(index) for index in range(len(tokens))])
        writer.add_token_types([int(kind) for _, kind in tokens])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)


def main() -> None:
    asked = arguments()
    with_gguf()
    import gguf

    shape = Shape(gguf.GGUFWriter(str(asked.output), asked.arch), asked)
    shape.write()
    sizes = shape.bytes
    print(json.dumps({
        "tensors": sum(sizes.values()),
        "embedding": sizes["token_embd.weight"],
        "output": sizes.get("output.weight", 0),
    }))


if __name__ == "__main__":
    main()
