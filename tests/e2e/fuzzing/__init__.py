"""What the fuzzer of the OpenAPI document is told beyond the document: credentials, and a check of our own."""
