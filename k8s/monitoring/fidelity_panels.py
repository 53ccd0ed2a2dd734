"""Fidelity panels: what recipes are worth, what measuring and refining do, pools that come."""

from typing import Final

from k8s.monitoring.panel import Panel, Query, quantiles, rate

FIDELITY: Final = (
    Panel(
        "Recipes measured",
        "reqps",
        "By what came of it: passed; low: too little fidelity or agreement, or a prompt without "
        "effect; unsure: more doubt than the edge model's max_doubt; failed: not measurable.",
        (Query(rate("loragen_measures_total", "outcome"), "{{outcome}}"),),
    ),
    Panel(
        "Fidelity of recipes",
        "short",
        "How much of the prompt's effect they have, 1 for all: half and a tenth of them have less.",
        tuple(
            Query(
                f"histogram_quantile({quantile}, {rate('loragen_task_fidelity_bucket', 'le')})",
                f"p{percent}",
            )
            for quantile, percent in ((0.5, 50), (0.1, 10))
        ),
    ),
    Panel(
        "Tasks that changed their mode",
        "reqps",
        "Demoted to their prompts, promoted to their recipes, and by what.",
        (
            Query(rate("loragen_demotions_total", "cause"), "demoted: {{cause}}"),
            Query(rate("loragen_promotions_total", "cause"), "promoted: {{cause}}"),
        ),
    ),
    Panel(
        "Live messages sampled",
        "reqps",
        "Kept to measure recipes with, or left out because their tenant's minute was full.",
        (Query(rate("loragen_shadow_messages_total", "outcome"), "{{outcome}}"),),
    ),
    Panel(
        "Experts in use",
        "percentunit",
        "Part of the experts that the last recipes use together: few where the router collapsed.",
        (Query("min by (model) (loragen_router_effective_experts)", "{{model}}"),),
    ),
    Panel(
        "Share of the gates",
        "percentunit",
        "The largest share that one expert has of the gates' size, mean over recipes.",
        (Query("max by (model) (loragen_router_gate_share)", "{{model}}"),),
    ),
    Panel(
        "Prompts not stripped",
        "reqps",
        "Compiled answers whose worker read more than their messages hold.",
        (Query(rate("loragen_prompts_unstripped_total", "model"), "{{model}}"),),
    ),
    Panel(
        "Refines",
        "reqps",
        "By how they ended: done, kept (not better), failed.",
        (Query(rate("loragen_refines_total", "outcome"), "{{outcome}}"),),
    ),
    Panel(
        "Time to measure and to refine",
        "s",
        "Median and 99th percentile, waiting for the refiner included.",
        (
            *(
                Query(query.expr, f"measure {query.legend}")
                for query in quantiles("loragen_measure_seconds", "")
            ),
            *(
                Query(query.expr, f"refine {query.legend}")
                for query in quantiles("loragen_refine_seconds", "")
            ),
        ),
    ),
    Panel(
        "Compiled for a pool that is coming",
        "reqps",
        "By how it ended: done, failed.",
        (Query(rate("loragen_recompiles_total", "outcome"), "{{outcome}}"),),
    ),
    Panel(
        "Ready for a pool that is coming",
        "percentunit",
        "Share of the requests of the last days whose tasks the new pool would answer no worse.",
        (Query("max by (model) (loragen_upgrade_ready_ratio)", "{{model}}"),),
    ),
    Panel(
        "Negative transfer",
        "short",
        "Recipes further from their prompts than no prompt is: withheld from their measure on, "
        "unless the task's min_fidelity is 0.",
        (Query("sum(increase(loragen_negative_transfer_total[1h]))", "in an hour"),),
    ),
)
