"""Seeds on a CPU: what a request draws for a part of its prompt is taken back.

Reading a prompt in several steps, vLLM draws a token after each and throws away all but the last.
It then sets the request's random generator back by an offset, which only CUDA's generators have:
with vLLM 0.32 a seed and a long prompt end a CPU engine, and everybody's requests with it. Here
the generator's whole state is kept and put back, so that a seed gives one answer however the prompt
was read.
"""

from typing import Any

import numpy as np
import torch
from vllm.v1.worker.cpu_model_runner import CPUModelRunner


class SeededRunner(CPUModelRunner):  # type: ignore[misc]  # vLLM is untyped
    """vLLM's runner on a CPU, with generators that can be set back."""

    def _sample(self, *args: Any) -> Any:
        generators = self._thrown_away().values()
        states = [generator.get_state() for generator in generators]
        output = super()._sample(*args)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return output

    def _bookkeeping_sync(self, *args: Any) -> Any:
        thrown_away = self._thrown_away()
        generators = self.input_batch.generators
        for index in thrown_away:
            del generators[index]  # nothing is left to set back
        try:
            return super()._bookkeeping_sync(*args)
        finally:
            generators.update(thrown_away)

    def _thrown_away(self) -> dict[int, torch.Generator]:
        """Return the generators of requests whose token of this step is thrown away, by place."""
        batch = self.input_batch
        places = np.nonzero(self.discard_request_mask.np[: batch.num_reqs])[0].tolist()
        return {place: batch.generators[place] for place in places if place in batch.generators}
