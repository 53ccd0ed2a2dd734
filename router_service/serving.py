"""Serving: the application on Ray Serve, from deployed to shut down."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from config.settings import Settings
from loragen.errors import ArtifactCorrupt, StartupError
from router_service.app import APPLICATION, build
from router_service.plan import ServicePlan

LOGS: Final = "logs/ray-serve"
_OWN_ERROR: Final = re.compile(r"loragen\.errors\.\w+: (.+)")


@contextmanager
def serving(settings: Settings, plan: ServicePlan) -> Iterator[None]:
    """Deploy the application on the connected Ray; returns when every generator is loaded.

    Raises:
        ArtifactCorrupt: a generator cannot be loaded.
        StartupError: Serve cannot start the application.
    """
    options = settings.generator
    logs = (settings.state_dir / LOGS).resolve()
    shutil.rmtree(logs, ignore_errors=True)  # every replica has a file of its own
    logging_config = LoggingConfig(
        encoding="JSON",
        log_level=settings.logs.level,
        logs_dir=str(logs),
        enable_access_log=False,  # the gateway probes every second
    )
    serve.start(
        http_options=HTTPOptions(
            host=options.host,
            port=options.port,
            # The service answers 504 itself; this only ends what is stuck in the proxy.
            request_timeout_s=max(options.timeout_seconds, options.refine_timeout_seconds) + 5,
        ),
        logging_config=logging_config,
    )
    try:
        try:
            serve.run(
                build(settings, plan),
                name=APPLICATION,
                route_prefix="/",
                logging_config=logging_config,
            )
        except RuntimeError as error:
            raise _explain() from error
        yield
    finally:
        # A Ray of our own goes with all its actors; on a shared one only ours must go.
        if options.ray_address is not None:
            serve.delete(APPLICATION)


def _explain() -> StartupError:
    """Find our own error in Serve's report of why it gave up."""
    status = serve.status().applications.get(APPLICATION)
    messages = [deployment.message for deployment in status.deployments.values()] if status else []
    for message in messages:
        if own := _OWN_ERROR.search(message):
            return ArtifactCorrupt(own.group(1))
    last = [line for message in messages for line in message.splitlines() if line.strip()]
    return StartupError(f"Ray Serve cannot start the generators: {(last or ['no reason'])[-1]}")
