"""Panels: what the dashboard shows, row by row. Every query is over all gateways."""

from typing import Final

from k8s.monitoring.fidelity_panels import FIDELITY
from k8s.monitoring.panel import Panel, Query, quantiles, rate

_MODEL: Final = '{model=~"$model"}'
_SERVE: Final = '{application="loragen"}'
_ENGINE: Final = '{model_name=~"$model"}'

_OVERVIEW: Final = (
    Panel(
        "Requests",
        "reqps",
        "Answered requests of the API.",
        (Query(rate("loragen_requests_total", "", where='{route=~"/v1/.+"}'), "requests"),),
        is_stat=True,
    ),
    Panel(
        "Server errors",
        "percentunit",
        "Share of the API's answers that are 5xx.",
        (Query("loragen:server_errors:ratio_5m", "5xx"),),
        is_stat=True,
    ),
    Panel(
        "Fallback share",
        "percentunit",
        "Requests with a task that have no recipe for a reason that can be mended.",
        (Query("loragen:fallback:ratio_5m", "fallback"),),
        is_stat=True,
    ),
    Panel(
        "Prompt tokens saved",
        "short",
        "Tokens per second that recipes kept out of the context.",
        (Query(rate("loragen_prompt_tokens_saved_total", ""), "tokens/s"),),
        is_stat=True,
    ),
    Panel(
        "Healthy workers",
        "short",
        "By edge model, of the gateway that reaches the most.",
        (Query(f"max by (model) (loragen_healthy_workers{_MODEL})", "{{model}}"),),
        is_stat=True,
    ),
    Panel(
        "Workers by backend",
        "short",
        "How workers mix recipes: gate for any number of tasks at once, materialise for a few.",
        (Query(f"max by (backend) (loragen_backend_workers{_MODEL})", "{{backend}}"),),
        is_stat=True,
    ),
    Panel(
        "Gateways with Redis",
        "short",
        "Gateways that reach Redis.",
        (Query("sum(loragen_store_up)", "gateways"),),
        is_stat=True,
    ),
)

_REQUESTS: Final = (
    Panel(
        "Requests by mode",
        "reqps",
        "compiled: a recipe, no prompt. prompt: the prompt in context. base: no task. "
        "none: not a generation.",
        (Query(rate("loragen_requests_total", "mode"), "{{mode}}"),),
    ),
    Panel(
        "Requests by route and status",
        "reqps",
        "499: the client left before the answer.",
        (Query(rate("loragen_requests_total", "route, code"), "{{route}} {{code}}"),),
    ),
    Panel(
        "Fallback",
        "reqps",
        "Requests with a task that were served without its recipe, by reason.",
        (Query(rate("loragen_fallback_total", "reason"), "{{reason}}"),),
    ),
)

_LATENCY: Final = (
    Panel(
        "Time to first token",
        "s",
        "From accepting a streamed request to its first token.",
        quantiles("loragen_time_to_first_token_seconds", "model, mode", where=_MODEL),
    ),
    Panel(
        "Inter-token latency",
        "s",
        "Between two chunks of a stream.",
        quantiles("loragen_inter_token_latency_seconds", "model, mode", where=_MODEL),
    ),
    Panel(
        "Request latency",
        "s",
        "From accepting a request to its last byte.",
        quantiles("loragen_e2e_request_latency_seconds", "model, mode", where=_MODEL),
    ),
)

_RECIPES: Final = (
    Panel(
        "Recipe cache hit rate",
        "percentunit",
        "By tier. memory is one gateway's; a miss of redis means a recipe was there and is gone.",
        (Query("loragen:recipe_cache_hits:ratio_5m", "{{tier}}"),),
    ),
    Panel(
        "Recipes lost",
        "short",
        "Recipes of known tasks that Redis no longer had, in 5 minutes.",
        (Query("loragen:recipes_lost:increase_5m", "lost"),),
    ),
    Panel(
        "Tasks in memory",
        "short",
        "Resolved tasks, by gateway.",
        (Query("loragen_recipe_cache_entries", "{{instance}}"),),
    ),
    Panel(
        "Bytes of recipes in memory",
        "bytes",
        "By gateway.",
        (Query("loragen_recipe_cache_bytes", "{{instance}}"),),
    ),
)

_COMPILE: Final = (
    Panel(
        "Compile duration",
        "s",
        "From asking the generator to holding the recipe.",
        quantiles("loragen_compile_seconds", ""),
    ),
    Panel(
        "Compiles",
        "cps",
        "coalesced: requests that joined a compile under way.",
        (
            Query(rate("loragen_compile_seconds_count", ""), "compiled"),
            Query(rate("loragen_compile_coalesced_total", ""), "coalesced"),
        ),
    ),
    Panel(
        "Compile failures",
        "cps",
        "By reason.",
        (Query(rate("loragen_compile_failures_total", "reason"), "{{reason}}"),),
    ),
    Panel(
        "Compiles in flight",
        "short",
        "Compiles the gateways wait for.",
        (Query("sum(loragen_compile_inflight)", "in flight"),),
    ),
    Panel(
        "Actors of the generator",
        "short",
        "Replicas that Ray Serve holds for healthy, by deployment.",
        (
            Query(
                f"sum by (deployment) (ray_serve_deployment_replica_healthy{_SERVE})",
                "{{deployment}}",
            ),
        ),
    ),
    Panel(
        "Compiles queued at the generator",
        "short",
        "Calls that wait for an actor, by deployment.",
        (
            Query(
                f"sum by (deployment) (ray_serve_deployment_queued_queries{_SERVE})",
                "{{deployment}}",
            ),
        ),
    ),
)

_WORKERS: Final = (
    Panel(
        "Worker health",
        "short",
        "1 while at least one gateway reaches it.",
        (Query(f"max by (model, worker) (loragen_worker_up{_MODEL})", "{{model}} {{worker}}"),),
    ),
    Panel(
        "Requests at workers",
        "short",
        "Sent and not yet answered, by worker.",
        (Query("sum by (worker) (loragen_worker_requests_inflight)", "{{worker}}"),),
    ),
    Panel(
        "Waiting in the gateway",
        "short",
        "Requests in line for a worker, by edge model; a full line answers 429.",
        (Query(f"sum by (model) (loragen_queue_requests{_MODEL})", "{{model}}"),),
    ),
    Panel(
        "Requests refused",
        "reqps",
        "Answered 429, by limit.",
        (Query(rate("loragen_limits_rejected_total", "limit"), "{{limit}}"),),
    ),
    Panel(
        "Running and waiting in the engine",
        "short",
        "vLLM's batch and its queue.",
        (
            Query(
                f"sum by (model_name) (vllm:num_requests_running{_ENGINE})",
                "{{model_name}} running",
            ),
            Query(
                f"sum by (model_name) (vllm:num_requests_waiting{_ENGINE})",
                "{{model_name}} waiting",
            ),
        ),
    ),
    Panel(
        "KV cache in use",
        "percentunit",
        "vLLM's, by worker; full means requests wait or are preempted.",
        (Query(f"vllm:kv_cache_usage_perc{_ENGINE}", "{{model_name}} {{instance}}"),),
    ),
    Panel(
        "Tokens of the engine",
        "short",
        "Per second: prompt tokens it was given, and tokens it generated.",
        (
            Query(
                rate("vllm:prompt_tokens_total", "model_name", where=_ENGINE),
                "{{model_name}} prompt",
            ),
            Query(
                rate("vllm:generation_tokens_total", "model_name", where=_ENGINE),
                "{{model_name}} generated",
            ),
        ),
    ),
    Panel(
        "Targets of Prometheus",
        "short",
        "Processes whose metrics are there, by job.",
        (Query('sum by (job) (up{job=~"loragen-.+"})', "{{job}}"),),
    ),
)

ROWS: Final = (
    ("Overview", _OVERVIEW),
    ("Requests", _REQUESTS),
    ("Latency", _LATENCY),
    ("Recipes", _RECIPES),
    ("Compile", _COMPILE),
    ("Fidelity", FIDELITY),
    ("Workers", _WORKERS),
)
