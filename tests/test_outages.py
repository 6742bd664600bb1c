"""An installation of two servers, PostgreSQL and Valkey loses parts, and nobody loses what was promised."""

from __future__ import annotations

from tests.outages import demonstrate

BACK_S = 10.0


def test_whatever_is_killed_clients_are_told_to_come_again_and_keep_what_was_acknowledged() -> None:
    report = demonstrate(away_s=1.0, calm_s=0.5, durable=False)
    assert [outage.what for outage in report.outages] == ["a worker", "PostgreSQL", "Valkey"]
    for outage in report.outages:
        assert outage.recovered_s < BACK_S, outage.row()
        assert outage.gap_s < outage.away_s + BACK_S, outage.row()
        assert {reply.status for reply in outage.replies} <= {0, 200, 201, 429, 503}
        waits = [reply.retry_after for reply in outage.replies if reply.status in (429, 503)]
        assert all(wait is not None and int(wait) >= 1 for wait in waits)
    worker, postgres, valkey = report.outages
    assert any(reply.status == 503 for reply in postgres.replies)
    assert not any(reply.status == 503 for reply in (*worker.replies, *valkey.replies))
    assert any(reply.status == 429 for reply in valkey.replies)
    assert not any(reply.status == 0 for reply in (*postgres.replies, *valkey.replies))
    assert sum(reply.status == 0 for reply in worker.replies) <= 7  # those that the worker was asked at the time
    assert report.lost == set()
    assert report.findings == ""
