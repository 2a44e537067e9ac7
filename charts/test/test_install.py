"""The chart in a cluster: what an upgrade, a step back and an uninstall do to what people have made.

The API server, its controllers and the scheduler are real. Nodes are simulated, and with them the pod of the
Deployment, so the operator that acts is a process beside the cluster: with the account, rights and arguments that
the chart gives to its pod.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import unittest
from pathlib import Path

import helm
from cluster import Cluster, Operator, Refused
from helm import CHART, VALUES

NAMESPACE = "berth-system"
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llmdeployments.berth.dev"
MODEL = "/apis/berth.dev/v1alpha1/namespaces/default/llmdeployments/chat"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/berth-operator"
CHAT = """
apiVersion: berth.dev/v1alpha1
kind: LLMDeployment
metadata:
  name: chat
  namespace: default
spec:
  model:
    uri: hf://Qwen/Qwen2.5-7B-Instruct
"""


def newer_chart(folder: Path) -> Path:
    """This chart as its next version, with one more field in LLMDeployment."""
    chart = folder / "berth"
    shutil.copytree(CHART, chart)
    about = chart / "Chart.yaml"
    about.write_text(re.sub(r"^version: .*", "version: 99.0.0", about.read_text(), flags=re.MULTILINE))
    file = chart / "templates/crds/llmdeployments.yaml"
    text = file.read_text()
    fields = int(re.search(r'schema-fields: "(\d+)"', text)[1])
    text = text.replace(f'schema-fields: "{fields}"', f'schema-fields: "{fields + 1}"')
    spec = text.index("\n          spec:\n")
    properties = "\n            properties:\n"
    at = text.index(properties, spec) + len(properties)
    file.write_text(text[:at] + "              nickname:\n                type: string\n" + text[at:])
    return chart


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.stop)
        for name in (NAMESPACE, "models"):
            labels = "{pod-security.kubernetes.io/enforce: restricted}"
            cls.cluster.apply(f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {labels}\n")

    def helm(self, verb: str, *arguments: object) -> str:
        common = ["--kubeconfig", self.cluster.kubeconfig, "--namespace", NAMESPACE]
        return helm.succeed(verb, *common, *arguments)

    def upgrade(self, chart: Path, *arguments: object) -> str:
        return self.helm("upgrade", "berth", chart, "--wait", "--timeout", "60s", *arguments)

    # First by name: what is installed later would be judged too.
    def test_each_rendering_is_valid(self):
        for arguments in ((), ("--values", VALUES / "everything.yaml"), ("--values", VALUES / "bare.yaml")):
            for document in helm.template(*arguments, namespace="models"):
                self.cluster.apply(document, dry_run=True)
        with self.assertRaisesRegex(Refused, "nosuchfield"):
            self.cluster.apply(document.replace("\nspec:", "\nspec:\n  nosuchfield: 1"), dry_run=True)

    def test_life_of_a_release(self):
        cluster = self.cluster
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)

        # Installed: the pod is admitted under the restricted standard, and what the notes say next works.
        notes = self.helm("install", "berth", CHART, "--wait", "--timeout", "60s")
        manifest = re.search(r"<<EOF\n(.*?)\n +EOF", notes, re.DOTALL)[1]
        cluster.apply(re.sub(r"^  ", "", manifest, flags=re.MULTILINE) + "\n", dry_run=True)
        operator = self.start()
        cluster.apply(CHAT)
        pods = self.pods(until=lambda found: [pod for pod in found if pod["status"]["phase"] == "Running"])
        cluster.until("chat is Ready", lambda: self.condition("Ready") == "True")

        # One release for a cluster.
        result = helm.run("install", "second", CHART, "--kubeconfig", cluster.kubeconfig, "--namespace", "models")
        self.assertIn("invalid ownership metadata", result.stderr)

        # A step forward and back that changes no definition.
        self.upgrade(CHART, "--set", "concurrency=4")
        self.assertIn("--concurrency=4", self.arguments())
        self.helm("rollback", "berth", "1", "--wait", "--timeout", "60s")
        self.assertIn("--concurrency=8", self.arguments())

        # An upgrade brings a field, and somebody uses it.
        self.upgrade(newer_chart(Path(folder.name)))
        cluster.until("the field is kept", lambda: self.nickname("Wilson"))

        # Helm's rollback would take the field away again. It is refused, and nothing is lost.
        common = ["--kubeconfig", cluster.kubeconfig, "--namespace", NAMESPACE]
        result = helm.run("rollback", "berth", "1", *common)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("--reuse-values --set crds.enabled=false", result.stderr)
        self.assertEqual(self.nickname(), "Wilson")

        # The way back that the refusal names: the older chart, the newer definitions.
        self.upgrade(CHART, "--reuse-values", "--set", "crds.enabled=false")
        cluster.merge(MODEL, {"spec": {"replicas": 2}})
        cluster.until("the operator has written status", lambda: self.observed())
        self.assertEqual(self.nickname(), "Wilson")
        self.upgrade(Path(folder.name) / "berth", "--reset-values")
        self.assertEqual(self.nickname(), "Wilson")
        pods = self.pods(until=lambda found: found if len(found) == 2 else None, at_least=pods)

        # An uninstall leaves what is people's.
        operator.stop()
        self.helm("uninstall", "berth", "--wait", "--timeout", "60s")
        self.assertFalse(cluster.exists(DEPLOYMENT))
        self.assertTrue(cluster.exists(DEFINITION))
        self.assertEqual(self.nickname(), "Wilson")
        self.assertEqual(self.pods(), pods)

        # And a new release takes it over.
        self.helm("install", "berth", Path(folder.name) / "berth", "--wait", "--timeout", "60s")
        self.start()
        cluster.merge(MODEL, {"spec": {"replicas": 1}})
        cluster.until("one replica goes", lambda: len(self.pods()) == 1)
        self.assertTrue(self.pods() < pods)
        self.assertEqual(self.nickname(), "Wilson")

    def start(self) -> Operator:
        operator = Operator(self.cluster)
        self.addCleanup(lambda: operator.process.poll() is not None or operator.stop())
        return operator

    def arguments(self) -> list[str]:
        return self.cluster.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["args"]

    def condition(self, kind: str) -> str | None:
        conditions = self.cluster.get(MODEL).get("status", {}).get("conditions", [])
        return next((condition["status"] for condition in conditions if condition["type"] == kind), None)

    def observed(self) -> bool:
        model = self.cluster.get(MODEL)
        return model["status"]["observedGeneration"] == model["metadata"]["generation"]

    def nickname(self, new: str | None = None) -> str | None:
        model = self.cluster.merge(MODEL, {"spec": {"nickname": new}}) if new else self.cluster.get(MODEL)
        return model["spec"].get("nickname")

    def pods(self, until=None, at_least: set[str] = frozenset()) -> set[str]:
        """The UIDs of the model's pods. None of `at_least` may be missing."""

        def look():
            found = self.cluster.get("/api/v1/namespaces/default/pods")["items"]
            return until(found) if until else found

        found = self.cluster.until("the pods are as expected", look) if until else look()
        uids = {pod["metadata"]["uid"] for pod in found}
        self.assertTrue(uids >= at_least, "a pod was replaced")
        return uids


if __name__ == "__main__":
    unittest.main()
