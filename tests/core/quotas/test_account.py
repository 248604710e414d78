"""The counters of one model: windows that end, charges that are settled once, what others say."""

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import Quotas
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.quotas.account import Account
from meshllm.core.quotas.kinds import Kind
from meshllm.core.quotas.lease import Hosts
from meshllm.core.quotas.windows import utc

MODEL, ME, OTHER = ModelId("tiny"), NodeId("me"), NodeId("other")
DAY_S = 86_400
NOON_S = 12 * 3600.0
ALONE = Hosts(me=ME, others={})
LIMITS = Quotas(hourly_token_limit=100, daily_request_limit=10)


def an_account(now_s: float = NOON_S, quotas: Quotas = LIMITS, hosts: Hosts = ALONE, **others: QuotaUse) -> Account:
    """Return an account at noon of the first day."""
    account = Account(MODEL, utc, now_s)
    account.know(quotas, {NodeId(name): use for name, use in others.items()}, hosts, now_s)
    return account


def test_a_charge_is_settled_once() -> None:
    """Whatever is said afterwards."""
    account = an_account()
    charge = account.reserve(60)
    hourly = account.counters[Kind.HOURLY_TOKENS]
    assert (hourly.left, hourly.reserved, account.in_flight) == (40, 60, 1)

    account.settle(charge, 25)
    account.settle(charge, 90)
    account.settle(charge, None)

    assert (hourly.left, hourly.spent, hourly.reserved, account.in_flight) == (75, 25, 0, 0)
    assert account.use() == QuotaUse(model=MODEL, hour=Spent(int(NOON_S), 25, 1), day=Spent(0, 25, 1))


def test_what_comes_to_nothing_is_given_back() -> None:
    """Tokens and request alike."""
    account = an_account()

    account.settle(account.reserve(60), None)

    assert account.use().day == Spent(0, 0, 0)
    assert account.counters[Kind.HOURLY_TOKENS].left == 100


def test_an_hour_ends_and_the_day_goes_on() -> None:
    """A request that began in the hour before was used there."""
    account = an_account()
    early = account.reserve(60)
    account.settle(account.reserve(10), 10)

    account.turn(NOON_S + 3600)
    account.renew(NOON_S + 3600)
    account.settle(early, 50)

    assert account.counters[Kind.HOURLY_TOKENS].left == 100
    assert account.use().hour == Spent(int(NOON_S) + 3600, 0, 0)
    assert account.use().day == Spent(0, 60, 2)
    account.turn(float(DAY_S))
    assert account.use().day == Spent(DAY_S, 0, 0)


def test_a_clock_that_is_set_back_a_little_begins_no_window() -> None:
    """Or what was used would be forgotten."""
    account = an_account(NOON_S + 5)
    account.settle(account.reserve(10), 10)

    account.turn(NOON_S - 30)

    assert account.use().hour.tokens == 10


def test_what_others_used_is_not_left_here() -> None:
    """Of this window; what they say of another one does not count."""
    now, past = int(NOON_S), int(NOON_S) - 3600
    account = an_account(
        a=QuotaUse(model=MODEL, hour=Spent(now, 30, 1)), b=QuotaUse(model=MODEL, hour=Spent(past, 50, 1))
    )

    assert account.counters[Kind.HOURLY_TOKENS].left == 70
    assert account.by_node(Kind.HOURLY_TOKENS) == {"a": 30}
    account.turn(NOON_S + 3600)
    account.renew(NOON_S + 3600)
    assert account.counters[Kind.HOURLY_TOKENS].left == 100


def test_a_share_is_left_where_there_is_another_host() -> None:
    """Until both know more."""
    both = Hosts(me=ME, others={OTHER: True})
    account = an_account(hosts=both)
    assert account.counters[Kind.HOURLY_TOKENS].left == 50
    account.settle(account.reserve(50), 50)
    assert account.counters[Kind.HOURLY_TOKENS].left == 0

    account.renew(NOON_S + 10)

    assert account.counters[Kind.HOURLY_TOKENS].left == 25


def test_another_limit_counts_at_once() -> None:
    """Also below what is used."""
    account = an_account()
    account.settle(account.reserve(50), 50)

    account.know(Quotas(hourly_token_limit=40), {}, ALONE, NOON_S)

    assert account.counters[Kind.HOURLY_TOKENS].left == 0
    assert account.counters[Kind.HOURLY_TOKENS].percent == 125


def test_what_was_used_before_a_restart_still_counts() -> None:
    """As far as its windows last."""
    account = an_account()

    account.restore(QuotaUse(model=MODEL, hour=Spent(int(NOON_S) - 3600, 80, 8), day=Spent(0, 90, 9)))

    assert (account.use().hour.tokens, account.use().day.requests) == (0, 9)
