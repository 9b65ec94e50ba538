"""Calls to the gateway, and its refusals as errors with a next step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tollway.cli import config
from tollway.cli.errors import FAILED, NOT_LOGGED_IN, REFUSED, UNREACHABLE, USAGE, CliError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0
LOGIN = "log in: tollway login (or: tollway login --api-key KEY; tollway signup)"
_NEXT_STEPS = {
    "already_subscribed": "change or cancel the plan in the portal: tollway billing portal",
    "no_customer": "buy a plan first: tollway billing upgrade",
    "unknown_tier": "see what there is: tollway plans",
    "insufficient_scope": "use a key that has this scope",
    "session_required": "a person has to do this: tollway login, without --api-key",
    "session_invalid": "your login has ended: tollway login",
    "insufficient_role": "ask an owner of the account",
    "account_not_found": "see which are yours: tollway orgs list",
    "unknown_key_kind": "the message lists the kinds",
    "key_not_found": "see which there are: tollway keys list",
    "cap_not_offered": "see which meters may be capped: tollway caps",
    "unknown_meter": "see which there are: tollway usage",
    "message_not_found": "see which there are: tollway notify list",
    "message_already_sent": "send it once more all the same: --again",
    "no_recipient": "give the account an address: tollway admin contact",
    "operator_token_invalid": "check TOLLWAY_OPERATOR_TOKEN",
    "operator_disabled": "set TOLLWAY_OPERATOR_TOKEN where the gateway runs",
}


def resolve_url(option: str | None) -> str:
    """--api-url, else TOLLWAY_API_URL, else the server used last, else local mode's. Raises CliError for other text."""
    text = option or os.environ.get("TOLLWAY_API_URL") or config.load().api_url or config.DEFAULT_API_URL
    url = text.rstrip("/")
    if not url.startswith(("http://", "https://")) or any(c.isspace() for c in url):
        raise CliError(f"not a web address: {text}", code=USAGE, next_step="try --api-url http://127.0.0.1:8080")
    return url


class Api:
    """The gateway at one address, with one key or none."""

    def __init__(self, api_url: str, api_key: str = "") -> None:
        import httpx

        from tollway.cli import version

        headers = {"User-Agent": f"tollway/{version()}", "Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._url = api_url
        self._client = httpx.Client(base_url=api_url, headers=headers, timeout=TIMEOUT_S)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any] | None = None, *, idempotency_key: str = "") -> dict[str, Any]:
        return self._call("POST", path, body, {"Idempotency-Key": idempotency_key} if idempotency_key else None)

    def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A POST that makes something: with an Idempotency-Key, and once more when the answer was lost on its way."""
        key = {"Idempotency-Key": os.urandom(16).hex()}
        try:
            return self._call("POST", path, body, key)
        except CliError as error:
            if error.code != UNREACHABLE or error.problem is not None:
                raise
        return self._call("POST", path, body, key)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("PUT", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path, None)

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer's JSON object; an empty one for 204. Raises CliError for anything else than a 2xx with one."""
        import httpx

        try:
            response = self._client.request(method, path, json=body, headers=headers)
        except httpx.TimeoutException as error:
            raise self._unreachable(f"{self._url} does not answer in time") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(f"cannot reach {self._url}: {error}") from error
        if not response.is_success:
            raise refusal(response)
        if response.status_code == 204:
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CliError(f"{self._url} answers, but it is not a tollway gateway", next_step="check --api-url")
        return answer

    def _unreachable(self, message: str) -> CliError:
        step = "is it running? Choose another with --api-url or TOLLWAY_API_URL"
        return CliError(message, code=UNREACHABLE, next_step=step)


def refusal(response: httpx.Response) -> CliError:
    """The error that an answer other than 2xx means. Problem documents (RFC 9457) speak for themselves."""
    problem: dict[str, Any] = {}
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            loaded = response.json()
            problem = loaded if isinstance(loaded, dict) else {}
        except ValueError:
            problem = {}
    status = response.status_code
    fallback = f"the server answered {status} {response.reason_phrase}"
    message = str(problem.get("detail") or problem.get("title") or fallback)
    named = [e for e in problem.get("errors") or () if isinstance(e, dict) and e.get("field")]
    if named and str(named[0].get("detail")) != message:
        message += "".join(f"\n  {e['field']}: {e.get('detail', '')}" for e in named)
    if status == 401:
        code, step = NOT_LOGGED_IN, _NEXT_STEPS.get(str(problem.get("code")), LOGIN)
    elif status in {502, 503, 504}:
        code, step = UNREACHABLE, "try again in a moment"
    elif status >= 500 or status < 400:
        code, step = FAILED, "the server's log says more"
    else:
        upgrade = "see what there is: tollway plans" if status == 402 else ""
        code, step = REFUSED, _NEXT_STEPS.get(str(problem.get("code")), upgrade)
    if (after := response.headers.get("retry-after", "")).isdigit():
        step = f"try again in {after} s"
    if status >= 500 and (request_id := response.headers.get("x-request-id")):
        message += f" (request {request_id})"
    return CliError(message, code=code, next_step=step, problem=problem or None)
