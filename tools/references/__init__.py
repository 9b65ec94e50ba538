"""The reference pages under `docs/reference/`, made from the contracts and the code, never written by hand.

python -m tools.references           writes them (make docs)
python -m tools.references --check   says which are stale (make lint)
"""


class Undescribed(Exception):
    """The code has something whose meaning nobody has said yet."""
