"""Routes that every product has: sign-up, tokens, usage, plans, webhooks, health. One module per noun."""
