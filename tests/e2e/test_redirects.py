"""Where Stripe may send a person back to: our own origin and the catalog's, in every dialect, in no disguise."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.vatly import BUSINESS, Member, member, price_id, vatly, world
from tests.e2e.world import PROBLEM, Json, World

__all__ = ["vatly", "world"]  # fixtures

_DISGUISES = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/billing",
    "billing",
    "https://yourapp.com@evil.example/",
    "https://yourapp.com:pw@evil.example/",
    "https://user@yourapp.com/",
    "https://evil.example\\@yourapp.com/",
    "https://yourapp.com\\.evil.example/",
    "https://yourapp.com\\@evil.example/",
    "https://yourapp.com.evil.example/",
    "https://evilyourapp.com/",
    "https://yourapp.com.",
    "https://yourapp.co/",
    "https://yourapp.com:443@evil.example/",
    "https://yourapp.com%2f@evil.example/",
    "https://yourapp.com%40evil.example/",
    "https://evil.example?https://yourapp.com/",
    "https://evil.example#https://yourapp.com/",
    "https://yourapp.com:/",
    "https://yourapp.com:0443/",
    "https%3A%2F%2Fyourapp.com%2F",
    "https://xn--yurapp-fof.com/",
    "https://yourapp.com%0d%0aLocation:/",
    "https://sub.yourapp.com/",
    "https://yourapp.com:8443/",
    "https://yourapp.com%2eevil.example/",
    "https://yourapp.com%00.evil.example/",
    "https://yourapp.com;.evil.example/",
    "https://yоurapp.com/",
    "https://ｙourapp.com/",
    "https://yourapp。com/",
    "http://yourapp.com/",
    "ftp://yourapp.com/",
    "javascript:alert(1)//https://yourapp.com/",
    "data:text/html,https://yourapp.com/",
    "https:yourapp.com/",
    "https:/yourapp.com/",
    "https:///yourapp.com/",
    "HTTPS://evil.example/https://yourapp.com/",
    "https://yourapp.com/\r\nLocation: https://evil.example/",
    "https://yourapp.com/\nx",
    "https://yourapp.com/\tx",
    "https://yourapp.com\t.evil.example/",
    " https://yourapp.com/",
    "https://yourapp.com/ ",
    "https://yourapp.com/\u2028x",
    "https://[::ffff:127.0.0.1]/",
    "https://[yourapp.com/",
    "https://2130706433/",
    "https://yourapp.com/" + "a" * 2100,
    "",
]
_FIELDS = [("checkout", "success_url"), ("checkout", "cancel_url"), ("portal", "return_url")]


@dataclass
class Doors:
    """The same account's billing in each of the three dialects."""

    person: Member
    prefixes: dict[str, tuple[str, Json, str]]  # dialect → path, what a checkout names, credential

    async def ask(self, dialect: str, what: str, **more: str) -> httpx.Response:
        prefix, bought, credential = self.prefixes[dialect]
        body = {**(bought if what == "checkout" else {}), **more}
        headers = {"Authorization": f"Bearer {credential}"}
        return await self.person.world.gateway.post(f"{prefix}/{what}", json=body, headers=headers)


@pytest.fixture
async def doors(world: World) -> Doors:
    person = await member(world, "user_redirected")
    await person.subscription()
    (org,) = (await person.call("GET", "/v1/orgs")).json()["orgs"]
    key = await person.issue_key()
    tier: Json = {"tier": "business"}
    return Doors(
        person,
        {
            "skytale": ("/v1/billing", tier, key),
            "vatly": ("/admin/billing", {"price_id": await price_id(world, BUSINESS)}, person.token),
            "manashiki": (f"/v1/orgs/{org['slug']}/billing", tier, person.token),
        },
    )


@pytest.mark.parametrize(("what", "field"), _FIELDS)
@pytest.mark.parametrize("dialect", ["skytale", "vatly", "manashiki"])
async def test_a_foreign_address_in_every_disguise_is_422_naming_its_field(
    doors: Doors, dialect: str, what: str, field: str
) -> None:
    taken = []
    for address in _DISGUISES:
        answer = await doors.ask(dialect, what, **{field: address})
        if answer.status_code != 422:
            taken.append((address, answer.status_code))
            continue
        assert answer.headers["content-type"] == PROBLEM
        document = answer.json()
        assert document["code"] in {"redirect_not_allowed", "validation_failed"}, address
        assert [each["field"] for each in document["errors"]] == [field], address
        assert "evil" not in answer.text, "an address that is refused is not repeated"
    assert taken == []


@pytest.mark.parametrize("dialect", ["skytale", "vatly", "manashiki"])
async def test_the_catalogs_origin_and_our_own_are_taken(doors: Doors, dialect: str) -> None:
    for origin in ("https://yourapp.com", doors.person.world.stack.gateway_url):
        answer = await doors.ask(dialect, "checkout", success_url=f"{origin}/done?a=1#b", cancel_url=origin)
        assert answer.status_code in {200, 201}, answer.text
        assert (await doors.ask(dialect, "portal", return_url=f"{origin}/billing")).status_code == 200
