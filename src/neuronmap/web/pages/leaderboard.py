"""SAEs of one model and hook side by side."""

from __future__ import annotations

from neuronmap.web.routing import ExplorerOf, PageRouter
from neuronmap.web.views.leaderboard import BoardQueryOf, LeaderboardPage, leaderboard_page

__all__ = ["router"]

router = PageRouter()


@router.page("/leaderboard", "leaderboard.html", nav="home", errors=(422,))
def board(explorer: ExplorerOf, asked: BoardQueryOf) -> LeaderboardPage:
    """Evaluations that may be compared, side by side, and those that were refused."""
    return leaderboard_page(explorer, asked)
