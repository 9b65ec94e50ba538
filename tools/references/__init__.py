"""The reference pages under `docs/reference/`, made from the contracts and the code, never written by hand.

python -m tools.references           writes them (make docs)
python -m tools.references --check   says which are stale (make lint)
"""
