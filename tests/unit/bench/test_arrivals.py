"""A replay keeps a trace's order and burstiness, at the rate that is asked for."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arrivals import AZURE, Shape, Trace

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
LINES = HEAD + (
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:48.6805900,1500,400\n"
    "2023-11-16 18:15:49.6805900,1020,2\n"
)
SHAPE = Shape(1_000, message=(16, 256), answer=(8, 64))


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_a_trace_is_read_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES.encode()) if name.endswith("gz") else LINES.encode())
    assert Trace.load(path).rows == ((0.0, 374, 44), (2.0, 1_500, 400), (3.0, 1_020, 2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        HEAD + "2023-11-16 18:15:46.6805900,374,44\n",
        "time,tokens\n1,2\n",
        HEAD + "2023-11-16 18:15:46.6805900,374\n",
        HEAD + "yesterday,1,2\n",
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"trace\.csv|isoformat"):
        Trace.load(path)


def test_a_replay_scales_time_and_keeps_lengths_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(LINES)
    arrivals = Trace.load(path).replay(3, 4.0, seed=0, shape=SHAPE)
    assert [arrival.at_seconds for arrival in arrivals] == pytest.approx([0, 1 / 3, 0.5])
    assert [arrival.message_tokens for arrival in arrivals] == [16, 256, 20]
    assert [arrival.answer_tokens for arrival in arrivals] == [44, 64, 8]


@given(count=st.integers(2, 2_000), rate=st.floats(0.1, 50), seed=st.integers(0, 99))
def test_the_shipped_trace_gives_any_number_of_requests_at_any_rate(
    count: int, rate: float, seed: int
) -> None:
    arrivals = _AZURE.replay(count, rate, seed=seed, shape=SHAPE)
    at = [arrival.at_seconds for arrival in arrivals]
    assert len(at) == count
    assert at == sorted(at)
    assert (count - 1) / at[-1] == pytest.approx(rate)
    twice = _AZURE.replay(count, 2 * rate, seed=seed, shape=SHAPE)
    assert [each.at_seconds for each in twice] == pytest.approx([each / 2 for each in at])


def test_a_replay_longer_than_the_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="2000 requests, not 2001"):
        _AZURE.replay(2_001, 1.0, seed=0, shape=SHAPE)


_AZURE = Trace.load(AZURE)
