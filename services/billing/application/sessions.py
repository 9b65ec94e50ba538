"""Sessions of people who signed in. Their rows hold a hash: any replica serves them, and a stolen table opens nothing.

Times are the wall clock's: moving business time signs nobody out.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from services.billing.application.context import Context
from services.billing.domain.api_key import hash_key, kind_of, new_key
from services.billing.errors import ApiKeyMalformed, SessionInvalid, UserNotFound
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.identity import Session, User
from services.kit.ids import new_id

PREFIX = "ses_"  # a catalog in which a kind of key begins so is refused
LIFE = timedelta(days=30)
KEPT = timedelta(days=30)  # after its end, for those who look into an incident


async def create_session(email: str, context: Context) -> tuple[Session, str]:
    """A session and its token, for the person whom the address reaches: the caller has proved that it does.

    Raises UserNotFound when nobody has this address.
    """
    now = context.wall.now()
    async with context.unit_of_work() as uow:
        user = await uow.users.by_email(email.strip().lower())
        if user is None:
            raise UserNotFound("Nobody has this address.", field="email")
        opened = await open_session(user, now, uow)
        await uow.commit()
    return opened


async def open_session(user: User, now: datetime, uow: BillingUnitOfWork) -> tuple[Session, str]:
    """The user's session and its token, with what `uow` commits. The caller has proved that the address is theirs."""
    await uow.users.verify(user.id, now)
    await uow.accounts.verify_contact(user.id, user.email, now)
    user = await uow.users.by_email(user.email) or user
    token = new_key(PREFIX)
    session = Session(new_id("sid"), user, now, now + LIFE, None)
    await uow.sessions.add(session, token.hash)
    return session, token.secret


async def resolve_session(token: str, context: Context) -> Session:
    """Whose it is. Raises SessionInvalid; for a malformed one without reading the database."""
    invalid = SessionInvalid("You are not signed in any more. Sign in again.")
    try:
        kind_of(token, {PREFIX: "session"})
    except ApiKeyMalformed:
        raise invalid from None
    async with context.unit_of_work() as uow:
        session = await uow.sessions.find(hash_key(token))
    if session is None or not session.valid(context.wall.now()):
        raise invalid
    return session


async def end_session(token: str, context: Context) -> None:
    """Ends it; one that is over, or that never was, stays so."""
    async with context.unit_of_work() as uow:
        await uow.sessions.end(hash_key(token), context.wall.now())
        await uow.key_sessions.end(hash_key(token), context.wall.now())
        await uow.commit()
