"""Which processes a configuration needs, and what each is told."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from config.edge_model import EdgeModelSettings
from config.generator import GeneratorSettings
from config.settings import ServerSettings, Settings
from config.stack import Stack, local_url, plan_stack, port_claims
from config.state_folder import StateFolder
from loragen.errors import ConfigError

MODEL = EdgeModelSettings(name="org/a", model=Path("m"), port=7001)
COMPILED = EdgeModelSettings(name="b", model=Path("m"), generator=Path("g"), port=7002)
REMOTE = EdgeModelSettings.model_validate(
    {"name": "c", "model": "m", "worker_urls": ["http://10.0.0.1:8001"]}
)


def plan(folder: Path, settings: Settings) -> Stack:
    with StateFolder.open(folder / "state") as state:
        return plan_stack(settings, [Path("a.yaml")], state=state, temp=folder)


def names(stack: Stack) -> list[str]:
    return [child.name for child in stack.children]


def test_one_worker_per_edge_model_and_a_generator_only_if_one_compiles(tmp_path: Path) -> None:
    assert names(plan(tmp_path, Settings(edge_models=(MODEL,)))) == [
        "redis",
        "worker org/a",
        "server",
    ]
    both = plan(tmp_path, Settings(edge_models=(MODEL, COMPILED)))
    assert names(both) == ["redis", "router_service", "worker org/a", "worker b", "server"]


def test_a_pool_without_a_generator_needs_the_router_service_too(tmp_path: Path) -> None:
    settings = Settings(edge_models=(MODEL.model_copy(update={"pool": Path("p")}),))
    stack = plan(tmp_path, settings)
    assert names(stack) == ["redis", "router_service", "worker org/a", "server"]
    assert "generator.port" in [claim.setting for claim in port_claims(settings)]


def test_what_is_elsewhere_is_not_started(tmp_path: Path) -> None:
    settings = Settings(
        edge_models=(COMPILED, REMOTE),
        redis_url=SecretStr("redis://10.0.0.2:6379"),
        generator=GeneratorSettings.model_validate({"url": "http://10.0.0.3:8100"}),
    )
    stack = plan(tmp_path, settings)
    assert names(stack) == ["worker b", "server"]
    assert stack.redis_url == "redis://10.0.0.2:6379"
    assert [claim.setting for claim in port_claims(settings)] == [
        "server.port",
        "edge_models b: port",
    ]


def test_ports_of_metrics_are_claimed_where_they_are_set() -> None:
    settings = Settings(
        edge_models=(COMPILED,),
        server=ServerSettings(metrics_port=9001),
        generator=GeneratorSettings(metrics_port=9002),
    )
    claims = {claim.setting: claim.port for claim in port_claims(settings)}
    assert claims["server.metrics_port"] == 9001
    assert claims["generator.metrics_port"] == 9002


def test_several_workers_of_a_model_have_ports_in_a_row(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"workers": 3})
    settings = Settings(edge_models=(model, COMPILED.model_copy(update={"port": 7010})))
    stack = plan(tmp_path, settings)
    workers = [child for child in stack.children if child.name.startswith("worker")]
    assert [child.name for child in workers] == [
        "worker org/a", "worker org/a-2", "worker org/a-3", "worker b",
    ]  # fmt: skip
    assert [child.command[-2:] for child in workers] == [
        ("--port", port) for port in ("7001", "7002", "7003", "7010")
    ]
    assert len({child.log for child in workers}) == 4
    assert settings.worker_urls(model) == tuple(f"http://127.0.0.1:{7001 + n}" for n in range(3))
    assert [(claim.setting, claim.port) for claim in port_claims(settings)][1:4] == [
        ("generator.port", 8100),
        ("edge_models org/a: port", 7001),
        ("edge_models org/a-2: port", 7002),
    ]


def test_with_a_next_generator_there_are_as_many_workers_of_its_pool(tmp_path: Path) -> None:
    model = COMPILED.model_copy(update={"workers": 2, "next_generator": Path("h")})
    settings = Settings(edge_models=(model,))
    stack = plan(tmp_path, settings)
    workers = [child for child in stack.children if child.name.startswith("worker")]
    assert [(child.name, child.command[6:]) for child in workers] == [
        ("worker b", ("7002",)),
        ("worker b-2", ("7003",)),
        ("worker b-next", ("7004", "--next")),
        ("worker b-next-2", ("7005", "--next")),
    ]
    assert [url[-4:] for url in settings.worker_urls(model)] == ["7002", "7003", "7004", "7005"]
    assert model.upgraded() == COMPILED.model_copy(update={"workers": 2, "generator": Path("h")})
    with pytest.raises(ConfigError, match="next_generator"):
        COMPILED.upgraded()


def test_the_admin_api_has_a_port_and_tools_are_told_where(tmp_path: Path) -> None:
    stack = plan(tmp_path, Settings(edge_models=(COMPILED,)))
    port = stack.children[-1].environment["LORAGEN_SERVER__ADMIN_PORT"]
    assert stack.admin_url == f"http://127.0.0.1:{port}"
    chosen = Settings(edge_models=(COMPILED,), server=ServerSettings(admin_port=8010))
    assert plan(tmp_path, chosen).admin_url == "http://127.0.0.1:8010"
    assert {claim.setting for claim in port_claims(chosen)} >= {"server.admin_port"}


@pytest.mark.parametrize("exported", [False, True])
def test_each_process_gets_its_own_secrets_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    if exported:
        for name in ("master_secret", "worker_secret", "admin_secret"):
            monkeypatch.setenv(f"LORAGEN_{name.upper()}", "ab" * 32)
    stack = plan(tmp_path, Settings(edge_models=(COMPILED,)))
    told = {
        child.name: {
            name.removeprefix("LORAGEN_").lower()
            for name in child.environment
            if name.endswith(("_SECRET", "_TOKEN", "_REDIS_URL"))
        }
        for child in stack.children
    }
    assert told == {
        "redis": set(),
        "router_service": {"generator_secret", "ray_token"},
        "worker b": {"worker_secret"},
        "server": {
            "master_secret",
            "worker_secret",
            "generator_secret",
            "admin_secret",
            "redis_url",
        },
    }
    secrets = [path.read_text() for path in (tmp_path / "state" / "secrets").iterdir()]
    for child in stack.children:
        assert not any(secret in word for secret in secrets for word in child.command)


def test_an_encryption_key_is_used_where_there_is_one_and_made_nowhere(tmp_path: Path) -> None:
    settings = Settings(edge_models=(MODEL,))
    for kept in (None, "ab" * 32):
        if kept is not None:
            path = tmp_path / "state" / "secrets" / "encryption_key"
            path.write_text(kept)
            path.chmod(0o600)
        *others, server = plan(tmp_path, settings).children
        assert server.environment.get("LORAGEN_ENCRYPTION_KEY") == kept
        assert not any("LORAGEN_ENCRYPTION_KEY" in each.environment for each in others)


def test_the_gateway_finds_a_generator_on_another_port(tmp_path: Path) -> None:
    settings = Settings(edge_models=(COMPILED,), generator=GeneratorSettings(port=9009))
    server = plan(tmp_path, settings).children[-1]
    assert server.environment["LORAGEN_GENERATOR__URL"] == "http://127.0.0.1:9009"
    assert server.environment["LORAGEN_CONFIG"] == str(Path("a.yaml").resolve())


def test_local_addresses_can_be_reached() -> None:
    assert local_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert local_url("::1", 80) == "http://[::1]:80"
    assert local_url("10.0.0.1", 80) == "http://10.0.0.1:80"
