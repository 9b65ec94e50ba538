"""The use cases: decide, show usage and leases, believe billing."""

from services.quota.application.decisions import Result, carry_out, consume, consume_batch
from services.quota.application.entitlements import PLACE, believe, heal, store
from services.quota.application.leases import list_leases
from services.quota.application.usage import MeterUsage, Usage, get_usage

__all__ = [
    "PLACE",
    "MeterUsage",
    "Result",
    "Usage",
    "believe",
    "carry_out",
    "consume",
    "consume_batch",
    "get_usage",
    "heal",
    "list_leases",
    "store",
]
