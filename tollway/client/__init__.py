"""What a program needs to follow tollway: its events, typed, from NATS JetStream.

    async for event in subscribe("nats://127.0.0.1:14222", TierChanged, durable="my-service"):
        ...

It owns no state: the stream remembers where a durable subscriber is. It refuses to hide that delivery is at least
once: drop ids that you have seen, and use the message's `version` for order.
"""

from tollway.client.events import Event, subscribe

__all__ = ["Event", "subscribe"]
