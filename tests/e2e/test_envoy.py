"""A product behind Envoy: sign up, use the key at once, and gateway and Envoy count into the same month."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.infra.stack import Stack
from tests.integration.quota import envoy_world


def test_a_new_key_works_through_envoy_and_both_doors_count_together(system: Stack, tmp_path: Path) -> None:
    with httpx.Client(base_url=system.gateway_url, timeout=20) as gateway:
        signed_up = gateway.post("/v1/signup", json={"email": f"{tmp_path.name}@example.com", "name": "Envoy"}).json()
        bearer = {"authorization": f"Bearer {signed_up['api_key']}"}
        token = system.env["TOLLWAY_RPC_TOKEN"]
        port = int(system.address("quota").rsplit(":", 1)[1])
        with (
            envoy_world.product() as product,
            envoy_world.envoy(tmp_path, "ext_authz", quota=port, upstream=product.port, token=token) as front,
        ):
            first = httpx.get(f"{front}/bulk/x", headers=bearer, timeout=20)
            assert (first.status_code, first.json()["x-tollway-account-id"]) == (200, signed_up["account"]["id"])
            assert (first.json()["x-tollway-tier"], first.json()["x-tollway-key-kind"]) == ("free", "live")
            assert first.headers["ratelimit"].startswith('"messages_per_month";r=99990;')
            counted = gateway.post("/v1/usage", headers=bearer, json={"meter": "messages", "amount": 99_985})
            assert (counted.status_code, counted.json()["remaining"]) == (200, 5)
            through_envoy = httpx.get(f"{front}/bulk/x", headers=bearer, timeout=20)
            at_the_gateway = gateway.post("/v1/usage", headers=bearer, json={"meter": "messages", "amount": 10})
            assert through_envoy.status_code == at_the_gateway.status_code == 402
            ours, theirs = through_envoy.json(), at_the_gateway.json()
            for told in (ours, theirs):
                del told["instance"], told["request_id"]
            # Quota's plans are shared by accounts, so it names the list of them; the gateway knows whose page it is.
            assert theirs.pop("checkoutUrl") == f"{ours.pop('checkoutUrl')}/{signed_up['account']['slug']}/billing"
            assert ours == theirs
            assert product.served == ["/bulk/x"]
        assert signed_up["api_key"] not in system.all_logs()
