"""The Dockerfiles fit the repository: nothing builds images here, so they are read."""

import importlib.util
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from config.edge_model import EdgeModelSettings
from config.generator import GeneratorSettings
from config.settings import ServerSettings
from loragen import __version__

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "k8s" / "images"
FILES = sorted(IMAGES.glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass
class Stage:
    """The part of a Dockerfile from one FROM to the next."""

    base: str
    steps: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        return [words for name, words in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]


def stages(path: Path) -> list[Stage]:
    lines = re.sub(r"\\\n", " ", path.read_text()).splitlines()
    found: list[Stage] = []
    for line in lines:
        instruction, _, words = line.strip().partition(" ")
        if instruction == "FROM":
            found.append(Stage(words.split()[0], []))
        elif instruction and not instruction.startswith("#") and found:
            found[-1].steps.append((instruction, words.strip()))
    return found


@pytest.fixture(params=FILES, ids=lambda path: str(path.name))
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_is_an_image_for_every_process() -> None:
    names = {path.name.removesuffix(".Dockerfile") for path in FILES}
    assert names == {"server", "router_service", "worker"}


def test_what_is_copied_is_there(file: Path) -> None:
    for stage in stages(file):
        for words in stage.all("COPY"):
            if not words.startswith("--from="):
                for source in words.split()[:-1]:
                    assert (ROOT / source).exists(), source


def test_every_package_of_the_distribution_is_copied(file: Path) -> None:
    copied = {
        source
        for stage in stages(file)
        for words in stage.all("COPY")
        for source in words.split()[:-1]
    }
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= copied


def test_what_is_installed_is_locked(file: Path) -> None:
    installs = [
        part.strip()
        for stage in stages(file)
        for words in stage.all("RUN")
        for part in words.split("&&")
        if "pip install" in part
    ]
    tool, *rest = installs
    assert re.search(r"uv==\S+", tool)
    assert re.search(r"uv==(\S+)", tool).group(1) in (ROOT / "scripts/bootstrap.sh").read_text()  # type: ignore[union-attr]
    assert rest
    assert all("--constraint lock" in install for install in rest)
    locks = [
        words for stage in stages(file) for words in stage.all("COPY") if words.endswith(" lock")
    ]
    assert locks
    assert all(words.startswith("config/requirements/") for words in locks)


def test_extras_exist(file: Path) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for name in re.findall(r'"\.\[(.+?)\]"', file.read_text()):
        for extra in ("cpu", "gpu"):
            assert name.replace("${EXTRA}", extra) in extras


def test_base_images_are_versions_from_no_registry_of_ours(file: Path) -> None:
    own = re.findall(r" AS (\S+)", file.read_text())
    for stage in stages(file):
        if stage.base.replace("${EXTRA}", "cpu") not in own:
            assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", stage.base)


def test_the_process_is_no_root_and_has_no_tools_to_build(file: Path) -> None:
    final = stages(file)[-1]
    user, _, group = final.last("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    assert "PYTHONSAFEPATH=1" in final.last("ENV")
    assert not any("pip install" in words for words in final.all("RUN"))


def test_the_process_starts_a_module_that_exists(file: Path) -> None:
    python, flag, module, *_ = json.loads(stages(file)[-1].last("CMD"))
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("server", {ServerSettings().port, 9000}),
        ("router_service", {GeneratorSettings().port, 8080}),
        ("worker", {EdgeModelSettings.model_fields["port"].default}),
    ],
)
def test_the_ports_are_those_of_the_code(name: str, ports: set[int]) -> None:
    exposed = stages(IMAGES / f"{name}.Dockerfile")[-1].last("EXPOSE").split()
    assert {int(port) for port in exposed} == ports


def test_pods_name_images_of_this_version() -> None:
    for path in (ROOT / "k8s").rglob("*.yaml"):
        for name, tag in re.findall(r"image: (loragen-[\w-]+):(\S+)", path.read_text()):
            assert tag == __version__, f"{path}: {name}"
    overlay = yaml.safe_load((ROOT / "k8s/overlays/gpu-prod/kustomization.yaml").read_text())
    assert {each["newTag"] for each in overlay["images"]} == {__version__}
