"""Whatever goes through the lane: one command, or many uses at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from services.kit.errors import TollwayError
from services.quota.domain import (
    Adjusted,
    Command,
    Decision,
    Lease,
    LimitState,
    Outcome,
    Reversal,
    Unknown,
    Use,
)
from services.quota.errors import AccountNotFound
from services.quota.ports import Decider, Directory

Result = Decision | TollwayError
Answer = TypeVar("Answer", Decision, Lease, Reversal, LimitState, Adjusted)


async def consume(use: Use, decider: Decider, directory: Directory, time_left_s: float | None) -> Decision:
    """One decision. Raises the TollwayError that stopped it; a refusal is an answer."""
    return await carry_out(use, Decision, decider, directory, time_left_s)


async def carry_out(
    command: Command, answer: type[Answer], decider: Decider, directory: Directory, time_left_s: float | None
) -> Answer:
    """What the command comes to; `answer` is the kind of it (see `domain.Outcome`). Raises what stopped it."""
    outcome = (await decider.decide((command,), time_left_s))[0]
    if isinstance(outcome, Unknown):
        outcome = (await _ask_again((command,), decider, directory, time_left_s))[0]
    if isinstance(outcome, TollwayError):
        raise outcome
    assert isinstance(outcome, answer)  # noqa: S101 - each command has one kind of answer
    return outcome


async def consume_batch(
    uses: Sequence[Use], decider: Decider, directory: Directory, time_left_s: float | None
) -> list[Result]:
    """Many decisions, each for itself; errors stand in their places."""
    outcomes = await decider.decide(uses, time_left_s)
    strangers = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Unknown)]
    if strangers:
        again: Sequence[Outcome]
        try:
            again = await _ask_again([uses[index] for index in strangers], decider, directory, time_left_s)
        except TollwayError as error:  # theirs alone: the others were decided
            again = [error] * len(strangers)
        for index, outcome in zip(strangers, again, strict=True):
            outcomes[index] = outcome
    return [outcome if isinstance(outcome, (Decision, TollwayError)) else AccountNotFound() for outcome in outcomes]


async def _ask_again(
    commands: Sequence[Command], decider: Decider, directory: Directory, time_left_s: float | None
) -> list[Outcome]:
    """Learns the accounts from billing, then decides for those that exist."""
    known = await directory.learn({command.account_id for command in commands})
    rest = [command for command in commands if command.account_id in known]
    decided = iter(await decider.decide(rest, time_left_s)) if rest else iter(())
    outcomes: list[Outcome] = []
    for command in commands:
        outcome = next(decided) if command.account_id in known else AccountNotFound()
        outcomes.append(AccountNotFound() if isinstance(outcome, Unknown) else outcome)
    return outcomes
