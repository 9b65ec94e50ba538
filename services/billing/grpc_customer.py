"""Proto ⇄ command for the people behind accounts: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import accounts, contacts, erasure, imports
from services.billing.application.context import Context
from services.billing.application.imports import ImportCustomers, Imported
from services.billing.domain.customer import Outcome
from services.billing.grpc_identity import actor_of
from tollway.billing.v1 import customer_pb2 as pb
from tollway.billing.v1 import customer_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]
_OUTCOMES = {
    Outcome.IMPORTED: pb.IMPORT_OUTCOME_IMPORTED,
    Outcome.ALREADY_OURS: pb.IMPORT_OUTCOME_ALREADY_OURS,
    Outcome.SKIPPED: pb.IMPORT_OUTCOME_SKIPPED,
}


class CustomerService(customer_pb2_grpc.CustomerServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def ImportCustomers(  # noqa: N802 - the contract's name
        self, request: pb.ImportCustomersRequest, context: Rpc
    ) -> pb.ImportCustomersResponse:
        command = ImportCustomers(
            actor_of(request.actor),
            request.dry_run,
            request.page_token,
            request.customer_id,
            request.account_id,
            request.separate,
            request.issuer,
            request.identity_key,
        )
        done, token = await imports.import_customers(command, self._context)
        return pb.ImportCustomersResponse(customers=[_imported(each) for each in done], next_page_token=token)

    async def SetContact(  # noqa: N802
        self, request: pb.SetContactRequest, context: Rpc
    ) -> pb.SetContactResponse:
        account, done = await contacts.set_contact(
            request.account_id, request.email, actor_of(request.actor), self._context
        )
        return pb.SetContactResponse(account=accounts.account_message(account), stripe_done=done)

    async def EraseAccount(  # noqa: N802
        self, request: pb.EraseAccountRequest, context: Rpc
    ) -> pb.EraseAccountResponse:
        at, done = await erasure.erase_account(request.account_id, actor_of(request.actor), self._context)
        return pb.EraseAccountResponse(erase_time=events.timestamp(at), stripe_done=done)


def _imported(each: Imported) -> pb.ImportedCustomer:
    return pb.ImportedCustomer(
        customer_id=each.customer.id,
        email=each.customer.email,
        name=each.customer.name,
        outcome=_OUTCOMES[each.verdict.outcome],
        reason=each.verdict.reason,
        message=each.verdict.message,
        account_id=each.verdict.account_id,
        unknown_price_ids=each.unknown_price_ids,
    )
