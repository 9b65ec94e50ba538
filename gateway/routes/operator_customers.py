"""What operators do with the people behind accounts: bring them over from Stripe, write to others, erase them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.auth import Operator
from gateway.backend import STRIPE_CALL_S, Services
from gateway.body import Body, Text, json_body
from gateway.operations import OPERATOR, operation
from gateway.times import rfc3339
from tollway.billing.v1 import customer_pb2 as pb

router = APIRouter(prefix="/v1/operator", tags=["operator"])
_PRIVATE = {"Cache-Control": "no-store"}
_OUTCOMES: dict[int, Literal["imported", "already_ours", "skipped"]] = {
    pb.IMPORT_OUTCOME_IMPORTED: "imported",
    pb.IMPORT_OUTCOME_ALREADY_OURS: "already_ours",
    pb.IMPORT_OUTCOME_SKIPPED: "skipped",
}


class ImportBody(Body):
    dry_run: bool = Field(False, description="Say what would be done, change nothing.")
    page_token: Text | None = Field(None, max_length=255, description="null: from the beginning.")
    customer_id: Text | None = Field(
        None, min_length=1, max_length=255, description="Only this one.", examples=["cus_1TxYz"]
    )
    account_id: Text | None = Field(
        None, min_length=1, max_length=100, description="With customer_id: bind it to this account."
    )
    separate: bool = Field(False, description="With customer_id: an account of its own although that was unclear.")
    issuer: Text | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="With identity_key: accounts belong to identities of this provider.",
        examples=["https://clerk.example.com"],
    )
    identity_key: Text | None = Field(
        None,
        min_length=1,
        max_length=40,
        description="With issuer: the customers' metadata that names the organization or user.",
        examples=["clerk_org_id"],
    )


class ImportedCustomer(BaseModel):
    customer_id: str = Field(examples=["cus_1TxYz"])
    email: str | None
    name: str | None
    outcome: Literal["imported", "already_ours", "skipped"]
    reason: str | None = Field(description="Of a skip, for programs.", examples=["email_of_account"])
    message: str | None = Field(description="Of a skip: what is unclear, and what to do.")
    account_id: str | None = Field(description="Its account; of a skip, the account in the way.")
    unknown_price_ids: list[str] = Field(description="Prices that the catalog does not know: they grant no tier yet.")


class ImportedPage(BaseModel):
    customers: list[ImportedCustomer]
    next_page_token: str | None = Field(description="null: this was the last page.")


class ContactBody(Body):
    email: Text = Field(min_length=1, max_length=254, examples=["billing@example.com"])


class Contact(BaseModel):
    id: str = Field(examples=["acct_019ab0c4d5e67f8899aabbccddeeff00"])
    email: str
    stripe_done: bool = Field(description="false: Stripe gets it as soon as it answers.")


class ErasedAccount(BaseModel):
    id: str = Field(examples=["acct_019ab0c4d5e67f8899aabbccddeeff00"])
    erased_at: str
    stripe_done: bool = Field(description="false: the customer is deleted as soon as Stripe answers.")


@router.post(
    "/import",
    summary="Make accounts for customers that subscribe at Stripe",
    **operation("account_not_found", "invalid_argument", "stripe_unavailable", body=ImportBody, credentials=OPERATOR),
)
async def import_customers(
    operator: Operator,
    body: Annotated[ImportBody, Depends(json_body(ImportBody))],
    backend: Services,
    response: Response,
) -> ImportedPage:
    """Some at a time: ask again with `next_page_token`. Safe to repeat: a customer gets one account. What is unclear is
    reported and left alone."""
    asked = pb.ImportCustomersRequest(
        actor=operator.actor,
        dry_run=body.dry_run,
        page_token=body.page_token or "",
        customer_id=body.customer_id or "",
        account_id=body.account_id or "",
        separate=body.separate,
        issuer=body.issuer or "",
        identity_key=body.identity_key or "",
    )
    answer = await backend.billing.call(backend.customers.ImportCustomers, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return ImportedPage(
        customers=[_imported(each) for each in answer.customers], next_page_token=answer.next_page_token or None
    )


@router.put(
    "/accounts/{account_id}/contact",
    summary="Change where an account's mail goes",
    **operation("account_not_found", "invalid_argument", "account_erased", body=ContactBody, credentials=OPERATOR),
)
async def set_contact(
    operator: Operator,
    account_id: str,
    body: Annotated[ContactBody, Depends(json_body(ContactBody))],
    backend: Services,
    response: Response,
) -> Contact:
    """The customer at Stripe gets it too. Who may sign in stays as it is."""
    asked = pb.SetContactRequest(account_id=account_id[:100], actor=operator.actor, email=body.email)
    answer = await backend.billing.call(backend.customers.SetContact, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return Contact(id=answer.account.id, email=answer.account.email, stripe_done=answer.stripe_done)


@router.post(
    "/accounts/{account_id}/erase",
    summary="Erase the personal data of an account",
    **operation(
        "account_not_found", "subscription_running", "refund_under_way", "stripe_unavailable", credentials=OPERATOR
    ),
)
async def erase_account(operator: Operator, account_id: str, backend: Services, response: Response) -> ErasedAccount:
    """Names, addresses, people, sessions and messages go, keys end; invoices' ids, amounts and times stay. The customer
    at Stripe is deleted. There is no way back. Safe to repeat."""
    asked = pb.EraseAccountRequest(account_id=account_id[:100], actor=operator.actor)
    answer = await backend.billing.call(backend.customers.EraseAccount, asked, timeout_s=STRIPE_CALL_S)
    response.headers.update(_PRIVATE)
    return ErasedAccount(id=account_id, erased_at=rfc3339(answer.erase_time), stripe_done=answer.stripe_done)


def _imported(each: pb.ImportedCustomer) -> ImportedCustomer:
    return ImportedCustomer(
        customer_id=each.customer_id,
        email=each.email or None,
        name=each.name or None,
        outcome=_OUTCOMES[each.outcome],
        reason=each.reason.lower() or None,
        message=each.message or None,
        account_id=each.account_id or None,
        unknown_price_ids=list(each.unknown_price_ids),
    )
