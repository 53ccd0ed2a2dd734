"""Every Prometheus metric, declared once: base units, labels from closed sets, never a task id."""

from collections.abc import Iterable
from typing import Final, get_args

from prometheus_client import Counter, Gauge, Histogram

from loragen.limits import Limit
from loragen.task import FallbackReason

_LATENCY_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
_TOKEN_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_REFINE_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_FIDELITY_BUCKETS: Final = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.2)

RECIPE_CACHE_HITS = Counter(
    "loragen_recipe_cache_hits_total", "Recipes found, by tier (memory, redis).", ["tier"]
)
RECIPE_CACHE_MISSES = Counter(
    "loragen_recipe_cache_misses_total", "Recipes not found, by tier (memory, redis).", ["tier"]
)
RECIPE_CACHE_ENTRIES = Gauge(
    "loragen_recipe_cache_entries", "Resolved tasks in this gateway's memory."
)
RECIPE_CACHE_BYTES = Gauge(
    "loragen_recipe_cache_bytes", "Bytes of the prompts and recipes in this gateway's memory."
)
COMPILE_SECONDS = Histogram(
    "loragen_compile_seconds",
    "Time from asking the generator to holding the recipe.",
    buckets=_LATENCY_BUCKETS,
)
COMPILE_INFLIGHT = Gauge("loragen_compile_inflight", "Compiles this gateway waits for.")
COMPILE_COALESCED = Counter(
    "loragen_compile_coalesced_total", "Requests that joined a compile already under way."
)
COMPILE_FAILURES = Counter(
    "loragen_compile_failures_total", "Compiles that gave no recipe, by reason.", ["reason"]
)
MEASURES = Counter(
    "loragen_measures_total",
    "Measures of recipes, by what came of them (passed, low, unsure, failed).",
    ["outcome"],
)
MEASURE_SECONDS = Histogram(
    "loragen_measure_seconds",
    "Time from the start of a measure to its recorded end.",
    buckets=_REFINE_BUCKETS,
)
NEGATIVE_TRANSFER = Counter(
    "loragen_negative_transfer_total",
    "Recipes measured to be further from their prompts than no prompt is.",
)
SHADOW_MESSAGES = Counter(
    "loragen_shadow_messages_total",
    "Messages of live requests that were sampled to measure recipes with, and those left out"
    " because their tenant's minute was full (taken, over_budget).",
    ["outcome"],
)
ROUTER_GATE_SHARE = Gauge(
    "loragen_router_gate_share",
    "Share of the gates' size that an expert has, mean over layers, linears and the last 64"
    " recipes that this gateway had compiled.",
    ["model", "expert"],
)
ROUTER_EFFECTIVE_EXPERTS = Gauge(
    "loragen_router_effective_experts",
    "Part of the experts that these recipes use together: 1 where all are used alike, little where"
    " the router collapsed. Absent before 32 recipes.",
    ["model"],
)
PROMPTS_UNSTRIPPED = Counter(
    "loragen_prompts_unstripped_total",
    "Compiled answers whose worker read more tokens than their messages can have: its compiled"
    " template prints something else, such as a system prompt or tools.",
    ["model"],
)
MISDIRECTED = Counter(
    "loragen_misdirected_replies_total",
    "Replies to another request than the one that was sent, found out and not used, by who gave"
    " them (worker, generator, store).",
    ["source"],
)
DEMOTIONS = Counter(
    "loragen_demotions_total",
    "Tasks that stopped to be served by their recipes, by cause: the first measure, the drift that"
    " a shadow of live requests found, or harm.",
    ["cause"],
)
PROMOTIONS = Counter(
    "loragen_promotions_total",
    "Tasks that began to be served by their recipes because of a measure, by what measured them"
    " (measure, refine, shadow).",
    ["cause"],
)
REFINES = Counter(
    "loragen_refines_total",
    "Refines of tasks, by how they ended (done, kept, failed).",
    ["outcome"],
)
REFINE_SECONDS = Histogram(
    "loragen_refine_seconds",
    "Time from the start of a refine to its recorded end.",
    buckets=_REFINE_BUCKETS,
)
TASK_FIDELITY = Histogram(
    "loragen_task_fidelity",
    "Fidelity of recipes, as measured when they are compiled or refined.",
    buckets=_FIDELITY_BUCKETS,
)
TIME_TO_FIRST_TOKEN_SECONDS = Histogram(
    "loragen_time_to_first_token_seconds",
    "From accepting a request to its first token.",
    ["model", "mode"],
    buckets=_LATENCY_BUCKETS,
)
INTER_TOKEN_LATENCY_SECONDS = Histogram(
    "loragen_inter_token_latency_seconds",
    "Between two chunks of a streamed answer.",
    ["model", "mode"],
    buckets=_TOKEN_BUCKETS,
)
E2E_REQUEST_LATENCY_SECONDS = Histogram(
    "loragen_e2e_request_latency_seconds",
    "From accepting a request to its last byte.",
    ["model", "mode"],
    buckets=_LATENCY_BUCKETS,
)
REQUESTS = Counter(
    "loragen_requests_total",
    "Answered requests, by route, status and mode.",
    ["route", "code", "mode"],
)
PROMPT_TOKENS_SAVED = Counter(
    "loragen_prompt_tokens_saved_total", "Prompt tokens that a recipe replaced."
)
FALLBACKS = Counter(
    "loragen_fallback_total",
    "Requests with a prompt served without a recipe, by reason.",
    ["reason"],
)
WORKER_REQUESTS_INFLIGHT = Gauge(
    "loragen_worker_requests_inflight", "Requests this gateway has at a worker.", ["worker"]
)
QUEUE_REQUESTS = Gauge(
    "loragen_queue_requests",
    "Requests that wait in this gateway until a worker has room.",
    ["model"],
)
QUEUE_SECONDS = Histogram(
    "loragen_queue_seconds",
    "Time a request waited until a worker had room; those that found one at once are not in it.",
    ["model"],
    buckets=_LATENCY_BUCKETS,
)
LIMITS_REJECTED = Counter(
    "loragen_limits_rejected_total",
    "Requests refused with 429, by limit: queue of the workers, or requests, tokens, concurrency,"
    " compiles, tasks of their tenant.",
    ["limit"],
)
LIMITS_UNCHECKED = Counter(
    "loragen_limits_unchecked_total",
    "Requests of limited tenants that were let in uncounted, because Redis did not answer.",
)
USAGE_LOST = Counter(
    "loragen_usage_lost_total",
    "Requests that are missing in the usage of tenants: more waited to be written than is kept.",
)
RECOMPILES = Counter(
    "loragen_recompiles_total",
    "Compiles for a pool that is coming, by how they ended (done, failed).",
    ["outcome"],
)
UPGRADE_READY_RATIO = Gauge(
    "loragen_upgrade_ready_ratio",
    "Share of the requests of the last days whose tasks are ready for the pool that is coming, as"
    " last seen by the gateway that compiles them.",
    ["model"],
)
WORKER_UP = Gauge(
    "loragen_worker_up",
    "1 while a worker answers this gateway's probes, else 0.",
    ["model", "worker"],
)
HEALTHY_WORKERS = Gauge(
    "loragen_healthy_workers", "Workers of an edge model that this gateway may send to.", ["model"]
)
BACKEND_WORKERS = Gauge(
    "loragen_backend_workers",
    "Workers of an edge model that answer, by how they mix recipes (gate, materialise, none).",
    ["model", "backend"],
)
STORE_UP = Gauge("loragen_store_up", "1 while Redis answers this gateway, else 0.")


def start_series(edge_models: Iterable[str]) -> None:
    """Show the counters of closed label sets at 0: `rate` does not see one appear at 1."""
    tiers, reasons = ("memory", "redis"), get_args(FallbackReason)
    for counter, values in (
        (RECIPE_CACHE_HITS, tiers),
        (RECIPE_CACHE_MISSES, tiers),
        (LIMITS_REJECTED, ("queue", *get_args(Limit))),
        (MEASURES, ("passed", "low", "unsure", "failed")),
        (SHADOW_MESSAGES, ("taken", "over_budget")),
        (MISDIRECTED, ("worker", "generator", "store")),
        (DEMOTIONS, ("measure", "drift", "harm")),
        (PROMOTIONS, ("measure", "refine", "shadow")),
        (RECOMPILES, ("done", "failed")),
        (REFINES, ("done", "kept", "failed")),
        (COMPILE_FAILURES, reasons),
        (FALLBACKS, reasons),
        (PROMPTS_UNSTRIPPED, edge_models),
    ):
        for value in values:
            counter.labels(value)
