"""`python -m local.stripe_sandbox`: serves the sandbox on 127.0.0.1 until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import uvicorn

from .app import create_app
from .deliverer import RetryPolicy
from .sandbox import Settings


def _arguments() -> argparse.Namespace:
    env = os.environ
    parser = argparse.ArgumentParser(prog="stripe_sandbox", description="A stand-in for Stripe's test mode.")
    parser.add_argument("--port", type=int, default=int(env.get("TOLLWAY_SANDBOX_PORT", "12111")))
    parser.add_argument("--state", type=Path, default=Path(env.get("TOLLWAY_STATE", ".tollway")) / "sandbox")
    parser.add_argument("--webhook-url", help="an endpoint that gets every event")
    parser.add_argument("--webhook-secret", default=_secret(), help="its signing secret (STRIPE_WEBHOOK_SECRET)")
    parser.add_argument("--business-name", default="", help="the seller's name on pages and invoices")
    parser.add_argument("--retry-base", type=float, default=RetryPolicy.base, help="seconds before the first retry")
    parser.add_argument("--retry-attempts", type=int, default=RetryPolicy.attempts)
    parser.add_argument(
        "--webhook-timeout", type=float, default=RetryPolicy.timeout, help="seconds to wait for an answer"
    )
    arguments = parser.parse_args()
    if arguments.webhook_url and not arguments.webhook_secret:
        parser.error("--webhook-url needs --webhook-secret or STRIPE_WEBHOOK_SECRET")
    return arguments


def _secret() -> str | None:
    file = os.environ.get("STRIPE_WEBHOOK_SECRET_FILE")
    return Path(file).read_text().strip() if file else os.environ.get("STRIPE_WEBHOOK_SECRET")


def main() -> None:
    arguments = _arguments()
    clock_file = os.environ.get("TOLLWAY_CLOCK_FILE")
    settings = Settings(
        state=arguments.state,
        base_url=f"http://127.0.0.1:{arguments.port}",
        clock_file=Path(clock_file) if clock_file else None,
        webhook_url=arguments.webhook_url,
        webhook_secret=arguments.webhook_secret,
        business_name=arguments.business_name,
        retry=RetryPolicy(
            base=arguments.retry_base, attempts=arguments.retry_attempts, timeout=arguments.webhook_timeout
        ),
    )
    try:
        app = create_app(settings)
    except RuntimeError as error:
        sys.exit(f"stripe_sandbox: {error}")
    # Loopback only: it takes any test key and shows everything it holds.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        log_level=os.environ.get("TOLLWAY_LOG_LEVEL", "info").lower(),
        access_log=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
