"""The one schema of all configuration, and the only place that reads the environment.

Order, strongest first: arguments, environment (`LORAGEN_SERVER__PORT=8080`), the YAML files of
`LORAGEN_CONFIG` or `--config` (comma-separated, later over earlier, merged key by key), defaults.
Secrets come from the environment or from files in `/run/secrets`, never from YAML. Unknown keys
are errors.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import (
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from loragen.errors import ConfigError

CONFIG_VARIABLE: Final = "LORAGEN_CONFIG"
SECRETS_FOLDER: Final = Path("/run/secrets")
SECRET_FIELDS: Final = (
    "master_secret",
    "worker_secret",
    "generator_secret",
    "ray_token",
    "redis_url",
)


class Section(BaseModel):
    """A part of the settings that one component takes as its slice."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class EdgeModelSettings(Section):
    """One small model that answers, with its workers and, if it has one, its generator."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$",
        description="The `model` clients ask for. No ':'.",
    )
    model: Path = Field(description="Folder of the Hugging Face model. Hub ids are not downloaded.")
    chat_template: Path | None = Field(
        None,
        description="The model's chat template, a file; default: its own, from its "
        "chat_template.jinja or tokenizer_config.json.",
    )
    compiled_template: str | None = Field(
        None,
        description="What compiled mode prints: a family (llama-2, llama-3, qwen2.5, qwen3, gemma, "
        "mistral-v1, mistral-v3, mistral-tekken) or a file; default: the model folder's "
        "compiled_template.jinja, else the family that its chat template turns out to be of.",
    )
    tool_call_parser: str | None = Field(
        None,
        description="vLLM's parser of this model's tool calls, such as hermes. Without one, "
        "requests with tools are refused.",
    )
    generator: Path | None = Field(
        None,
        description="Generator checkpoint folder. Without one the model serves prompt mode only.",
    )
    force_prompt: bool = Field(
        False, description="Serve this model's tasks in prompt mode although they have recipes."
    )
    worker_urls: tuple[AnyHttpUrl, ...] = Field(
        (),
        description="Where the gateway finds this model's workers; default: this machine's port.",
    )
    worker_service: AnyHttpUrl | None = Field(
        None,
        description="In place of worker_urls: a URL whose host name has the IP address of every "
        "worker of this model, such as a headless Kubernetes Service; looked up again and again.",
    )
    port: int = Field(8001, ge=1, le=65_535, description="Port a worker of this model listens on.")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Workers that `loragen up` starts, on this port and those after it.",
    )
    max_outstanding: int | None = Field(
        None,
        ge=1,
        description="Requests that one gateway has at one worker; default: twice max_num_seqs, one "
        "batch that runs and one to fill its gaps.",
    )
    max_waiting: int = Field(
        256,
        ge=0,
        description="Requests that wait in one gateway while all workers of this model have that "
        "many; further ones get 429.",
    )
    max_wait_seconds: float = Field(
        10.0, gt=0, description="How long a request waits for a worker before it gets 429."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Compute type.")
    max_model_len: int = Field(1_024, ge=16, description="Context in tokens, prompt and answer.")
    max_num_seqs: int = Field(
        64, ge=1, le=4_096, description="Requests in one batch, and recipes held by the engine."
    )
    max_num_batched_tokens: int = Field(
        4_096, ge=16, description="Tokens in one engine step; sizes the per-step gate buffers."
    )
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory for the KV cache on CPU, in GiB.")
    drain_timeout_seconds: int = Field(
        20,
        ge=0,
        description="Told to end, a worker takes nothing new and finishes what it has for this "
        "long.",
    )
    engine_args: tuple[str, ...] = Field((), description="More vLLM server arguments, as they are.")

    @property
    def local_workers(self) -> dict[str, int]:
        """The workers on one machine, by name: the edge model's, counted from the second on."""
        names = [self.name, *(f"{self.name}-{count}" for count in range(2, self.workers + 1))]
        return {name: self.port + index for index, name in enumerate(names)}

    @property
    def template_path(self) -> Path | None:
        """The file of the chat template; None where it stands in tokenizer_config.json."""
        own = self.model / "chat_template.jinja"
        return self.chat_template or (own if own.is_file() else None)


class GeneratorSettings(Section):
    """The router service: generators and refiners in Ray actors."""

    url: AnyHttpUrl = Field(
        AnyHttpUrl("http://127.0.0.1:8100"), description="Where the gateway finds it."
    )
    host: str = Field("127.0.0.1", description="Address the Ray Serve proxy binds.")
    port: int = Field(8100, ge=1, le=65_535, description="Port the Ray Serve proxy binds.")
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="Port of a local Ray's metrics; default: any free one."
    )
    replicas: int = Field(1, ge=1, description="Actors per cloud model.")
    batch_size: int = Field(16, ge=1, description="Prompts compiled in one forward pass at most.")
    batch_wait_seconds: float = Field(0.01, ge=0, description="How long a batch waits to fill.")
    max_queued: int = Field(256, ge=1, description="Compiles waiting per replica before 503.")
    timeout_seconds: float = Field(
        30.0, gt=0, description="Deadline of one compile, waiting for an actor included."
    )
    threads: int = Field(1, ge=1, description="CPU threads of one generator actor.")
    refine_batch_size: int = Field(
        8, ge=1, description="Tasks of one edge model refined side by side at most."
    )
    refine_steps: int = Field(100, ge=1, le=10_000, description="Gradient steps of one refine.")
    refine_timeout_seconds: float = Field(
        300.0, gt=0, description="Deadline of one refine, waiting for others included."
    )
    refine_threads: int = Field(1, ge=1, description="CPU threads of one edge model's refiner.")
    ray_address: str | None = Field(
        None, description="Ray cluster to join, host:port or auto; default: a local one of our own."
    )


class ServerSettings(Section):
    """The gateway."""

    host: str = Field("127.0.0.1", description="Address the API binds.")
    port: int = Field(8000, ge=1, le=65_535, description="Port the API binds.")
    metrics_port: int | None = Field(
        None, ge=1, le=65_535, description="Port of /metrics alone; default: the API's port."
    )
    allow_open_network: bool = Field(
        False,
        description="Bind beyond loopback although no API keys exist: whoever reaches the port is "
        "the one open tenant. Only behind a network policy or a proxy that authenticates.",
    )
    compile_timeout_seconds: float = Field(30.0, gt=0, description="Deadline of one compile.")
    refine_timeout_seconds: float = Field(300.0, gt=0, description="Deadline of one refine.")
    request_timeout_seconds: float = Field(
        300.0,
        gt=0,
        description="Deadline of one whole answer, waiting included; of a stream, the longest wait "
        "for its beginning and for each next token.",
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
        None, description="Key from which tenants' keys are derived; hex, 32 bytes or more."
    )
    worker_secret: SecretStr | None = Field(None, description="Bearer key of the workers.")
    generator_secret: SecretStr | None = Field(None, description="Bearer key of POST /compile.")
    ray_token: SecretStr | None = Field(None, description="Token every Ray connection must show.")
    store: StoreSettings = StoreSettings()
    edge_models: tuple[EdgeModelSettings, ...] = Field((), description="Models to serve.")
    generator: GeneratorSettings = GeneratorSettings()
    server: ServerSettings = ServerSettings()
    auto: AutoSettings = AutoSettings()
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


def load_settings(files: Sequence[Path] | None = None, **overrides: Any) -> Settings:
    """Read the configuration; `files` default to those named by LORAGEN_CONFIG.

    Raises:
        ConfigError: a file is missing, holds a secret, or a field is wrong; the message names it.
    """
    paths = list(files) if files is not None else files_from_environment()
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"no configuration file {path}")
        _refuse_secrets(path)
    secrets = str(SECRETS_FOLDER) if SECRETS_FOLDER.is_dir() else None

    class Loaded(Settings):
        model_config = SettingsConfigDict(yaml_file=paths, secrets_dir=secrets)

    try:
        return Loaded(**overrides)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def child_environment(**values: str) -> dict[str, str]:
    """Return this process's environment with `values` on top, for a process it starts."""
    return {**os.environ, **values}  # noqa: TID251 - the one owner of the environment


def export_environment(**values: str) -> None:
    """Set variables for libraries that this process loads later and for all it starts."""
    os.environ.update(values)  # noqa: TID251 - the one owner of the environment


def files_from_environment() -> list[Path]:
    """Return the configuration files that LORAGEN_CONFIG names."""
    names = os.environ.get(CONFIG_VARIABLE, "")  # noqa: TID251 - the one owner of the environment
    return [Path(name) for name in names.split(",") if name]


def _refuse_secrets(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings")
    for name in SECRET_FIELDS:
        if name in (content or {}):
            raise ConfigError(f"{path}: {name} is a secret: set LORAGEN_{name.upper()} instead")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"]) or "settings"
        lines.append(f"{where}: {item['msg']}")
    return "; ".join(lines)
