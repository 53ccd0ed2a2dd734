"""Entry point `vllm.endpoint_plugins`: the HTTP side of the worker, inside vLLM's OpenAI server."""

import asyncio
from argparse import Namespace
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from vllm import envs
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

from loragen.method.pool import Pool
from loragen.wire import WorkerBackend, WorkerInfo
from workers.adapter_line import AdapterLine
from workers.drain import DrainingLoop, DrainMiddleware
from workers.ids import RecipeIds
from workers.intake import NoIntake, RecipeIntake, RecipeView
from workers.middleware import KeyMiddleware, RecipeMiddleware
from workers.selftest import SelfTest
from workers.spec import WorkerSpec


class RecipeEndpoint:
    """Lets every generation route of vLLM take a recipe, and adds `GET /loragen`."""

    name: ClassVar[str] = "loragen_api"
    required_tasks: ClassVar[tuple[str, ...]] = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add our route and middleware; vLLM calls this before it adds its own, outer, ones."""
        app.add_api_route("/loragen", describe, methods=["GET"], response_model=WorkerInfo)
        app.add_middleware(RecipeMiddleware)
        keys = [key for key in (app.state.args.api_key or [envs.VLLM_API_KEY]) if key]
        if keys:
            guard = AuthenticationMiddleware(app, keys)
            app.add_middleware(KeyMiddleware, verify=guard.verify_token)
        loop = asyncio.get_running_loop()
        if isinstance(loop, DrainingLoop):  # another server's loop ends as that server wants
            app.add_middleware(DrainMiddleware, drain=loop.drain)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Test the engine and open the intake; vLLM answers no request before this returns.

        Raises:
            SelfTestFailed: the engine does not mix recipes as it must.
        """
        spec = WorkerSpec.from_additional_config(engine_client.vllm_config.additional_config)
        state.worker_info = WorkerInfo(
            edge_model=spec.edge_model,
            pool_id=spec.pool_id,
            template_hash=spec.template_hash,
            backend=_backend(spec),
            max_model_len=engine_client.model_config.max_model_len,
        )
        if spec.pool is None:
            state.recipe_intake = NoIntake()
            return
        pool = Pool.load(spec.pool)
        line = AdapterLine(spec.adapter_slots) if spec.backend == "materialise" else None
        models = state.openai_serving_models
        state.recipe_intake = _open_intake(pool, engine_client, models, line)
        await SelfTest(engine_client, state.recipe_intake).run()


async def describe(request: Request) -> WorkerInfo:
    """Say what this worker serves."""
    info: WorkerInfo = request.app.state.worker_info
    return info


def _backend(spec: WorkerSpec) -> WorkerBackend:
    if spec.pool is None:
        return "none"
    assert spec.backend != "auto"  # decided before any engine starts
    return spec.backend


def _open_intake(
    pool: Pool, engine_client: Any, models: Any, line: AdapterLine | None
) -> RecipeIntake:
    served = models.base_model_paths[0].name
    view = RecipeView(frozenset(path.name for path in models.base_model_paths))
    models.lora_requests = view
    # Else the answer's "model" would be the recipe's digest.
    models.model_name = lambda lora_request=None: served
    # Else vLLM's metrics grow a series for every set of recipes that ever ran together.
    engine_client.output_processor.lora_states.log_stats = False
    core = engine_client.engine_core
    ids = RecipeIds(first=core.client_index + 1, step=core.client_count)
    return RecipeIntake(pool.id, pool.spec, ids, view, line)
