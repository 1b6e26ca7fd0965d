"""What the service counts, for Prometheus.

In: observations, and the scheduler to look at. Out: the text of `/metrics`. A registry of its own and not the library's
global one, so that two services in one process do not mix.
"""

from __future__ import annotations

import time

from megadec.common.errors import MissingExtraError
from megadec.serve.answer import Answer
from megadec.serve.scheduler import Scheduler

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
RATES = (1, 3, 10, 30, 100, 300, 1000, 3000)


class Metrics:
    """Counters and histograms named `megadec_*`. Raises MissingExtraError without prometheus_client."""

    def __init__(self, scheduler: Scheduler) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise MissingExtraError("prometheus-client", "serve") from error
        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self._text = lambda: prometheus.generate_latest(registry)
        self._requests = prometheus.Counter(
            "megadec_requests_total", "Requests answered.", ["route", "status"], registry=registry
        )
        self._request_seconds = prometheus.Histogram(
            "megadec_request_seconds", "Arrival to last byte.", ["route"], buckets=SECONDS, registry=registry
        )
        self._in_flight = prometheus.Gauge("megadec_requests_in_flight", "Requests being answered.", registry=registry)
        self._prompt_tokens = prometheus.Counter("megadec_prompt_tokens_total", "Prompt tokens.", registry=registry)
        self._tokens = prometheus.Counter("megadec_generated_tokens_total", "Tokens generated.", registry=registry)
        self._texts = prometheus.Counter("megadec_classified_texts_total", "Texts classified.", registry=registry)
        self._first_token = prometheus.Histogram(
            "megadec_time_to_first_token_seconds", "Request to first token.", buckets=SECONDS, registry=registry
        )
        self._rate = prometheus.Histogram(
            "megadec_tokens_per_second", "Of one answer, behind its first token.", buckets=RATES, registry=registry
        )
        running = prometheus.Gauge("megadec_running", "Answers that are being computed.", registry=registry)
        running.set_function(lambda: scheduler.running)
        waiting = prometheus.Gauge("megadec_queue_length", "Answers that wait for a place.", registry=registry)
        waiting.set_function(lambda: scheduler.waiting)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return self._text()

    def request_begins(self) -> float:
        """Count a request as in flight; gives the time for `request_ends`."""
        self._in_flight.inc()
        return time.monotonic()

    def request_ends(self, route: str, status: int, began: float) -> None:
        """Count an answered request; status 499 is a client that went before the end."""
        self._in_flight.dec()
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(time.monotonic() - began)

    def prompt(self, tokens: int) -> None:
        """Count the tokens of a prompt that was taken on."""
        self._prompt_tokens.inc(tokens)

    def token(self) -> None:
        """Count one generated token; called in the computing thread."""
        self._tokens.inc()

    def texts(self, number: int) -> None:
        """Count classified texts."""
        self._texts.inc(number)

    def answer(self, answer: Answer) -> None:
        """Observe the times of an answer that has ended in whatever way."""
        if answer.first_token_seconds is not None:
            self._first_token.observe(answer.first_token_seconds)
        if answer.tokens_per_second is not None:
            self._rate.observe(answer.tokens_per_second)
