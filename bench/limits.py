"""What an answer may take."""

from dataclasses import dataclass

from bench.load import Reply


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take, in seconds."""

    first_token_seconds: float
    token_gap_seconds: float

    def meets(self, reply: Reply) -> bool:
        """Whether an answer came in time."""
        return (
            reply.first_token_seconds <= self.first_token_seconds
            and reply.token_gap_seconds <= self.token_gap_seconds
        )
