"""A stateful stand-in for Stripe's test mode, for people and tests without a Stripe account.

It owns what the official stripe-python and the official Stripe CLI ask of Stripe in a subscription's life: products,
prices, customers, cards, Checkout and portal pages, subscriptions driven by clocks, invoices, events and their
signed delivery. One noun per module; shapes follow API version `2026-10-28.endive`.

It refuses what it does not know, as Stripe does (`parameter_unknown`, "Unrecognized request URL"), so that no test
can pass on a parameter nobody honours. It binds loopback only, takes test keys only, and knows no product using it.
"""

API_VERSION = "2026-10-28.endive"
