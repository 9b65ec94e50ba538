"""`python -m services.notify.preview KIND html|text [BRAND]`: a mail with made-up facts, on stdout.

BRAND is JSON with `name`, `support_contact`, `color` and `sender`. Without KIND the kinds are listed.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

from services.notify import samples, sign_in
from services.notify.domain import Brand
from services.notify.email import MailWriter

MESSAGE_ID = "<preview@localhost>"
KINDS = (*samples.of(), sign_in.KIND)


def written(kind: str, brand: Brand) -> EmailMessage:
    """With the address and the locale of the environment, as notify would."""
    sender = os.environ.get("TOLLWAY_MAIL_FROM") or "billing@localhost"
    if kind == sign_in.KIND:
        now = datetime.now(UTC)
        url = "https://pay.example.com/dash/sign-in/link?token=sample"
        link = sign_in.SignInLink(samples.RECIPIENT, url, now + timedelta(minutes=15), brand)
        return sign_in.write(link, sender=sender, now=now)
    write = MailWriter(sender, os.environ.get("TOLLWAY_MAIL_LOCALE") or "en_US")
    return write(samples.of(brand)[kind], recipient=samples.RECIPIENT, message_id=MESSAGE_ID)


def main() -> int:
    if len(sys.argv) < 3:
        print("\n".join(KINDS))
        return 0
    kind, form = sys.argv[1:3]
    if kind not in KINDS:
        print(f"no mail is called {kind}; there are {', '.join(KINDS)}", file=sys.stderr)
        return 1
    given = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    mail = written(kind, replace(samples.BRAND, **given))
    body = mail.get_body(("html",) if form == "html" else ("plain",))
    assert body is not None  # noqa: S101 - each mail has both
    if form == "text":
        print("\n".join(f"{name}: {mail[name]}" for name in ("From", "To", "Reply-To", "Subject") if mail[name]) + "\n")
    print(body.get_content().replace("\r\n", "\n"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
