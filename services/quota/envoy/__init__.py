"""Envoy asks, quota answers: external authorization and the rate limit service, over the same use cases as Consume.

Here Envoy's messages become uses, and decisions become what Envoy tells the client. It owns nothing and decides
nothing: what it refuses beyond a limit is a key that nobody owns, and a route that names no meter.
"""
