#!/usr/bin/env python3
"""Writes the published argument list of `vllm serve`, and the names of the
environment variables that vLLM reads, as the renderer's tests compare with.

Run it with the Python of an environment that holds the wanted release; no GPU
is needed (the wheel and its dependencies take about 11 GB):

    python3 -m venv venv && venv/bin/pip install vllm==0.33.0
    venv/bin/python vllm-flags.py operator/render/tests/published
"""

import sys
from pathlib import Path
from typing import get_args

directory = Path(sys.argv[1])
# vLLM looks at argv while it registers options, and leaves --model out of the
# help of `serve`, which accepts it.
sys.argv = ["vllm", "serve"]

import vllm.platforms  # noqa: E402

# Some defaults are computed from the device type, which is unknown without a GPU.
vllm.platforms.current_platform.device_type = "cuda"

import vllm.envs  # noqa: E402
from vllm._version import __commit_id__, __version__  # noqa: E402
from vllm.config.model import ModelDType, TokenizerMode  # noqa: E402
from vllm.entrypoints.common.cli_args import make_arg_parser  # noqa: E402
from vllm.model_executor.layers.quantization import QuantizationMethods  # noqa: E402
from vllm.model_executor.model_loader import LoadFormats  # noqa: E402
from vllm.config.cache import CacheDType  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402

# vLLM's parser enforces only --dtype itself; it rejects wrong values of the
# others later, while the engine starts.
VALUES = {
    "--dtype": ModelDType,
    "--kv-cache-dtype": CacheDType,
    "--load-format": LoadFormats,
    "--quantization": QuantizationMethods,
    "--tokenizer-mode": TokenizerMode,
}
SOURCE = f"wheel vllm {__version__} on PyPI (commit {__commit_id__.removeprefix('g')} of github.com/vllm-project/vllm)"


def write(name: str, header: list[str], lines: list[str]) -> None:
    text = "".join(f"# {line}\n" for line in header) + "".join(f"{line}\n" for line in lines)
    (directory / name).write_text(text)


parser = make_arg_parser(FlexibleArgumentParser())
options = sorted(
    {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
)
write(
    f"vllm-{__version__}.txt",
    [
        f"The long options of `vllm serve`, vLLM {__version__}, one a line, sorted;",
        "after a tab the values of those that take one of a set.",
        "Left out, though still accepted: --no-enable-X and --no-disable-X, which vLLM",
        "hides from its help in favour of --disable-X and --enable-X.",
        f"Source: {SOURCE};",
        "vllm/entrypoints/common/cli_args.py, vllm/engine/arg_utils.py and the classes of",
        "vllm/config that they register. Made by e2e/engines/vllm-flags.py.",
    ],
    [f"{o}\t{' '.join(sorted(get_args(VALUES[o])))}" if o in VALUES else o for o in options],
)
write(
    f"vllm-{__version__}-env.txt",
    [
        f"The environment variables that vLLM {__version__} reads, one a line, sorted.",
        f"Source: {SOURCE};",
        "`environment_variables` in vllm/envs.py. Made by e2e/engines/vllm-flags.py.",
    ],
    sorted(vllm.envs.environment_variables),
)
