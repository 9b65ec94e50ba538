"""Another account for a person who is signed in."""

from __future__ import annotations

from dataclasses import dataclass

from services.billing.application import audit, idempotency, key_sessions
from services.billing.application.accounts import WINDOW, account_message, open_account
from services.billing.application.context import Context
from services.billing.application.names import checked_name, slug_of
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.errors import SignUpRateLimited
from services.billing.storage.accounts import Account
from services.kit.ids import new_id
from tollway.billing.v1 import auth_pb2, identity_pb2


@dataclass(frozen=True)
class CreateOrg:
    session_token: str
    name: str
    request_id: str = ""


async def create_org(command: CreateOrg, context: Context) -> identity_pb2.CreateOrgResponse:
    """An account on the default tier that the person owns, without a key: in one commit, and once per `request_id`.

    It counts as a sign-up of the person's address. Raises SessionInvalid, InvalidArgument, SignUpRateLimited.
    """
    name = checked_name(command.name)
    request_id = idempotency.checked_request_id(command.request_id)
    mark = idempotency.fingerprint(name)
    user = (await key_sessions.person(command.session_token, context)).user
    scope = f"create_org {user.id}"
    now = context.wall.now()
    async with context.unit_of_work() as uow:
        if request_id:
            earlier = await idempotency.find(scope, request_id, mark, uow, context.vault)
            if earlier is not None:
                return identity_pb2.CreateOrgResponse.FromString(earlier)
        by_email, _ = await uow.sign_ups.since(user.email, "", now - WINDOW)
        if by_email >= context.settings.signup_per_email:
            raise SignUpRateLimited("Too many accounts were made. Try again in an hour.", retry_after=WINDOW)
        await uow.sign_ups.note(user.email, "", now)
        created = context.business.now()
        new = Account(new_id("acct"), slug_of(name), name, user.email, None, created)
        account = await open_account(new, uow, context)
        await uow.memberships.add(account.id, user.id, Role.OWNER, created)
        actor = Actor(ActorKind.SESSION, user.id)
        await audit.record(uow, context, account.id, actor, "account.created", account.id, slug=account.slug)
        org = identity_pb2.Org(account=account_message(account), role=auth_pb2.ROLE_OWNER)
        response = identity_pb2.CreateOrgResponse(org=org)
        if request_id:
            await idempotency.keep(scope, request_id, mark, response.SerializeToString(), uow, context.vault, now)
        await uow.commit()
    return response
