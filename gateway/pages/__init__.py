"""The few pages for people: after Checkout, an index, the list of problems. Rendered here, no scripts."""
