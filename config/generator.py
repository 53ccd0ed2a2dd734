"""The router service's part of the settings."""

from pydantic import AnyHttpUrl, Field

from config.section import Section
from loragen.wire import MAX_PROBES, MIN_PROBES


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
    refine_steps: int = Field(
        100, ge=1, le=10_000, description="Gradient steps of one round of a refine."
    )
    refine_rounds: int = Field(
        2,
        ge=1,
        le=10,
        description="Rounds of one refine at most. A task goes through another where more than "
        "one of twenty of its probes is not answered as it should be.",
    )
    refine_probes: int = Field(
        48,
        ge=MIN_PROBES,
        le=MAX_PROBES,
        description="Messages that a task is refined on where it brings no probes.",
    )
    measure_probes: int = Field(
        24,
        ge=MIN_PROBES,
        le=MAX_PROBES,
        description="Messages that a recipe is measured on where its task brings no probes.",
    )
    refine_timeout_seconds: float = Field(
        300.0,
        gt=0,
        description="Deadline of one refine or measure, waiting for others included.",
    )
    refine_threads: int = Field(1, ge=1, description="CPU threads of one edge model's refiner.")
    ray_address: str | None = Field(
        None, description="Ray cluster to join, host:port or auto; default: a local one of our own."
    )
