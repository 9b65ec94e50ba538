"""Every router of the pages behind the sign-in."""

from __future__ import annotations

from gateway.pages import assets, billing, caps, device, keys, sign_in, subscription

ROUTERS = (
    assets.router,
    sign_in.router,
    device.router,
    billing.router,
    subscription.router,
    keys.router,
    caps.router,
)
