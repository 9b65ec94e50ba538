"""What a durable decision costs, as ratios to an empty RPC: `python -m benchmarks.quota [--only NAME] [--seconds S]`.

Everything runs in one run against one PostgreSQL of its own (fsync on). Two kinds of caller ask: `aio`, a process of
its own with a grpc.aio client, as services call; and `light`, a load generator that costs a tenth of it, so that the
server is what saturates. Each ratio is between figures of the same kind of caller and the same number in flight.

Scenarios take turns for several rounds and the median of the rounds' ratios is told: other work on the machine, or a
checkpoint, would favour whoever ran alone. Afterwards the ledger's units, the counters and what callers were told must
be the same number.
"""
