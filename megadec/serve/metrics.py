"""What the service counts, for Prometheus: counters, gauges and histograms named `megadec_*`.

They live in a registry of their own, so that two services in one process do not mix.
"""

import time
from functools import partial

from megadec.common.errors import needs_extra
from megadec.serve.answer import Answer
from megadec.serve.scheduler import Scheduler

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
RATES = (1, 3, 10, 30, 100, 300, 1000, 3000)


class ServiceMetrics:
    """Raises MissingExtraError without prometheus_client."""

    def __init__(self, scheduler: Scheduler) -> None:
        with needs_extra("prometheus-client", "serve"):
            import prometheus_client as prometheus
        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self.text = lambda: prometheus.generate_latest(registry)
        counter, gauge = partial(prometheus.Counter, registry=registry), partial(prometheus.Gauge, registry=registry)
        seconds = partial(prometheus.Histogram, registry=registry, buckets=SECONDS)
        self._requests = counter("megadec_requests_total", "Requests answered.", ["route", "status"])
        self._request_seconds = seconds("megadec_request_seconds", "Arrival to last byte.", ["route"])
        self.in_flight = gauge("megadec_requests_in_flight", "Requests being answered.")
        self.prompt_tokens = counter("megadec_prompt_tokens_total", "Prompt tokens.")
        self.generated_tokens = counter("megadec_generated_tokens_total", "Tokens generated.")
        self.texts = counter("megadec_classified_texts_total", "Texts classified.")
        self.truncated_texts = counter(
            "megadec_truncated_texts_total", "Texts classified of which a part was left out."
        )
        self._first_token = seconds("megadec_time_to_first_token_seconds", "Request to first token.")
        self._rate = seconds("megadec_tokens_per_second", "Of one answer, behind its first token.", buckets=RATES)
        gauge("megadec_running", "Answers that are being computed.").set_function(lambda: scheduler.running)
        gauge("megadec_queue_length", "Answers that wait for a place.").set_function(lambda: scheduler.waiting)

    def request(self, route: str, status: int, began: float) -> None:
        """Count an answered request; status 499 is a client that went before the end."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(time.monotonic() - began)

    def answer(self, answer: Answer) -> None:
        """Observe the times of an answer that has ended in whatever way."""
        if answer.tokens:
            self._first_token.observe(answer.first_token - answer.asked)
        if answer.last_token > answer.first_token:
            self._rate.observe((answer.tokens - 1) / (answer.last_token - answer.first_token))
