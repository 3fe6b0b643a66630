"""The audit: does its chain hold, as far as there is time to read it?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kandev_host.cli.checks import LOOK_TIMEOUT_S, Check
from kandev_host.errors import KandevError, StartupError

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

VERIFY = "kandev-host audit verify"
READ_S = LOOK_TIMEOUT_S - 2


async def audit(loaded: Loaded) -> Check:
    """Of the host that runs, else of the data folder, which nobody else may have open then."""
    from kandev_host.audit.key import KEY_FILE
    from kandev_host.audit.verify import NOT_REACHED
    from kandev_host.cli.audit import keys_of, of_host
    from kandev_host.cli.keeping import origin_of
    from kandev_host.client import ClientError

    why = "who did what can be shown only as long as nobody could change it"
    try:
        if origin_of(loaded).upkeep.size_bytes() is None and not (loaded.data_dir / KEY_FILE).exists():
            return Check("audit", "ok", "none yet: the first start begins it")
        verdict = await of_host(loaded, keys_of(loaded), within_s=READ_S)
    except ClientError as error:
        if error.code in ("FORBIDDEN", "UNAUTHORIZED"):
            return Check("audit", "ok", "not looked at: it is for administrators")
        return Check("audit", "warning", str(error), _fix(error.details), why)
    except KandevError as error:
        return Check("audit", "warning", str(error), _fix(error.details), why)
    except StartupError as error:
        return Check("audit", "warning", str(error), "what it says; then kandev-host audit verify", why)
    except Exception as error:  # the doctor says what is wrong; it is never the one that fails
        return Check("audit", "warning", str(error) or repr(error), VERIFY, why)
    if verdict.problem is not None:
        fix = "kandev-host audit verify; docs/audit.md says what each finding means, and what to do"
        return Check("audit", "failed", f"row {verdict.problem.seq} is bad: {verdict.problem.why}", fix, why)
    if verdict.head == NOT_REACHED:
        told = f"{verdict.rows} rows read within {READ_S:g} s, all in order; kandev-host audit verify reads all of it"
        return Check("audit", "ok", told)
    return Check("audit", "ok", f"{verdict.rows} rows, all in order")


def _fix(details: Mapping[str, Any]) -> str:
    """That which the error brings with it."""
    return str(details.get("fix") or VERIFY)


def looked_at(loaded: Loaded) -> list[Check]:
    """The check, if the audit is one of this machine."""
    import anyio

    return [] if "KANDEV_URL" in os.environ else [anyio.run(audit, loaded)]
