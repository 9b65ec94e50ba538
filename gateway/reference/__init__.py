"""The OpenAPI document as a page for people, at `/docs`: one file, no script, nothing from elsewhere."""
