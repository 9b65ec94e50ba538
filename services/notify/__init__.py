"""Notify tells customers by email what happened to their money and their plan, and lets them sign in.

Receipts, failed payments, refunds, trials that end, cancellations, thresholds, caps. It owns messages: one row per kind
and subject, and what became of it. It learns from the events of billing and quota, and asks billing for an address.
It refuses to decide anything about plans, to send one message twice, and to mail anybody about nothing ($0).

Invariants
1. There is at most one message per (kind, subject), whatever is redelivered, reordered or retried.
2. A message is handed to the mail server only after `sending` is committed, so no crash can send it twice.
   A crash between the server's acceptance and our record leaves it `unknown`: listed, not sent again by itself,
   because one receipt too few is a question to support and two are a double charge in the reader's eyes.
3. A message that is known not to have been accepted is tried again for four days, then it is dead.
4. One bad message never delays another.
5. Nothing that a person typed can add a header, a recipient, markup, or a link.
6. What says less is not sent once what says more of the same topic is known: a failure after the payment, 80 percent
   after 100, an end that is ahead after the end.
7. A message goes out again only when an operator asks, once for each request, and it is noted who did.
8. Of an erased account no address, name or content is kept, whatever arrives late.
"""
