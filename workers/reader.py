"""Recipe reader of an engine process: the gates that a request brings for the engine's pool.

An exception there kills the engine, so recipes are validated in the API process; what is raised
here means that our own code is wrong, and never serves a wrong recipe.
"""

from dataclasses import dataclass
from typing import Any, Self

from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.method.pool import Pool
from loragen.recipe import Gates, Recipe
from workers.spec import WorkerSpec


@dataclass(frozen=True, slots=True)
class RecipeReader:
    """Reads recipes for the pool that the API process verified."""

    pool: Pool

    @classmethod
    def load(cls, vllm_config: Any) -> Self:
        """Read the pool that the worker's spec names.

        Raises:
            ConfigError: it names none, or the model is cut into pipeline stages.
            ArtifactCorrupt: the file is not the one that was verified.
        """
        spec = WorkerSpec.from_additional_config(vllm_config.additional_config)
        if spec.pool is None:
            raise ConfigError(f"edge model {spec.edge_model!r} has no pool, yet LoRA is enabled")
        if vllm_config.parallel_config.pipeline_parallel_size > 1:
            raise ConfigError("recipes are not mixed into a model cut into pipeline stages")
        pool = Pool.load(spec.pool)
        if pool.id != spec.pool_id:
            raise ArtifactCorrupt(f"pool {spec.pool} changed while the worker was starting")
        return cls(pool)

    def gates(self, request: Any) -> Gates:
        """Return the gates [L, M, R] of a LoRARequest."""
        spec = self.pool.spec
        assert request.lora_name == request.lora_path, request.lora_name
        recipe = Recipe.from_validated(request.base_model_name, request.lora_name)
        linears = len(spec.linears)
        recipe.require_pool(self.pool.id, layers=spec.layers, linears=linears, experts=spec.experts)
        return recipe.expand(linears=linears, rank=spec.rank)
