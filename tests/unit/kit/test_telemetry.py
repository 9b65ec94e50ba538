"""DESIGN §11.14: no secret reaches a log, whichever way it was written; and every line is JSON."""

from __future__ import annotations

import io
import json
import logging
import re
import string
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from services.kit import telemetry
from services.kit.ids import new_id

BASE62 = string.ascii_letters + string.digits


def _token(minimum: int, alphabet: str = BASE62) -> st.SearchStrategy[str]:
    # Not only hexadecimal digits: our ids look like that, and must stay readable.
    return st.text(alphabet, min_size=minimum, max_size=60).filter(lambda text: not re.fullmatch("[0-9a-f]*", text))


secrets = st.one_of(
    _token(24).map(lambda body: f"sk_live_{body}"),
    _token(24).map(lambda body: f"rk_test_{body}"),
    _token(24, BASE62 + "+/=").map(lambda body: f"whsec_{body}"),
    st.tuples(st.sampled_from(["mk_test_", "mk_svc_", "vt_", "key_live_"]), _token(33)).map("".join),
    st.tuples(*[_token(16, BASE62 + "-_")] * 3).map(lambda parts: "eyJ" + ".".join(parts)),
)
around: list[Callable[[str], str]] = [
    lambda secret: secret,
    lambda secret: f"calling with {secret}, which failed",
    lambda secret: f"Authorization: Bearer {secret}",
    lambda secret: f"https://host/path?key={secret}&x=1",
    lambda secret: json.dumps({"outer": {"api_key": secret}, "n": 1}),
    lambda secret: json.dumps(json.dumps({"value": secret})),
    lambda secret: repr({"headers": [("x-key", secret)]}),
    lambda secret: f"'{secret}'",
    lambda secret: f"xx_{secret}",
    lambda secret: f"line\n{secret}\nline",
]


@settings(max_examples=300)
@given(secret=secrets, wrap=st.sampled_from(around))
def test_no_wrapping_hides_a_secret(secret: str, wrap: Callable[[str], str]) -> None:
    cleaned = telemetry.redact(wrap(secret))
    assert "[redacted]" in cleaned
    body = re.sub(r"^(?:[a-z]+_)+|^eyJ", "", secret)
    assert body not in cleaned
    assert body[:12] not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+asyncpg://tollway:p4ss/w0rd@127.0.0.1:5432/x",
        "nats://s3cr3ttoken@127.0.0.1:4222",
        '{"password": "p4ssw0rd", "next": 1}',
        '{\\"password\\": \\"p4ssw0rd\\"}',
        "connect(host='x', password='p4ssw0rd')",
        "client_secret=p4ssw0rd&grant_type=x",
        "authorization: Basic cDRzc3cwcmQ=",
        "TOLLWAY_RPC_TOKEN=p4ssw0rd",
    ],
)
def test_named_secrets_and_passwords_in_addresses_are_taken_out(text: str) -> None:
    cleaned = telemetry.redact(text)
    for leak in ("p4ss", "s3cr3t", "cDRzc3"):
        assert leak not in cleaned
    assert "[redacted]" in cleaned


@pytest.mark.parametrize(
    "text",
    [
        new_id("acct"),
        f"account {new_id('acct')} has {new_id('evt')}",
        "in_1SgH2eLkdIwHu7ix0abcdefg",
        "tollway.billing.EntitlementsChanged." + new_id("acct"),
        "postgresql+asyncpg://127.0.0.1:5432/tollway_billing",
        "the key sk_live_ is a prefix",
        "token expired",
        "the Basic plan costs nothing",
    ],
)
def test_what_a_person_needs_to_read_stays(text: str) -> None:
    assert telemetry.redact(text) == text


@pytest.mark.parametrize("piece", ["a", "-a", "a_", "://a", "sk_", "eyJa.", "password", '"'])
def test_a_long_line_is_redacted_quickly(piece: str) -> None:
    began = time.process_time()
    telemetry.redact(piece * 20_000)
    assert time.process_time() - began < 2.0  # what backtracks over the rest of the line takes minutes


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, object]]]]:
    """Logs as a service configures them; gives what was written, parsed."""
    output = io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    telemetry.configure_logs("probe", "debug")
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


SECRET = "sk_live_" + "Zx9" * 12
Lines = Callable[[], list[dict[str, object]]]


def test_both_loggers_write_json_with_the_same_fields(lines: Lines) -> None:
    structlog.get_logger("kit").info("ready", port=1)
    logging.getLogger("library").warning('said "%s"\n and\tmore', "quoted")
    ours, theirs = lines()
    assert ours["event"] == "ready"
    assert theirs["event"] == 'said "quoted"\n and\tmore'
    for line in (ours, theirs):
        assert line["service"] == "probe"
        assert {"level", "timestamp", "event"} <= set(line)
    assert theirs["logger"] == "library"


def test_secrets_in_values_nested_or_bare_are_taken_out(lines: Lines) -> None:
    structlog.get_logger().info(
        "x", text=f"a {SECRET}", nested={"a": [{"password": "hunter2", SECRET: 1}]}, rpc_token="hunter2", raw=b"\xff"
    )
    text = json.dumps(lines())
    assert SECRET not in text
    assert "hunter2" not in text
    assert lines()[0]["raw"] == "b'\\xff'"


def test_tracebacks_of_both_loggers_are_redacted(lines: Lines) -> None:
    def fail() -> None:
        raise RuntimeError(f"no access with {SECRET}")

    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("ours")
        logging.getLogger("library").exception("theirs %s", SECRET)
    logging.getLogger("py.warnings").warning("deprecated %s", SECRET)
    assert SECRET not in json.dumps(lines())
    for line in lines()[:2]:
        assert "RuntimeError: no access with sk_live_[redacted]" in str(line["exception"])


def test_a_broken_format_of_a_library_does_not_break_the_log(lines: Lines) -> None:
    logging.getLogger("library").warning("100%")
    assert lines()[0]["event"] == "100%"


def test_the_metrics_parse_and_count_what_was_counted() -> None:
    telemetry.count("test_things_total", 2, kind="a")
    telemetry.count("test_things_total", 1, kind='with "quotes"\nand lines')
    for seconds in (0.0005, 0.003, 99.0):
        telemetry.observe("test_wait_seconds", seconds, method="M")
    telemetry.gauge("test_level", lambda: 4.5)
    families = {f.name: f for f in text_string_to_metric_families(generate_latest(REGISTRY).decode())}
    counts = {sample.labels["kind"]: sample.value for sample in families["test_things"].samples}
    assert counts == {"a": 2, 'with "quotes"\nand lines': 1}
    samples = {(s.name, s.labels.get("le")): s.value for s in families["test_wait_seconds"].samples}
    assert samples["test_wait_seconds_bucket", "0.001"] == 1
    assert samples["test_wait_seconds_bucket", "0.005"] == 2
    assert samples["test_wait_seconds_bucket", "10.0"] == 2
    assert samples["test_wait_seconds_bucket", "+Inf"] == samples["test_wait_seconds_count", None] == 3
    assert samples["test_wait_seconds_sum", None] == pytest.approx(99.0035)
    assert families["test_level"].samples[0].value == 4.5
