"""The one schema of all configuration. `config.load` reads it, `docs/configuration.md` lists it."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from config.edge_model import EdgeModelSettings
from config.generator import GeneratorSettings
from config.limits import LimitSettings
from config.section import Section
from config.shadow import ShadowSettings
from loragen.errors import ConfigError

SECRET_FIELDS: Final = (
    "master_secret",
    "encryption_key",
    "worker_secret",
    "generator_secret",
    "admin_secret",
    "ray_token",
    "redis_url",
)


class StoreSettings(Section):
    """How tasks and recipes are kept in Redis and in memory."""

    namespace: str = Field(
        "loragen", pattern=r"^[a-z0-9-]+$", description="First part of every Redis key."
    )
    recipe_ttl_seconds: int = Field(
        30 * 86_400,
        ge=60,
        description="Recipes expire after this long without use; tasks never do.",
    )
    memory_entries: int = Field(
        10_000, ge=1, description="Tasks kept resolved in a gateway's memory."
    )
    memory_bytes: int = Field(
        256 << 20, ge=1 << 20, description="Prompts and recipes kept in a gateway's memory."
    )
    memory_ttl_seconds: float = Field(
        2.0,
        gt=0,
        description="After this long a gateway asks Redis again whether a task still exists: "
        "for the case that word of its delete was lost.",
    )
    timeout_seconds: float = Field(2.0, gt=0, description="Deadline of one Redis call.")
    name_versions: int = Field(
        20, ge=2, le=1_000, description="Versions kept of a name; the oldest go first."
    )


class ServerSettings(Section):
    """The gateway."""

    host: str = Field("127.0.0.1", description="Address the API binds.")
    port: int = Field(8000, ge=1, le=65_535, description="Port the API binds.")
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="Port of /metrics alone; default: the API's port."
    )
    admin_host: str = Field("127.0.0.1", description="Address the admin API binds.")
    admin_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port of the admin API; default: none. A local start takes any free one.",
    )
    auth: Literal["open", "keys"] = Field(
        "open",
        description="keys: every request needs a tenant's API key. open: one without a key is the "
        "tenant `default`'s.",
    )
    allow_open_network: bool = Field(
        False,
        description="Bind beyond loopback with `auth: open`: whoever reaches the port is the one "
        "open tenant. Only behind a network policy or a proxy that authenticates.",
    )
    compile_timeout_seconds: float = Field(30.0, gt=0, description="Deadline of one compile.")
    refine_timeout_seconds: float = Field(
        300.0, gt=0, description="Deadline of one refine or measure."
    )
    measure: bool = Field(
        True,
        description="Measure every new recipe of an edge model that is there to be measured with; "
        "one that does not pass the task's `min_fidelity` and the edge model's `min_agreement` and "
        "`max_doubt` is withheld.",
    )
    request_timeout_seconds: float = Field(
        300.0,
        gt=0,
        description="Deadline of one whole answer, waiting included; of a stream, the longest wait "
        "for its beginning and for each next token.",
    )
    client_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="A client has so long to send a whole request, and to read what waits for it: "
        "then it is hung up on.",
    )
    connect_timeout_seconds: float = Field(2.0, gt=0, description="Deadline of reaching a worker.")
    probe_interval_seconds: float = Field(1.0, gt=0, description="Pause between health probes.")
    max_body_bytes: int = Field(2 << 20, ge=1_024, description="Largest request body accepted.")
    max_import_bytes: int = Field(
        32 << 20, ge=1_024, description="Largest body of POST /v1/tasks/import."
    )
    import_concurrency: int = Field(
        8, ge=1, le=256, description="Tasks of one import that are created, or compiled, at once."
    )
    max_prompt_bytes: int = Field(256 << 10, ge=1, description="Largest system prompt accepted.")
    keep_alive_seconds: float = Field(15.0, gt=0, description="Silence before an SSE comment.")
    drain_delay_seconds: float = Field(
        0.0,
        ge=0,
        description="Told to end, a gateway is at once not ready but accepts for this long still: "
        "longer than a load balancer takes to notice.",
    )
    drain_timeout_seconds: float = Field(
        5.0,
        ge=0,
        description="After the delay, running answers may take this long; then they are cut off "
        "with an error.",
    )
    force_prompt: bool = Field(
        False, description="Serve every task in prompt mode although it has a recipe."
    )


class AutoSettings(Section):
    """System text without a task: when it is compiled, and when a conversation may switch to it."""

    min_prompt_tokens: int = Field(
        256, ge=0, description="Shorter prompts stay in context: a recipe saves little on them."
    )
    window_seconds: int = Field(
        3_600, ge=1, description="A prompt that comes again within this long is compiled."
    )
    compile_budget: int = Field(
        60, ge=0, description="Prompts compiled by themselves, per tenant and period; 0 for none."
    )
    budget_seconds: int = Field(3_600, ge=1, description="Length of that period.")
    task_ttl_seconds: int = Field(
        86_400, ge=60, description="Tasks made by themselves expire after this long without use."
    )
    switch: Literal["next_conversation", "now"] = Field(
        "next_conversation",
        description="When a conversation in prompt mode goes over to a recipe: never half-way, or"
        " at once. A request can say otherwise in `loragen.switch`.",
    )
    conversation_seconds: int = Field(
        3_600,
        ge=1,
        description="How long a conversation in prompt mode is remembered after its last request.",
    )


class UpgradeSettings(Section):
    """Upgrades of pools: how tasks are compiled for the one that is coming, behind all answers."""

    compiles_per_second: float = Field(
        5.0, gt=0, description="Tasks compiled for a pool that is coming, of one edge model."
    )
    at_once: int = Field(2, ge=1, le=64, description="Of those, how many the generator has.")
    popular_days: int = Field(
        7,
        ge=0,
        le=400,
        description="Tasks with the most requests of today and so many days before come first.",
    )
    ready_share: float = Field(
        0.95,
        ge=0,
        le=1,
        description="Share of those requests whose tasks the new pool must answer no worse, or a "
        "switch is refused unless forced.",
    )


class UsageSettings(Section):
    """What tenants were served."""

    keep_days: int = Field(
        400, ge=1, le=400, description="Days that usage is kept for `GET /v1/usage`."
    )


class LogSettings(Section):
    """Logging of every process."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level shown."
    )


class Settings(BaseSettings):
    """All configuration of all processes."""

    model_config = SettingsConfigDict(
        env_prefix="LORAGEN_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    state_dir: Path = Field(
        Path(".loragen"), description="Where a local start keeps its Redis data, secrets and logs."
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis or Valkey, redis://...; default: a local server of our own."
    )
    master_secret: SecretStr | None = Field(
        None,
        description="Key from which tenants' keys are derived; hex, 32 bytes or more. While it is "
        "rotated its versions, apart by commas, the one for what is new first.",
    )
    encryption_key: SecretStr | None = Field(
        None,
        description="Key that prompts, tools, probes and recipes are sealed with in Redis; hex, 32 "
        "bytes or more, with versions as master_secret. Default: they are stored as they are.",
    )
    worker_secret: SecretStr | None = Field(None, description="Bearer key of the workers.")
    generator_secret: SecretStr | None = Field(None, description="Bearer key of POST /compile.")
    admin_secret: SecretStr | None = Field(None, description="Bearer key of the admin API.")
    ray_token: SecretStr | None = Field(None, description="Token every Ray connection must show.")
    store: StoreSettings = StoreSettings()
    edge_models: tuple[EdgeModelSettings, ...] = Field((), description="Models to serve.")
    generator: GeneratorSettings = GeneratorSettings()
    server: ServerSettings = ServerSettings()
    auto: AutoSettings = AutoSettings()
    shadow: ShadowSettings = ShadowSettings()
    limits: LimitSettings = LimitSettings()
    usage: UsageSettings = UsageSettings()
    upgrades: UpgradeSettings = UpgradeSettings()
    logs: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _unique(self) -> "Settings":
        names = [model.name for model in self.edge_models]
        if len(set(names)) != len(names):
            raise ValueError("edge_models: two models have the same name")
        workers = [name for model in self.edge_models for name in model.local_workers]
        if len(set(workers)) != len(workers):
            raise ValueError("edge_models: a model has the name of another's second worker")
        for model in self.edge_models:
            if model.worker_service is not None and model.worker_urls:
                raise ValueError(
                    f"edge_models {model.name}: worker_service or worker_urls, not both"
                )
        return self

    def edge_model(self, name: str) -> EdgeModelSettings:
        """Return one edge model's settings.

        Raises:
            ConfigError: no such model is configured.
        """
        for model in self.edge_models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in self.edge_models) or "none"
        raise ConfigError(f"no edge model {name!r} in the configuration (configured: {known})")

    def worker_urls(self, model: EdgeModelSettings) -> tuple[str, ...]:
        """Return the known worker addresses of a model, without trailing slash."""
        if model.worker_service is not None:
            return ()
        urls = [str(url) for url in model.worker_urls] or [
            f"http://127.0.0.1:{port}" for port in model.local_workers.values()
        ]
        return tuple(url.rstrip("/") for url in urls)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the YAML files below the environment and merge them key by key."""
        yaml = YamlConfigSettingsSource(settings_cls, deep_merge=True)
        return init_settings, env_settings, file_secret_settings, yaml
