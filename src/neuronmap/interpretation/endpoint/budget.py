"""A hard budget: what a question may cost at most is put aside before it is sent, what it did cost is settled afterwards.

A question waits while others under way hold what it needs; if it does not fit with nothing under way, the budget is used up. So spending
never goes above the budget as long as the bounds hold: a prompt has no more tokens than bytes (plus what the chat format adds), an answer
no more than it may have. An attempt that ended without an answer may have been charged by the endpoint all the same, and counts whole.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from neuronmap.errors import BudgetError, ConfigError
from neuronmap.interpretation.endpoint.config import EndpointConfig
from neuronmap.interpretation.endpoint.question import Usage

__all__ = ["Budget", "Limit", "Spending", "parse_budget"]

_AMOUNT = re.compile(r"(?P<money>\$)?\s*(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<scale>[kKmM])?\s*(?P<unit>tokens?|usd)?")


@dataclass(frozen=True)
class Limit:
    """The most that may be spent; None for no limit."""

    tokens: int | None = None
    money: float | None = None


def parse_budget(text: str) -> Limit:
    """``"200000"``, ``"200k"``, ``"2M tokens"``: tokens. ``"$1.50"``, ``"1.5usd"``: money, in the currency of the prices.

    Raises:
        ConfigError: it is neither.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or float(match["number"]) <= 0 or (match["money"] and match["unit"] and match["unit"] != "usd"):
        raise ConfigError(
            f"--budget {text!r} is neither a number of tokens nor an amount of money above 0.",
            hint="For example 200000, 200k, 2M, or $1.50 with --price-in and --price-out.",
        )
    amount = float(match["number"]) * {"k": 1e3, "m": 1e6, "": 1}[(match["scale"] or "").lower()]
    if match["money"] or match["unit"] == "usd":
        return Limit(money=amount)
    return Limit(tokens=int(amount))


@dataclass
class Spending:
    """What a run has cost so far.

    Attributes:
        calls: answers that came from the endpoint.
        cached: answers that were on this machine.
        usage: tokens of the former.
        uncertain: tokens counted, at their bound, for attempts that ended without an answer.
        money: of both; None without prices.
        retries: requests that were sent again.
    """

    calls: int = 0
    cached: int = 0
    usage: Usage = field(default_factory=Usage)
    uncertain: int = 0
    money: float | None = None
    retries: int = 0

    @property
    def tokens(self) -> int:
        """All tokens that count."""
        return self.usage.total + self.uncertain


class Budget:
    """Keeps the spending of one run under its limit.

    Args:
        config: the endpoint, for prices.
        limit: the most that may be spent.

    Raises:
        ConfigError: a limit in money without prices.
    """

    def __init__(self, config: EndpointConfig, limit: Limit | None = None) -> None:
        self.config, self.limit = config, limit or Limit()
        if self.limit.money is not None and config.cost(0, 0) is None:
            raise ConfigError(
                "A budget in money needs prices.", hint="Give --price-in and --price-out, per million tokens."
            )
        self.spent = Spending(money=config.cost(0, 0))
        self._held_tokens, self._held_money = 0, 0.0
        self._changed = asyncio.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.limit != Limit()

    async def reserve(self, prompt: int, completion: int) -> tuple[int, int]:
        """Put aside what a question may cost at most, waiting for others under way if need be; give the result to :meth:`settle`.

        Raises:
            BudgetError: it does not fit and nothing is under way.
        """
        money = self.config.cost(prompt, completion) or 0.0
        async with self._changed:
            while not self._fits(prompt + completion, money):
                if self._held_tokens == 0:
                    raise BudgetError(
                        f"The budget ({self._words()}) is used up: {self.spent.tokens:,} tokens"
                        f"{self._money_words()} are spent, and the next question may take {prompt + completion:,} tokens.",
                        hint="What was made is kept. Run the same command with a larger budget; it goes on from there.",
                    )
                await self._changed.wait()
            self._held_tokens += prompt + completion
            self._held_money += money
        return prompt, completion

    async def settle(self, held: tuple[int, int], usage: Usage | None, *, uncertain: bool = False) -> None:
        """Give back what was put aside and count what was spent.

        Args:
            held: of :meth:`reserve`.
            usage: tokens of the answer; None where none came.
            uncertain: no answer came, but the endpoint may have worked: count the bound.
        """
        async with self._changed:
            self._held_tokens -= sum(held)
            self._held_money -= self.config.cost(*held) or 0.0
            if self._held_tokens == 0:
                self._held_money = 0.0  # no rounding is left over
            if usage is not None:
                self.spent.calls += 1
                self.spent.usage = self.spent.usage + usage
            if uncertain:
                self.spent.uncertain += sum(held)
            if self.spent.money is not None:
                charged = (usage.prompt, usage.completion) if usage is not None else (held if uncertain else (0, 0))
                self.spent.money += self.config.cost(*charged) or 0.0
            self._changed.notify_all()

    def _fits(self, tokens: int, money: float) -> bool:
        if self.limit.tokens is not None and self.spent.tokens + self._held_tokens + tokens > self.limit.tokens:
            return False
        return (
            self.limit.money is None or (self.spent.money or 0.0) + self._held_money + money <= self.limit.money + 1e-12
        )

    def _words(self) -> str:
        if self.limit.money is not None:
            return f"{self.limit.money:g} in money"
        return f"{self.limit.tokens:,} tokens"

    def _money_words(self) -> str:
        return f" ({self.spent.money:.4f} in money)" if self.spent.money is not None else ""
