"""Proto ⇄ command for operators: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import accounts, operators
from services.billing.application.context import Context
from services.billing.domain.principal import Actor, ActorKind
from services.billing.grpc_identity import actor_message, actor_of
from services.billing.storage.overrides import Found, Override
from services.kit.times import to_instant
from tollway.billing.v1 import operator_pb2 as pb
from tollway.billing.v1 import operator_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


class OperatorService(operator_pb2_grpc.OperatorServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def SetOverride(  # noqa: N802 - the contract's name
        self, request: pb.SetOverrideRequest, context: Rpc
    ) -> pb.SetOverrideResponse:
        end = to_instant(request.end_time, "end_time") if request.HasField("end_time") else None
        command = operators.SetOverride(request.account_id, actor_of(request.actor), request.tier, request.terms, end)
        made = await operators.set_override(command, self._context)
        return pb.SetOverrideResponse(override=_override(made))

    async def RemoveOverride(  # noqa: N802
        self, request: pb.RemoveOverrideRequest, context: Rpc
    ) -> pb.RemoveOverrideResponse:
        await operators.remove_override(request.account_id, actor_of(request.actor), self._context)
        return pb.RemoveOverrideResponse()

    async def SearchAccounts(  # noqa: N802
        self, request: pb.SearchAccountsRequest, context: Rpc
    ) -> pb.SearchAccountsResponse:
        page = await operators.search(request.query, request.page_size, request.page_token, self._context)
        found = [self._found(each) for each in page.rows]
        return pb.SearchAccountsResponse(accounts=found, next_page_token=page.next_token)

    async def ExplainAccount(  # noqa: N802
        self, request: pb.ExplainAccountRequest, context: Rpc
    ) -> pb.ExplainAccountResponse:
        told = await operators.explain(request.account_id, self._context)
        state, counts, event, override = told.entitlement, told.subscription, told.event, told.override
        found = Found(
            told.account, state.tier, state.status, override.end_time if override else None, override is not None
        )
        return pb.ExplainAccountResponse(
            account=self._found(found),
            version=state.version,
            because=told.because,
            subscription_id=counts.id if counts else "",
            price_id=counts.price_id if counts else "",
            lookup_key=counts.lookup_key if counts else "",
            lifecycle_outcome=told.outcome,
            price_tier=told.price_tier,
            event_id=event.id if event else "",
            event_type=event.type if event else "",
            event_time=events.timestamp(event.create_time) if event else None,
            override=_override(override) if override else None,
            catalog_hash=state.catalog_hash,
            product=self._context.catalog.product.name,
            change_time=events.timestamp(told.change_time),
            reads_waiting=told.reading.waiting,
            read_error=told.reading.error,
        )

    def _found(self, found: Found) -> pb.FoundAccount:
        until = found.overridden_until
        return pb.FoundAccount(
            account=accounts.account_message(found.account),
            tier=found.tier,
            status=found.status,
            stripe_customer_id=found.account.stripe_customer_id or "",
            overridden=found.has_override and (until is None or self._context.business.now() < until),
        )


def _override(override: Override) -> pb.Override:
    return pb.Override(
        account_id=override.account_id,
        tier=override.tier,
        terms=override.terms,
        end_time=events.timestamp(override.end_time),
        create_time=events.timestamp(override.create_time),
        actor=actor_message(Actor(ActorKind(override.actor_kind), override.actor_id)),
    )
