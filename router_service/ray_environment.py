"""Ray environment: the variables that decide how safe and how quiet Ray is.

Ray reads them when it is imported, so this module does not import it and `__main__` calls
`prepare_ray` before it imports what does.
"""

from typing import Final

from config.environment import export_environment
from config.secret_store import SecretStore
from config.settings import Settings
from loragen.errors import ConfigError

ADDRESS_FILE: Final = "ray_address"
"""In the state folder while a Ray of our own runs."""


def prepare_ray(settings: Settings) -> None:
    """Set the variables that Ray reads when it is imported."""
    export_environment(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_SERVE_LOG_TO_STDERR="0",
        RAY_COLOR_PREFIX="0",
        RAY_DEDUP_LOGS="0",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_OFFLINE="1",
    )
    if settings.generator.ray_address is None:
        export_environment(
            # The name says Windows; on Linux too it decides that Ray may use loopback addresses.
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            # Ray gives its actors 15 more than ours: beside a busy worker compiles would wait.
            RAY_worker_niceness="0",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=SecretStore(settings.state_dir).value("ray_token", settings.ray_token),
        )
    elif settings.ray_token is not None:
        export_environment(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=settings.ray_token.get_secret_value()
        )


def running_address(settings: Settings) -> str:
    """Return the address of the Ray that serves this configuration, of our own or configured.

    Raises:
        ConfigError: none is running here.
    """
    if settings.generator.ray_address is not None:
        return settings.generator.ray_address
    try:
        return (settings.state_dir / ADDRESS_FILE).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"no router service runs with state_dir {settings.state_dir}") from error
