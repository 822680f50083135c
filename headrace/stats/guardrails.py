"""Evidence that something goes wrong too often, valid however often and whenever one looks.

For whatever happens or not to a request: errors, timeouts, slow answers, abstentions. Two questions, each one-sided:
is its rate above a limit, and is it higher than in a slice of the control that runs at the same time? Both are coins of
headrace.stats.beta_mixture, so the counts are the whole state: those of processes are added.

Each request must have been free to go either way. Where a user's requests all meet the same arm and fail or succeed
together, count users.
"""

from headrace.stats import beta_mixture

LIMIT_PRIOR = {"a": 0.5, "b": 1.0}
"""Of the rate above a limit. Most of what goes wrong is a few times the limit, so low rates weigh more than with a = 1:
a true rate of 5 % against 1 % is found after 11.2 events on average and not 12.3, one of 2 % after 46 and not 50."""


def log_e_above(n_events: int, n: int, limit: float) -> float:
    """Log E against "the rate is at most `limit`"; at alpha = .001, 2 errors in 2 answers pass a limit of 1 %.

    Raises:
        ValueError: the limit is not within (0, 1), or the counts are not 0 <= n_events <= n.
    """
    return float(beta_mixture.log_es(n_events, n, limit, **LIMIT_PRIOR))


def log_e_worse(events_candidate: int, events_baseline: int, share: float = 0.5) -> float:
    """Log E against "the candidate's rate is at most the baseline's".

    Given that an event happened to one of the two, its arm is the candidate with probability at most `share` if so,
    whatever the rate and however it drifts. (Przyborowski and Wilenski 1940, the conditional test of two rates.)

    Args:
        share: the candidate's part of the requests of both arms, set by their weights and not counted. Where it
            changes, as between stages of different weights, add the log E of the stages.

    Raises:
        ValueError: the share is not within (0, 1), or a count is negative.
    """
    return float(beta_mixture.log_es(events_candidate, events_candidate + events_baseline, share))
