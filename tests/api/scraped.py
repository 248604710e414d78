"""What a scraper makes of a page of metrics."""

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.api.node import Client


def samples_of(families: Iterable[Metric]) -> list[Sample]:
    """Return all samples of families."""
    return [sample for family in families for sample in family.samples]


async def scraped(client: Client, path: str = "/metrics") -> list[Sample]:
    """Return all samples of a page."""
    answer = await client.get(path)
    assert answer.status == 200
    return samples_of(text_string_to_metric_families(await answer.text()))


def value(samples: Iterable[Sample], series: str, /, **labels: str) -> float:
    """Return the one value of a series with these labels."""
    (found,) = [one.value for one in samples if one.name == series and has(one.labels, labels)]
    return found


def has(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Tell whether labels are among others."""
    return wanted.items() <= found.items()
