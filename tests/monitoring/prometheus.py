"""A real Prometheus with the shipped rules and scrape configuration, made to run faster.

Time is scaled: intervals, windows and `for:` are the shipped ones divided by FASTER. The
expressions stay, so what is proven of them holds.
"""

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from config.ports import free_port
from k8s.monitoring.queries import COMPONENT, RULE_FILES
from tests.e2e.stack import wait_until

FASTER: Final = 15
STATIC: Final = COMPONENT / "scrape" / "static.yaml"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_WINDOW: Final = re.compile(r"\[(\d+)([smh])\]")


def program(name: str) -> str:
    """Return the path of one of Prometheus' programs; `scripts/prometheus.sh` sees to them."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None, f"no {name}: run `make monitoring-check`"
    return found


def faster(duration: str) -> str:
    """Return a duration such as 5m, divided by FASTER."""
    seconds = int(duration[:-1]) * _UNITS[duration[-1]]
    assert seconds % FASTER == 0, f"{duration} is not a multiple of {FASTER} seconds"
    return f"{seconds // FASTER}s"


def faster_rules(file: Path) -> dict[str, Any]:
    """Return a file of rules with all its times scaled."""
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    for group in content["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _WINDOW.sub(lambda found: f"[{faster(found[0][1:-1])}]", rule["expr"])
            if "for" in rule:
                rule["for"] = faster(rule["for"])
    return content


class Prometheus:
    """A running Prometheus."""

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        """`targets` maps every job of the static scrape configuration to its host:port."""
        config = yaml.safe_load(STATIC.read_text(encoding="utf-8"))
        config["global"] = {name: faster(value) for name, value in config["global"].items()}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        config["rule_files"] = [str(folder / file.name) for file in RULE_FILES]
        for file in RULE_FILES:
            (folder / file.name).write_text(yaml.safe_dump(faster_rules(file)))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdout=log,
                stderr=log,
            )
        self._http = httpx.Client(base_url=f"http://{address}", timeout=10)

    def wait_ready(self) -> None:
        """Return once it answers."""
        try:
            wait_until(self._is_ready, 30, alive=self._process)
        except AssertionError:
            raise AssertionError(f"not ready:\n{self._log.read_text(errors='replace')}") from None

    def query(self, expr: str) -> list[float]:
        """Return the values of an expression that are numbers."""
        samples = self._get("query", query=expr)["result"]
        values = [float(sample["value"][1]) for sample in samples]
        return [value for value in values if not math.isnan(value)]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {
            alert["labels"]["alertname"]
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def rules(self) -> dict[str, str]:
        """Return the health of every rule that it has loaded."""
        groups = self._get("rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def close(self) -> None:
        """End it."""
        self._http.close()
        self._process.terminate()
        self._process.wait(30)

    def _is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        reply = self._http.get(f"/api/v1/{path}", params=params)
        assert reply.status_code == 200, reply.text
        data: dict[str, Any] = reply.json()["data"]
        return data
