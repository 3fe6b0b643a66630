"""When a failed run is tried again, and when not (reliability: P7). Pure: chance is handed in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kandev_host.models import Failure
from kandev_host.services.orchestration.clock import LONGEST_S
from kandev_host.settings import OrchestratorSettings

# What may have passed by the next attempt. A wrong configuration stays wrong, and a turn that the agent itself calls
# failed or refuses would cost the same tokens for the same answer.
WORTH_ANOTHER: frozenset[Failure] = frozenset({"crash", "unavailable", "rate_limit", "stalled", "host_died"})
# Deaths of the host in a row after which a run counts as their cause.
HOST_DEATHS = 5


class Again(msgspec.Struct, frozen=True):
    """Another run, in `delay_s` seconds. `attempt` is how many count so far, `host_deaths` how many do apart."""

    delay_s: float
    attempt: int
    host_deaths: int = 0


def again(
    settings: OrchestratorSettings,
    failure: Failure | None,
    *,
    attempt: int,
    host_deaths: int = 0,
    lived_s: float = 0.0,
    resets_in_s: float | None = None,
    random: Callable[[], float],
) -> Again | None:
    """What follows the failure of the `attempt`th run (from 1), which lived `lived_s`; None when it is final.

    The ceiling of the wait is `backoff_s`, doubled each time up to `backoff_limit_s`; the wait is anything below it
    (full jitter), so that tasks that failed together do not come back together. It begins when the model service
    says that it works again, `resets_in_s` from now. A run that lived `healthy_s` starts the count anew.

    That its host died is no fault of a run, so it does not count as an attempt, whatever `attempts` says. But a run
    may be what the host dies of: after `host_deaths` before this one, it is final at HOST_DEATHS in a row.
    """
    if failure not in WORTH_ANOTHER:
        return None
    if failure == "host_died":
        failed, limit = host_deaths + 1, HOST_DEATHS
        attempt, host_deaths = uncounted(attempt), failed
    else:
        failed, limit = 1 if lived_s >= settings.healthy_s else attempt, settings.attempts
        attempt, host_deaths = failed, 0
    if failed >= limit:
        return None
    ceiling = min(settings.backoff_limit_s, settings.backoff_s * 2.0 ** min(failed - 1, 62))
    delay_s = random() * ceiling + max(resets_in_s or 0.0, 0.0)
    return Again(min(delay_s, LONGEST_S), attempt, host_deaths)


def uncounted(attempt: int) -> int:
    """The count without the run that it was raised for."""
    return max(attempt - 1, 0)
