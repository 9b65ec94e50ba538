"""Sessions of browsers that came in with an API key: they are the key, no more, and end with it."""

from __future__ import annotations

from services.billing.application.context import Context
from services.billing.application.sessions import LIFE, resolve_session
from services.billing.domain.api_key import hash_key, kind_of, new_key
from services.billing.errors import ApiKeyMalformed, SessionInvalid, SessionRequired
from services.billing.storage.identity import Session
from services.billing.storage.keys import KeyOwner
from services.billing.storage.sign_in import KeySession
from services.kit.ids import new_id

PREFIX = "ses_key_"  # begins as every session's token does


async def open_key_session(owner: KeyOwner, context: Context) -> tuple[KeySession, str]:
    """The session and its token. The caller has authenticated the key."""
    now = context.wall.now()
    token = new_key(PREFIX)
    session = KeySession(new_id("sid"), owner.key_id, now, now + LIFE, None)
    async with context.unit_of_work() as uow:
        await uow.key_sessions.add(session, token.hash)
        await uow.commit()
    return session, token.secret


async def key_of(token: str, context: Context) -> KeyOwner:
    """The key that the session is, with the tier of this moment. Raises SessionInvalid; when the key has ended, too."""
    invalid = SessionInvalid("You are not signed in any more. Sign in again.")
    try:
        kind_of(token, {PREFIX: "session"})
    except ApiKeyMalformed:
        raise invalid from None
    async with context.unit_of_work() as uow:
        session = await uow.key_sessions.find(hash_key(token))
        if session is None or not session.valid(context.wall.now()):
            raise invalid
        owner = await uow.keys.owner_of_id(session.key_id)
    if owner is None or (owner.revoke_time is not None and owner.revoke_time <= context.business.now()):
        raise invalid
    return owner


async def person(token: str, context: Context) -> Session:
    """The session of a person. Raises SessionInvalid, and SessionRequired for a session that is a key: nobody's."""
    if token.startswith(PREFIX):
        raise SessionRequired("This takes a person: sign in with your email address, not with an API key.")
    return await resolve_session(token, context)
