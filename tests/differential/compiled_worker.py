"""A worker whose engine compiles its model: `python -m tests.differential.compiled_worker`.

On a CPU vLLM compiles no model that takes adapters, so this undoes the decision of its platform,
in this process and in those it starts, which import this module as `__mp_main__`.
"""

import sys
from typing import Any

from workers.lifeline import die_with_parent
from workers.serve import main


def always_compile() -> None:
    """Make the CPU platform compile in every engine that is not told to be eager."""
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    check = CpuPlatform.check_and_update_config

    def check_and_compile(vllm_config: Any) -> None:
        check(vllm_config)
        compilation = vllm_config.compilation_config
        if compilation.mode == CompilationMode.NONE and not vllm_config.model_config.enforce_eager:
            compilation.mode = CompilationMode.DYNAMO_TRACE_ONCE
            compilation.backend = "inductor"

    CpuPlatform.check_and_update_config = staticmethod(check_and_compile)


if __name__ == "__mp_main__":
    die_with_parent()
    always_compile()

if __name__ == "__main__":
    always_compile()
    sys.exit(main(sys.argv[1:]))
