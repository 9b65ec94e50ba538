"""The products' own paths, field names and envelopes, as their documentation shows them. One module per product."""
