"""The user's stories, told through the doors that users have: REST, pages in Chromium, mails, the CLI, events.

Everything runs as real processes. Only what no user can see (that nothing was stored, when a webhook arrived) is read
from a database.
"""
