"""Prometheus' own checks of the files that we ship."""

import subprocess
from pathlib import Path

import yaml

from k8s.monitoring.queries import COMPONENT, RULE_FILES
from tests.monitoring.prometheus import STATIC, program


def promtool(*arguments: str | Path) -> None:
    """Run promtool, which must be content."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_fire_and_clear_as_their_tests_say() -> None:
    promtool("test", "rules", COMPONENT / "rules_test.yaml")


def test_every_rule_has_a_test() -> None:
    tests = (COMPONENT / "rules_test.yaml").read_text(encoding="utf-8")
    for file in RULE_FILES:
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                assert (rule.get("record") or rule["alert"]) in tests


def test_the_static_configuration_is_valid() -> None:
    promtool("check", "config", STATIC)


def test_the_configuration_for_kubernetes_is_valid_but_for_its_discovery(tmp_path: Path) -> None:
    """Debian builds Prometheus without the discovery of Kubernetes, so it is left out here."""
    content = yaml.safe_load((COMPONENT / "scrape" / "kubernetes.yaml").read_text("utf-8"))
    for job in content["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs")
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(content))
    for file in RULE_FILES:
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"))
    promtool("check", "config", config)
