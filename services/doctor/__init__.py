"""The doctor looks at an installation from where its services run, and says what is wrong and how to mend it.

It reads the services' own settings, and asks Stripe, PostgreSQL, NATS, the mail server and the gateway. It changes
nothing, and prints no secret. `python -m services.doctor` prints one JSON object a line; `tollway doctor` shows them.
"""
