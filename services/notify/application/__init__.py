"""Use cases: believe an event, send what waits, show what became of it, send it again, forget an account."""

from services.notify.application.believing import believe, forget, message_id
from services.notify.application.messages import Resend, list_messages, resend, show
from services.notify.application.sending import ClaimLapsed, send

__all__ = ["ClaimLapsed", "Resend", "believe", "forget", "list_messages", "message_id", "resend", "send", "show"]
