"""What the chart renders and what it refuses. Needs no cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import unittest

import helm
from helm import CHART, REPOSITORY, VALUES


def kinds(documents: list[str]) -> set[str]:
    return {re.search(r"^kind: (\w+)", document, re.MULTILINE)[1] for document in documents}


def leaves(schema: dict, path: str = "") -> list[str]:
    """The path of each value that the schema has."""
    if schema.get("additionalProperties") is False or path in ("", ".global"):
        return [leaf for key, value in schema["properties"].items() for leaf in leaves(value, f"{path}.{key}")]
    return [path[1:]]


class Render(unittest.TestCase):
    def test_lint_has_no_complaint(self):
        helm.succeed("lint", "--strict", CHART)
        for values in sorted(VALUES.glob("*.yaml")):
            helm.succeed("lint", "--strict", CHART, "--values", values)

    def test_the_chart_has_the_version_of_the_operator(self):
        version = re.search(r'^version = "(.+)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]
        chart = (CHART / "Chart.yaml").read_text()
        self.assertIn(f"\nversion: {version}\n", chart)
        self.assertIn(f"\nappVersion: {version}\n", chart)

    def test_a_wrong_value_is_refused(self):
        wrong = {
            "replica=2": "replica",
            "image.Tag=v1": "Tag",
            "crds.enable=false": "enable",
            "engineImages.vLLM.NVIDIA=x": "vLLM",
            "engineImages.VLLM.nvidia=x": "nvidia",
            "runtimeClasses.NVIDIA=Not_A_Name": "runtimeClasses",
            "gpuResources.NVIDIA=gpu": "gpuResources",
            "gpuResources.AMD=kubernetes.io/gpu": "gpuResources",
            "gpuResources.amd=amd.com/gpu": "amd",
            "cache.path=var/lib/berth": "path",
            "cache.path=/var/../etc": "path",
            "cache.path=/var/lib/berth": "size",
            "hub.endpoint=hub.example.com": "endpoint",
            "fetch.image.tag=a b": "tag",
            "leaseSeconds=2": "leaseSeconds",
            "leaseSeconds=15s": "leaseSeconds",
            "unschedulableTimeout=30": "unschedulableTimeout",
            "concurrency=0": "concurrency",
            "logFormat=yaml": "logFormat",
            "image.digest=latest": "digest",
            "imagePullSecrets={registry}": "imagePullSecrets",
            "catalogue[0].id=x": "catalogue",
            "resources.request.cpu=1": "request",
            "tolerations[0].efect=NoSchedule": "tolerations",
        }
        for argument, named in wrong.items():
            with self.subTest(argument):
                result = helm.run("template", "berth", CHART, "--set", argument)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("don't meet the specifications of the schema", result.stderr)
                self.assertIn(named, result.stderr)

    def test_definitions_outlive_the_release(self):
        definitions = [text for text in helm.template() if "\nkind: CustomResourceDefinition\n" in text]
        self.assertEqual(len(definitions), len(list((REPOSITORY / "crds/yaml").glob("*.yaml"))))
        for definition in definitions:
            self.assertIn("\n    helm.sh/resource-policy: keep\n", definition)

    def test_what_is_switched_off_is_not_there(self):
        found = kinds(helm.template("--values", VALUES / "bare.yaml"))
        self.assertFalse({kind for kind in found if "Definition" in kind or "Admission" in kind}, found)

    def test_the_readme_knows_every_value(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        readme = (CHART / "README.md").read_text()
        known = re.findall(r"^\| `([\w.]+)` \|", readme, re.MULTILINE)
        self.assertEqual(sorted(known), sorted(leaves(schema)))

    def test_values_in_the_docs_work(self):
        blocks = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / "docs/install.md").read_text(), re.MULTILINE | re.DOTALL)
        blocks = [block for block in blocks if "\nkind: " not in "\n" + block]
        self.assertTrue(blocks)
        for block in blocks:
            with self.subTest(block):
                result = helm.run("template", "berth", CHART, "--values", self.file(block))
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_operator_takes_the_arguments_that_the_chart_gives_it(self):
        everything = "\n".join(helm.template("--values", VALUES / "everything.yaml"))
        catalogue = self.file(json.loads(re.search(r"^  catalogue.json: (.+)$", everything, re.MULTILINE)[1]))
        arguments = re.findall(r"^            - (--.+)$", everything, re.MULTILINE)
        certificates = self.file(json.loads(re.search(r"^  ca.pem: (.+)$", everything, re.MULTILINE)[1]))
        for mounted, here in {"catalogue/catalogue.json": catalogue, "hub/ca.pem": certificates}.items():
            moved = [argument.replace(f"/etc/berth/{mounted}", here) for argument in arguments]
            self.assertNotEqual(moved, arguments, mounted)
            arguments = moved
        # It reads all of them before it looks for a cluster, and there is none.
        result = subprocess.run(
            [os.environ["BERTH_OPERATOR"], *arguments], capture_output=True, text=True, env={"KUBECONFIG": "/dev/null"}
        )
        self.assertIn("cannot read the cluster's configuration", result.stderr)

    def file(self, text: str) -> str:
        file = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        return file.name


if __name__ == "__main__":
    unittest.main()
