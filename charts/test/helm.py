"""Calls Helm on the chart of this repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CHART = REPOSITORY / "charts/berth"
VALUES = Path(__file__).resolve().parent / "values"


def run(*arguments: object) -> subprocess.CompletedProcess:
    """Runs Helm, successful or not. $HELM says which one."""
    command = [os.environ.get("HELM", "helm"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def succeed(*arguments: object) -> str:
    """What Helm prints; its own words are the error where it fails."""
    result = run(*arguments)
    if result.returncode != 0:
        raise AssertionError(f"helm {' '.join(map(str, arguments))}\n{result.stdout}{result.stderr}")
    return result.stdout


def template(*arguments: object, namespace: str = "berth-system") -> list[str]:
    """The objects of the chart, as YAML."""
    text = succeed("template", "berth", CHART, "--namespace", namespace, *arguments)
    documents = ("\n" + text).split("\n---\n")
    return [document for document in documents if "\nkind: " in document]
