"""The worker process: checks that pool and edge model belong together, then is vLLM's server.

Started by `python -m workers`. Every process that vLLM starts imports this module again, first of
all, as `__mp_main__`: so heavy imports wait inside functions (an engine must not load the HTTP
server), and the lifeline is tied here.
"""

import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loragen.errors import ArtifactCorrupt, ConfigError, StartupError
from workers.lifeline import die_with_parent
from workers.plugin import require_supported_vllm
from workers.spec import WorkerSpec

if TYPE_CHECKING:
    from loragen.method.pool import Pool

logger = logging.getLogger("vllm.loragen")  # below "vllm": its handlers and level apply


def main(arguments: Sequence[str]) -> int:
    """Run the server until a signal; return the exit status."""
    try:
        require_supported_vllm()
        args = parse_arguments(arguments)
        prepare(args)
        run(args)
    except StartupError as error:
        logger.critical("worker refuses to start: %s", error)
        return error.exit_code
    return 0


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    """Parse vLLM server arguments as `vllm serve` does."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(list(arguments))
    configure_logging_from_args(args)
    validate_parsed_serve_args(args)
    return args


def prepare(args: Namespace) -> None:
    """Write into vLLM's arguments what only pool and edge model can tell.

    Raises:
        ArtifactCorrupt: they do not belong together.
        ConfigError: the wanted backend does not cover the model, or the model is cut into stages.
    """
    spec = WorkerSpec.from_additional_config(args.additional_config)
    if spec.pool is None:
        return
    if args.pipeline_parallel_size > 1:  # the engine would find out, and say so in its log alone
        raise ConfigError("recipes are not mixed over a pipeline: --pipeline-parallel-size is 1")
    from workers.coverage import choose_backend

    model = Path(args.model)
    pool = verify(spec, model)
    backend = choose_backend(spec.backend, pool.spec, model)
    logger.info("recipes are mixed by the %s backend (%s is configured)", backend, spec.backend)
    if backend == "materialise":
        from workers.materialise import slot_arguments

        vars(args).update(slot_arguments(pool.spec, slots=spec.adapter_slots))
    spec = replace(spec, pool_id=pool.id, backend=backend)
    args.additional_config = {**args.additional_config, **spec.additional_config()}


def verify(spec: WorkerSpec, model: Path) -> "Pool":
    """Return the spec's pool, which belongs to this edge model and template.

    Raises:
        ArtifactCorrupt: it does not, or there is none.
    """
    from loragen.method.pool import Pool, edge_fingerprint

    assert spec.pool is not None
    pool = Pool.load(spec.pool)
    if pool.spec.edge_fingerprint != edge_fingerprint(model):
        raise ArtifactCorrupt(f"pool {spec.pool} was made for another edge model than {model}")
    if pool.spec.template_hash != spec.template_hash:
        raise ArtifactCorrupt(f"pool {spec.pool} was made for another compiled template")
    return pool


def run(args: Namespace) -> None:
    """Serve until a signal, and then until what runs is answered; see `workers.drain`.

    Before it listens a signal ends the process at once, and its children by their lifeline: vLLM
    would raise KeyboardInterrupt in whatever the event loop runs, and can be left waiting for ever.
    """
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.entrypoints.launchers.launcher import setup_server
    from vllm.utils.system_utils import decorate_logs

    from loragen.drain import Drain
    from workers.drain import DrainingLoop

    loop = partial(DrainingLoop.over, Drain(), seconds=args.shutdown_timeout)
    args.shutdown_timeout = 0  # after our drain there is nothing that could still be answered
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    decorate_logs("APIServer")
    address, listener = setup_server(args, reuse_port=False)
    server = run_server_worker(address, listener, args)
    uvloop.run(server, loop_factory=loop)


if __name__ == "__mp_main__":
    # A terminal's Ctrl-C goes to the whole group, and an engine that is told to end drains nothing.
    os.setpgid(0, 0)
    die_with_parent()

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
