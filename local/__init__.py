"""Everything that `make run` needs and production gets elsewhere.

It owns the supervisor, the embedded PostgreSQL and NATS, the Stripe sandbox, the mailbox, an identity provider that
vouches for anybody, and the folder `.tollway/` that holds their state. It binds loopback only, imports no service, and
nothing in `services/` knows it exists.
"""
