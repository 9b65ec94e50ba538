"""Quota decides whether usage may proceed, and counts it, in one durable step.

It owns counters (units used of a meter in a period), logs of rates (what was granted in the last window), leases, caps
that accounts set on themselves, counts of what they hold, the ledger of grants by idempotency key, kill switches, and
its own copy of every account's entitlements. It does not resolve the catalog, bill, or know Stripe: billing sends what
an account may do, and quota acts on the highest version it has seen.

Words: an *account* is who uses; a *meter* is what is used; a *limit* spans one meter or several and refuses; a *plan*
is the entitlements that many accounts share; a *span* is one period of a counter, [start, end); a *use* is a request;
a *grant* is a use that was counted; a *lease* is a hold with an expiry: a slot of concurrency, units in reserve, or
both; a *cap* is a limit that the account set on itself; an *allowance* is a count of things held now; a *command* is
whatever is decided in its turn; the *lane* is the one connection on which a process decides.

Invariants (DESIGN §11): 1 no grant exceeds the limit in force; 2 counter = ledger = what callers were told; 3 an
idempotency key has one stored answer; 4 live leases never exceed the concurrency in force when one is granted, none
holds anything from its expiry on, and each ends once; 9 an account's version never decreases; 15 what was answered OK
is there after a crash. A refusal consumes nothing of any limit and is not remembered.

It refuses: a use of a meter the plan does not name; an idempotency key that comes back with another body; a counter
that would not fit 63 bits; more waiting uses than its queue holds; to answer OK before the commit.
"""
