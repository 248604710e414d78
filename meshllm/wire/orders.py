"""Orders outside the core: the document that keeps them from one run to the next.

Owns its form. Decides which values an order may have. Doesn't know files.
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from meshllm.core.cache_config import CacheConfig, CacheConfigError
from meshllm.core.cache_config import checked as checked_caches
from meshllm.core.effects import KeptOrders
from meshllm.core.limits import ANNOUNCED_ORDERS, MODELS_PER_NODE, ORDER_VERSION_MAX, QUOTA_MODELS
from meshllm.core.quota_config import QuotaChoice, QuotaError
from meshllm.core.quota_config import checked as checked_quotas
from meshllm.core.quota_use import QuotaUse
from meshllm.core.routing_config import RoutingChoice, RoutingConfig, RoutingConfigError, checked
from meshllm.wire.names import check_id, check_model, is_model_id
from meshllm.wire.packing import malformed


def check_routing(choice: RoutingChoice) -> None:
    """Refuse a choice of how requests are routed that nobody could have made. Raises WireError."""
    check_id(choice.author)
    _check_config(choice.config)


def check_quotas(choices: tuple[QuotaChoice, ...], uses: tuple[QuotaUse, ...]) -> None:
    """Refuse choices of quotas that nobody could have made, and uses of no model. Raises WireError."""
    for use in uses:
        check_model(use.model)
    if len(choices) > QUOTA_MODELS:
        raise malformed("quotas of more models than may have some")
    for choice in choices:
        check_id(choice.author)
        check_model(choice.model)
        try:
            checked_quotas(choice.quotas)
        except QuotaError as error:
            raise malformed(error.message) from error


def check_caches(config: CacheConfig | None) -> None:
    """Refuse a way to share out the prompt cache that nobody could have chosen. Raises WireError."""
    try:
        if config is not None:
            checked_caches(config)
    except CacheConfigError as error:
        raise malformed(error.message) from error


def kept_orders(kept: KeptOrders) -> dict[str, object]:
    """Return what a node remembers of orders as a document."""
    sayable = tuple(order for order in kept.orders if is_model_id(order.model))
    document: dict[str, object] = msgspec.to_builtins(replace(kept, orders=sayable))
    return document


def read_orders(document: Mapping[str, object]) -> KeptOrders:
    """Return what such a document says. Raises WireError when it is none."""
    try:
        kept = msgspec.convert(dict(document), KeptOrders)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # JSON can hold half a character
        raise malformed(str(error)) from error
    default = () if kept.default is None else (kept.default,)
    for order in (*kept.orders, *default):
        check_id(order.author)
        check_model(order.model)
        if not 0 <= order.version <= ORDER_VERSION_MAX:
            raise malformed("a version that no clock of orders reaches")
    if kept.routing_here is not None:
        _check_config(kept.routing_here)
    if kept.routing is not None:
        check_routing(kept.routing)
        if not 0 <= kept.routing.version <= ORDER_VERSION_MAX:
            raise malformed("a version that no choice of routing reaches")
    check_quotas(kept.quotas, kept.quota_uses)
    check_caches(kept.caches)
    if any(not 0 <= choice.version <= ORDER_VERSION_MAX for choice in kept.quotas):
        raise malformed("a version that no choice of quotas reaches")
    if len(kept.orders) > ANNOUNCED_ORDERS or max(len(kept.held), len(kept.dropped), len(kept.pins)) > MODELS_PER_NODE:
        raise malformed("more orders than a node keeps")
    return replace(kept, clock=min(max(kept.clock, 0), ORDER_VERSION_MAX))


def _check_config(config: RoutingConfig) -> None:
    try:
        checked(config)
    except RoutingConfigError as error:
        raise malformed(error.message) from error
