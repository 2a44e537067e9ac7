#!/usr/bin/env python3
"""Writes the published argument list of SGLang's server, and the names of the
environment variables that it reads, as the renderer's tests compare with.

It takes the folder of an unpacked wheel, and needs a few small libraries only:
what SGLang imports besides has no part in its arguments:

    pip download --no-deps sglang==0.5.21 && unzip sglang-*.whl -d wheel
    python3 -m venv venv && venv/bin/pip install msgspec numpy packaging psutil pydantic pyyaml requests typing_extensions
    venv/bin/python sglang-flags.py wheel operator/render/tests/published
"""

import abc
import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

wheel, directory = Path(sys.argv[1]), Path(sys.argv[2])


class Class(abc.ABCMeta):
    """A class of such a package: it can be subclassed, called and asked for anything."""

    def __getattr__(cls, name: str):
        return absent(name)

    def __getitem__(cls, _):
        return cls


class Value(MagicMock):
    """Anything else of such a package."""

    def __getattr__(self, name: str):
        return absent(name) if name[:1].isupper() else super().__getattr__(name)


def absent(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    if not name[:1].isupper():
        return Value(name=name)
    members = {
        "__init__": lambda self, *_, **__: None,
        "__getattr__": lambda self, name: absent(name),
    }
    return Class(name, (), members)


class Absent(types.ModuleType):
    """A package that is not installed: whatever is asked of it is there."""

    __path__: list[str] = []
    __version__ = "99.0"

    def __getattr__(self, name: str):
        value = absent(name)
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every package that nobody else does."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "sglang":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(Finder())
sys.path.insert(0, str(wheel))

from sglang._version import __version__  # noqa: E402
from sglang.srt import environ  # noqa: E402
from sglang.srt.server_args import ServerArgs  # noqa: E402


def write(name: str, header: list[str], lines: list[str]) -> None:
    text = "".join(f"# {line}\n" for line in header) + "".join(f"{line}\n" for line in lines)
    (directory / name).write_text(text)


def published(action: argparse.Action, option: str) -> str:
    choices = action.choices
    if not isinstance(choices, (list, tuple, set, dict)) or not choices:
        return option
    return f"{option}\t{' '.join(sorted(str(choice) for choice in choices))}"


parser = argparse.ArgumentParser(prog="sglang serve")
ServerArgs.add_cli_args(parser)
options = {
    option: published(action, option)
    for action in parser._actions
    for option in action.option_strings
    if option.startswith("--")
}
source = f"wheel sglang {__version__} on PyPI"
write(
    f"sglang-{__version__}.txt",
    [
        f"The long options of `python3 -m sglang.launch_server`, SGLang {__version__}, one a line,",
        "sorted; after a tab the values of those that take one of a set.",
        f"Source: {source}; `ServerArgs.add_cli_args` in",
        "sglang/srt/server_args.py. Made by sglang-flags.py, beside this file.",
    ],
    [options[option] for option in sorted(options)],
)
write(
    f"sglang-{__version__}-env.txt",
    [
        f"The environment variables that SGLang {__version__} declares, one a line, sorted.",
        f"Source: {source}; `Envs` in sglang/srt/environ.py.",
        "Made by sglang-flags.py, beside this file.",
    ],
    sorted(
        name
        for name, value in vars(environ.Envs).items()
        if isinstance(value, environ.EnvField)
    ),
)
