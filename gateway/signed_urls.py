"""Addresses of downloads: whoever has one may fetch, for as long as the lease behind it lives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from gateway.problems import Problem
from gateway.times import whole_seconds
from tollway.quota.v1 import quota_pb2 as pb

PATH = "/api/download/object/"
_PURPOSE = b"tollway download address v1"


@dataclass(frozen=True)
class Grant:
    """What an address stands for. `expires` is in seconds since 1970, business time."""

    object: str
    account: str
    meter: str
    lease: str
    expires: int

    @classmethod
    def of(cls, lease: pb.Lease, name: str, account: str) -> Grant:
        # Rounded up: it has to work until the lease ends, and then the lease is looked at, too.
        return cls(name, account, lease.meter, lease.id, whole_seconds(lease.expire_time))


class Signer:
    """HMAC-SHA256 under a key derived from the installation's secret, so that every replica accepts every address."""

    def __init__(self, public_url: str, secret: str) -> None:
        self._public_url = public_url
        self._key = hmac.digest(secret.encode(), _PURPOSE, "sha256")

    def url(self, grant: Grant) -> str:
        said = {
            "account": grant.account,
            "meter": grant.meter,
            "lease": grant.lease,
            "expires": grant.expires,
            "signature": self._signature(grant),
        }
        return f"{self._public_url}{PATH}{quote(grant.object)}?{urlencode(said)}"

    def verify(self, name: str, query: Mapping[str, str]) -> Grant:
        """Raises 403 download_url_invalid."""
        expires = query.get("expires", "")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16):
            raise Problem("download_url_invalid")
        grant = Grant(name, query.get("account", ""), query.get("meter", ""), query.get("lease", ""), int(expires))
        # In constant time: an answer that comes sooner must not tell how much of a guess was right.
        if not hmac.compare_digest(self._signature(grant).encode(), query.get("signature", "").encode()):
            raise Problem("download_url_invalid")
        return grant

    def _signature(self, grant: Grant) -> str:
        # As JSON, so that no two grants are written alike.
        said = json.dumps([grant.object, grant.account, grant.meter, grant.lease, grant.expires]).encode()
        return base64.urlsafe_b64encode(hmac.new(self._key, said, hashlib.sha256).digest()).rstrip(b"=").decode()
