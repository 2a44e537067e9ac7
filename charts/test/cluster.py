"""A test cluster and its API, with nothing but Python's own library."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# Kinds whose plural is not the kind with an s.
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "PriorityClass": "priorityclasses",
    "StorageClass": "storageclasses",
}
WITHOUT_NAMESPACE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


class Refused(Exception):
    """The API server answered with an error."""


class Cluster:
    """A control plane with simulated nodes. It ends with this process, however that ends."""

    def __init__(self) -> None:
        binary = subprocess.run(
            [REPOSITORY / "e2e/cluster/build.sh"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        fleet = REPOSITORY / "e2e/cluster/fleets/demo.yaml"
        self.process = subprocess.Popen(
            [binary, "up", "--fleet", fleet, "--stop-on-stdin-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the test cluster does not start")
        self.kubeconfig = json.loads(line)["kubeconfig"]
        self.server = json.loads(line)["server"]
        text = Path(self.kubeconfig).read_text()
        self.token = re.search(r"^ +token: (\S+)$", text, re.MULTILINE)[1]
        # Its certificate is one of its own, and it listens on loopback only.
        self.tls = ssl._create_unverified_context()

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def call(self, method: str, path: str, body: object = None, content: str = "application/json") -> dict:
        """One request. A body that is text is sent as it is."""
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        request = urllib.request.Request(self.server + path, data and data.encode(), method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", content)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(f"{error.code} {method} {path}: {error.read().decode()}") from error

    def get(self, path: str) -> dict:
        return self.call("GET", path)

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
            return True
        except Refused as error:
            if str(error).startswith("404 "):
                return False
            raise

    def merge(self, path: str, patch: dict) -> dict:
        return self.call("PATCH", path, patch, "application/merge-patch+json")

    def apply(self, document: str, dry_run: bool = False) -> dict:
        """Server-side apply of a document of YAML, which refuses what the API does not know."""
        version, kind = (re.search(rf"^{key}: (\S+)", document, re.MULTILINE)[1] for key in ("apiVersion", "kind"))
        metadata = re.search(r"^metadata:\n((?: .*\n)+)", document, re.MULTILINE)[1]
        name = re.search(r"^  name: (\S+)", metadata, re.MULTILINE)[1]
        namespace = re.search(r"^  namespace: (\S+)", metadata, re.MULTILINE)
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in WITHOUT_NAMESPACE:
            path += f"/namespaces/{namespace[1] if namespace else 'default'}"
        path += f"/{PLURALS.get(kind, kind.lower() + 's')}/{name}?fieldManager=test&fieldValidation=Strict&force=true"
        return self.call("PATCH", path + ("&dryRun=All" if dry_run else ""), document, "application/apply-patch+yaml")

    def until(self, what: str, condition, seconds: int = 60):
        """What `condition` returns, once that is true."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.2)


class Operator:
    """The operator as a process beside the cluster, with the account and the arguments of the Deployment."""

    def __init__(self, cluster: Cluster, namespace: str = "berth-system") -> None:
        deployment = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/berth-operator")
        pod = deployment["spec"]["template"]["spec"]
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{pod['serviceAccountName']}/token"
        token = cluster.call("POST", account, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        self.folder = tempfile.TemporaryDirectory()
        kubeconfig = Path(self.folder.name) / "kubeconfig"
        kubeconfig.write_text(Path(cluster.kubeconfig).read_text().replace(cluster.token, token))
        self.log = open(Path(self.folder.name) / "log", "w+")
        environment = {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": namespace, "POD_NAME": "beside-the-cluster"}
        self.process = subprocess.Popen(
            [os.environ["BERTH_OPERATOR"], *pod["containers"][0]["args"], "--listen=127.0.0.1:0"],
            env=environment,
            stderr=self.log,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        self.folder.cleanup()
