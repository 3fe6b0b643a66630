"""When a failed run is tried again, and when not (reliability: P7). Pure: chance is handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kandev_host.models import Failure
from kandev_host.services.orchestration.clock import LONGEST_S
from kandev_host.settings import OrchestratorSettings

# What may have passed by the next attempt. A wrong configuration stays wrong, and a turn that the agent itself calls
# failed or refuses would cost the same tokens for the same answer.
WORTH_ANOTHER: frozenset[Failure] = frozenset({"crash", "unavailable", "rate_limit", "stalled", "host_died"})


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt, in `delay_s` seconds. `attempt` is how many runs count so far."""

    delay_s: float
    attempt: int


def again(
    settings: OrchestratorSettings,
    failure: Failure | None,
    *,
    attempt: int,
    lived_s: float = 0.0,
    resets_in_s: float | None = None,
    random: Callable[[], float],
) -> Again | None:
    """What follows the failure of the `attempt`th run (from 1), which lived `lived_s`; None when it is final.

    The ceiling of the wait is `backoff_s`, doubled each time up to `backoff_limit_s`; the wait is anything below it
    (full jitter), so that tasks that failed together do not come back together. It begins when the model service
    says that it works again, `resets_in_s` from now. A run that lived `healthy_s` starts the count anew.
    """
    if failure not in WORTH_ANOTHER:
        return None
    counted = 1 if lived_s >= settings.healthy_s else attempt
    if counted >= settings.attempts:
        return None
    ceiling = min(settings.backoff_limit_s, settings.backoff_s * 2.0 ** min(counted - 1, 62))
    delay_s = random() * ceiling + max(resets_in_s or 0.0, 0.0)
    return Again(min(delay_s, LONGEST_S), counted)
