"""The mailbox of local mode: catches every mail over SMTP and shows it on a page and as JSON.

It owns what it caught, in SQLite: after 250 a mail is on disk. The JSON has the shape of Mailpit's API
(https://mailpit.axllent.org/docs/api-v1/), so Mailpit can take its place. It never sends a mail on.
"""
