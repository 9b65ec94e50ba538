"""The gateway speaks HTTP for the services: it authenticates, translates JSON ⇄ gRPC, and renders a few pages.

It owns no state: any number of replicas serve alike, and what it keeps (the public signing keys, for minutes) it can
read again. It decides nothing about money or usage; billing and quota do. One module per noun in `routes`, one per
product dialect in `dialects`: a dialect is paths, field names and envelopes over the same calls.

It refuses: bodies that are too large, not JSON, ambiguous (duplicate keys) or of another shape than documented;
credentials in any form but `Authorization: Bearer`; to repeat in an answer what a caller must not see. Every refusal
is a problem document (RFC 9457) with a stable `code`.
"""
