"""Totals of what is sold: exactly the units used while the plan sold them, each under the period that ran then."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import Decision, Period, Reverse, UsageRecorded, Use, ended_period, mark_ended, recorded
from tests.unit.quota.plans import World, plan

SOLD, FREE = plan(price="0.1"), plan()
NOVEMBER, DECEMBER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


class Books:
    """What billing would know of `messages`: by the period's start, of two totals the later one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.totals: Counter[datetime] = Counter()

    def use(self, amount: int, key: str = "") -> Decision:
        settled = self.world.batch(Use("acct_a", "messages", amount, key))
        for told in settled.announcements:
            self.hear(told)
        [decision] = settled.outcomes
        assert isinstance(decision, Decision)
        return decision

    def take_back(self, key: str) -> None:
        for told in self.world.batch(Reverse("acct_a", key)).announcements:
            self.hear(told)

    def hear(self, told: object) -> None:
        if isinstance(told, UsageRecorded):
            assert told.period_end is not None
            assert told.period_start < told.period_end
            self.totals[told.period_start] = told.used

    def look(self) -> Counter[datetime]:
        """As the totals are looked after every ten seconds."""
        account = self.world.account()
        self.hear(recorded(account, "messages"))
        self.hear(ended_period(account, "messages"))
        return Counter({start: units for start, units in self.totals.items() if units})

    def subscribe(self, anchor: datetime) -> None:
        self.world.anchor, self.world.interval = anchor, "month"

    def end(self) -> None:
        self.world.anchor, self.world.interval = None, ""


def november(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def december(day: int) -> datetime:
    return datetime(2026, 12, day, tzinfo=UTC)


def test_what_was_used_for_nothing_before_a_subscription_is_never_sold() -> None:
    books = Books(World(FREE, at=november(12)))
    books.use(90)
    books.world.plan = SOLD
    books.subscribe(november(20))
    books.world.at = november(21)
    assert books.look() == {}
    books.use(1)
    assert books.look() == {november(20): 1}


def test_an_upgrade_within_the_period_sells_what_comes_after_it() -> None:
    books = Books(World(FREE, at=november(12)))
    books.use(90)
    books.world.plan = SOLD
    books.use(1)
    assert books.look() == {NOVEMBER: 1}


def test_an_anchor_that_moves_back_tells_no_unit_twice() -> None:
    books = Books(World(SOLD, at=november(22)))
    books.subscribe(november(20))
    books.use(500)
    assert books.look() == {november(20): 500}
    books.subscribe(november(10))
    assert books.look() == {november(20): 500}
    books.use(3)
    assert books.look() == {november(20): 500, november(10): 3}


def test_use_of_a_subscription_that_ended_is_not_sold_again_to_the_next() -> None:
    books = Books(World(SOLD, at=november(12)))
    books.subscribe(november(10))
    books.use(500)
    books.world.plan = FREE
    books.end()
    books.use(1)
    assert books.look() == {november(10): 500}
    books.world.plan, books.world.at = SOLD, november(25)
    books.subscribe(november(25))
    books.use(2)
    assert books.look() == {november(10): 500, november(25): 2}


def test_the_last_use_before_a_plan_stops_selling_is_told() -> None:
    books = Books(World(SOLD, at=november(22)))
    books.subscribe(november(10))
    books.use(500)
    books.world.plan = FREE
    assert books.look() == {november(10): 500}
    untold = Books(books.world)
    books.end()
    books.world.at = DECEMBER
    untold.use(1)
    assert untold.look() == {november(10): 500}


def test_a_debt_that_is_paid_brings_the_period_back_with_all_that_was_counted_in_it() -> None:
    books = Books(World(SOLD, at=november(22)))
    books.subscribe(november(20))
    books.use(500)
    books.world.plan = FREE
    books.end()
    books.use(1)
    books.world.plan = SOLD
    books.subscribe(november(20))
    assert books.world.used(Period.BILLING) == 500
    books.use(3)
    assert books.look() == {november(20): 503}
    books.world.at = november(20) + timedelta(days=30)
    books.use(1)
    assert books.look() == {november(20): 503, december(20): 1}
    assert books.world.terms == {}


def test_a_month_that_a_subscription_interrupted_goes_on_with_all_that_was_used() -> None:
    books = Books(World(FREE, at=november(12)))
    books.use(90, "early")
    books.world.at = november(21)
    used = 90
    for turn in range(1, 4):
        books.subscribe(november(20))
        assert books.world.used(Period.BILLING) == 7 * (turn - 1)
        books.use(7)
        books.end()
        used += 7
        assert books.world.used(Period.BILLING) == used
        books.use(1)
        used += 1
    books.world.do(Reverse("acct_a", "early"), after=timedelta(hours=1))
    assert books.world.used(Period.BILLING) == used - 90


def test_cells_of_the_release_before_are_sold_as_the_plan_is_now() -> None:
    for of, total in ((SOLD, 500), (FREE, 0)):
        books = Books(World(of, at=november(12)))
        start = int(NOVEMBER.timestamp())
        books.world.counters = {"messages": {"month": [start, 500], "billing": [start, 500], "lifetime": [0, 500]}}
        assert books.look()[NOVEMBER] == total
        books.use(1)
        assert books.look()[NOVEMBER] == total + (of is SOLD)
        assert books.world.used(Period.BILLING) == 501


def test_a_period_that_goes_on_with_another_end_is_told_with_that() -> None:
    books = Books(World(SOLD, at=november(12)))
    books.use(5)
    books.world.anchor, books.world.interval = NOVEMBER, "year"
    for _ in range(2):
        total = recorded(books.world.account(), "messages")
        assert total is not None
        assert total.period_end == datetime(2027, 11, 1, tzinfo=UTC)
        books.use(1)
    books.world.at = datetime(2027, 11, 1, tzinfo=UTC)
    ended = ended_period(books.world.account(), "messages")
    assert ended is not None
    assert (ended.used, ended.period_end) == (7, books.world.at)


def test_what_time_has_ended_is_not_taken_from_a_period_that_began_before_it() -> None:
    books = Books(World(SOLD, at=november(2)))
    books.subscribe(november(3))
    books.use(1, "k")
    books.world.at = november(3, 1)
    books.use(7)
    books.subscribe(november(10))
    books.world.at = november(3, 2)
    books.use(8)
    books.take_back("k")
    october = datetime(2026, 10, 3, tzinfo=UTC)
    assert books.look() == {october: 1, november(3): 7, october + timedelta(days=7): 8}


ANCHORS = (None, november(3), november(10, 5), november(20), datetime(2026, 10, 31, tzinfo=UTC))
steps = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.sampled_from([SOLD, SOLD, FREE]),
        st.sampled_from(ANCHORS),
        st.timedeltas(timedelta(0), timedelta(days=9)),
        st.booleans(),
    ),
    max_size=25,
)


@given(steps)
def test_every_unit_is_told_once_under_the_period_that_ran_when_it_was_used(
    story: list[tuple[int, object, datetime | None, timedelta, bool]],
) -> None:
    books, expected = Books(World(FREE, at=november(21))), Counter[datetime]()
    for amount, of, anchor, passed, looks in story:
        books.world.plan, books.world.at = of, books.world.at + passed  # type: ignore[assignment]
        books.world.anchor, books.world.interval = anchor, "month" if anchor else ""
        if of is SOLD:
            span = books.world.account().spans["billing"]
            expected[datetime.fromtimestamp(span.start, UTC)] += amount
        books.use(amount)
        if looks:
            books.look()
    assert books.look() == expected


def test_units_that_are_taken_back_leave_the_total_of_the_period_that_they_were_sold_in() -> None:
    for uses_between in (0, 1):
        for returns in (False, True):
            books = Books(World(SOLD, at=november(22)))
            books.subscribe(november(20))
            books.use(500, "k")
            assert books.look() == {november(20): 500}
            books.world.plan = FREE
            books.end()
            books.world.at += timedelta(minutes=1)
            for _ in range(uses_between):
                books.use(1)
            if returns:
                books.world.plan = SOLD
                books.subscribe(november(20))
            books.take_back("k")
            assert books.look() == {}
            books.world.plan = SOLD
            books.subscribe(november(20))
            books.world.at += timedelta(minutes=1)
            books.use(3)
            assert books.look() == {november(20): 3}
            books.end()
            assert books.world.used(Period.BILLING) == 3 + uses_between


def test_what_is_taken_back_just_before_its_period_ends_is_not_sold() -> None:
    books = Books(World(FREE, at=november(12)))
    books.use(90)
    books.world.plan = SOLD
    books.use(10, "k")
    assert books.look() == {NOVEMBER: 10}
    books.world.at = DECEMBER - timedelta(seconds=3)
    books.take_back("k")
    books.world.at = DECEMBER
    books.use(1)
    assert books.look() == {DECEMBER: 1}


def test_a_period_that_goes_on_after_its_end_was_announced_is_announced_again() -> None:
    books = Books(World(SOLD, at=november(12)))
    books.use(5)
    books.world.at = DECEMBER
    account = books.world.account()
    assert mark_ended(account, "messages")
    books.hear(ended_period(books.world.account(), "messages"))
    books.world.at = november(30)  # the clock was set back
    books.use(7)
    books.world.at = DECEMBER
    books.use(1)
    assert books.look() == {NOVEMBER: 12, DECEMBER: 1}


def test_what_a_cell_of_the_release_before_has_sold_is_not_denied_while_the_plan_sells_nothing() -> None:
    books = Books(World(FREE, at=november(22)))
    start = int(november(20).timestamp())
    books.subscribe(november(20))
    books.world.counters = {"messages": {"month": [start, 500], "billing": [start, 500], "lifetime": [0, 500]}}
    assert recorded(books.world.account(), "messages") is None
    books.end()
    assert ended_period(books.world.account(), "messages") is None


def test_cells_from_which_the_release_before_took_back_hold_no_less_than_nothing() -> None:
    books = Books(World(SOLD, at=november(12)))
    start, end = int(NOVEMBER.timestamp()), int(DECEMBER.timestamp())
    books.world.counters = {"messages": {"billing": [start, 0, 90, end]}}
    assert books.look() == {}
    books.use(1)
    assert books.look() == {NOVEMBER: 1}


changes = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.sampled_from(ANCHORS),
        st.timedeltas(timedelta(seconds=1), timedelta(days=9)),
        st.none() | st.integers(0, 20),
        st.booleans(),
    ),
    max_size=20,
)


@given(changes)
def test_what_is_taken_back_leaves_the_period_that_ran_unless_time_has_ended_that(
    story: list[tuple[int, datetime | None, timedelta, int | None, bool]],
) -> None:
    books, expected = Books(World(SOLD, at=november(2))), Counter[datetime]()
    granted: list[tuple[str, int, datetime, datetime, datetime]] = []
    for number, (amount, anchor, passed, back, looks) in enumerate(story):
        books.world.at += passed
        books.world.anchor, books.world.interval = anchor, "month" if anchor else ""
        # Nothing can be taken back after 48 hours.
        granted = [each for each in granted if each[4] > books.world.at - timedelta(days=2)]
        if back is not None and granted:
            key, units, start, end, _ = granted.pop(back % len(granted))
            books.take_back(key)
            if end > books.world.at:
                expected[start] -= units
        else:
            span = books.world.account().spans["billing"]
            assert span.end is not None
            start, end = (datetime.fromtimestamp(each, UTC) for each in (span.start, span.end))
            books.use(amount, f"k{number}")
            granted.append((f"k{number}", amount, start, end, books.world.at))
            expected[start] += amount
        if looks:
            books.look()
    assert books.look() == Counter({start: units for start, units in expected.items() if units})
