"""Signing in a program by a code that a person approves (RFC 8628)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.billing.errors import DeviceLoginDecided, DeviceLoginNotFound, DeviceLoginRefused

# Consonants only: no word appears by chance, and none is mistaken for a digit (RFC 8628, section 6.1). 34 bits.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
LIFE = timedelta(minutes=10)
INTERVAL = timedelta(seconds=5)
SLOWER = timedelta(seconds=5)  # RFC 8628, section 3.5: what a slow_down adds, for good


class Outcome(StrEnum):
    """What a poll is told: the errors of RFC 8628, section 3.5, or that the session is due."""

    PENDING = "AUTHORIZATION_PENDING"
    SLOW_DOWN = "SLOW_DOWN"
    DENIED = "ACCESS_DENIED"
    EXPIRED = "EXPIRED_TOKEN"
    USED = "INVALID_GRANT"
    GRANTED = "GRANTED"


_SAID = {
    Outcome.PENDING: "Nobody has approved the code yet.",
    Outcome.SLOW_DOWN: "This is asked too often.",
    Outcome.DENIED: "The login was refused.",
    Outcome.EXPIRED: "The code has expired. Begin again.",
    Outcome.USED: "This device code is unknown, or was used already. Begin again.",
}


@dataclass(frozen=True)
class DeviceLogin:
    id: str
    client_name: str
    remote_address: str
    create_time: datetime
    expire_time: datetime
    interval: timedelta  # between two polls
    poll_time: datetime | None = None  # the last one
    user_id: str | None = None  # who decided
    account_id: str | None = None  # chosen at approval
    approve_time: datetime | None = None
    deny_time: datetime | None = None
    use_time: datetime | None = None  # its session was handed out

    @property
    def decided(self) -> bool:
        return self.approve_time is not None or self.deny_time is not None


def user_code(random: int) -> str:
    """`XXXX-XXXX` of a random number below 20^8."""
    letters = ""
    for _ in range(2 * _HALF):
        random, digit = divmod(random, len(ALPHABET))
        letters += ALPHABET[digit]
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def normal_code(typed: str) -> str | None:
    """The code as it was shown, whatever a person made of it while typing; None: it is no code."""
    if len(typed) > 40:
        return None
    letters = re.sub(r"[\s\-–—_.]", "", typed).upper()
    if len(letters) != 2 * _HALF or set(letters) - set(ALPHABET):
        return None
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def poll(login: DeviceLogin, now: datetime) -> tuple[DeviceLogin, Outcome]:
    """The login after it was polled, and what the program is told."""
    too_soon = login.poll_time is not None and now < login.poll_time + login.interval
    polled = replace(login, poll_time=now)
    if login.use_time is not None:
        return polled, Outcome.USED
    if now >= login.expire_time:
        return polled, Outcome.EXPIRED
    if login.deny_time is not None:
        return polled, Outcome.DENIED
    if login.approve_time is not None:
        return replace(polled, use_time=now), Outcome.GRANTED
    if too_soon:
        return replace(polled, interval=login.interval + SLOWER), Outcome.SLOW_DOWN
    return polled, Outcome.PENDING


def refusal(outcome: Outcome, interval: timedelta) -> DeviceLoginRefused:
    retry_after = interval if outcome in {Outcome.PENDING, Outcome.SLOW_DOWN} else None
    return DeviceLoginRefused(_SAID[outcome], reason=outcome.value, retry_after=retry_after)


def visible(login: DeviceLogin | None, user_id: str, now: datetime) -> DeviceLogin:
    """Raises DeviceLoginNotFound, alike for a code that never was, one that is over, and one that another decided."""
    if login is None or now >= login.expire_time or login.user_id not in {None, user_id}:
        raise DeviceLoginNotFound("This code is not known, or has expired. Begin again.", field="user_code")
    return login


def approve(login: DeviceLogin, user_id: str, account_id: str, now: datetime) -> DeviceLogin:
    """Approved once, for one account. Raises DeviceLoginDecided when it was decided otherwise."""
    if login.approve_time is not None and login.account_id == account_id:
        return login
    if login.decided:
        raise DeviceLoginDecided("This login was decided already.")
    return replace(login, user_id=user_id, account_id=account_id, approve_time=now)


def deny(login: DeviceLogin, user_id: str, now: datetime) -> DeviceLogin:
    """Raises DeviceLoginDecided when it was approved."""
    if login.deny_time is not None:
        return login
    if login.decided:
        raise DeviceLoginDecided("This login was decided already.")
    return replace(login, user_id=user_id, deny_time=now)
