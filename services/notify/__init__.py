"""Notify tells customers by email what happened to their money: receipts and payment-failure notices.

It owns messages: one row per kind and invoice, and what became of it. It learns from billing's events alone.
It refuses to decide anything about plans, to send one message twice, and to mail anybody about nothing ($0).

Invariants
1. There is at most one message per (kind, invoice), whatever is redelivered, reordered or retried.
2. A message is handed to the mail server only after `sending` is committed, so no crash can send it twice.
   A crash between the server's acceptance and our record leaves it `unknown`: listed, not sent again by itself,
   because one receipt too few is a question to support and two are a double charge in the reader's eyes.
3. A message that is known not to have been accepted is tried again for four days, then it is dead.
4. One bad message never delays another.
5. Nothing that a person typed can add a header, a recipient, or markup.
"""
