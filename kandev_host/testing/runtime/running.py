"""What every runtime must do with a short command."""

from __future__ import annotations

import pytest

from kandev_host import ProcessSpec, Runtime, errors
from kandev_host.testing.runtime.base import LOCK, MIB, RuntimeSuite, confined, is_held, sh


@pytest.mark.anyio
class RunContract(RuntimeSuite):
    """The tests. They use only what `Runtime.run`, `probe` and `locate` promise."""

    async def test_it_says_that_it_works(self, runtime: Runtime) -> None:
        assert (await runtime.probe()).ok

    async def test_it_says_whether_it_confines(self, runtime: Runtime) -> None:
        assert runtime.confines is self.confines

    async def test_a_command_is_located(self, runtime: Runtime) -> None:
        assert (await runtime.locate("sh")).ok

    async def test_a_command_that_is_missing_is_located_nowhere(self, runtime: Runtime) -> None:
        found = await runtime.locate("no-such-agent")
        assert not found.ok
        assert found.reason
        assert found.fix

    async def test_run_answers_exit_code_and_both_outputs(self, runtime: Runtime) -> None:
        result = await runtime.run(sh("cat; echo err >&2; exit 3"), stdin=b"in")
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"in", b"err\n")
        assert not result.truncated

    async def test_run_ends_stdin(self, runtime: Runtime) -> None:
        assert (await runtime.run(sh("cat"))).stdout == b""

    async def test_a_command_need_not_read_its_stdin(self, runtime: Runtime) -> None:
        assert (await runtime.run(sh("exit 6"), stdin=b"x" * MIB)).exit_code == 6

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    async def test_output_beyond_the_bound_is_dropped_and_said_so(self, runtime: Runtime, stream: str) -> None:
        script = "head -c 300000 /dev/zero" + (" >&2" if stream == "stderr" else "")
        result = await runtime.run(sh(script), max_output_bytes=1000)
        assert (result.exit_code, len(getattr(result, stream)), result.truncated) == (0, 1000, True)

    async def test_output_up_to_the_bound_is_whole(self, runtime: Runtime) -> None:
        result = await runtime.run(sh("head -c 1000 /dev/zero"), max_output_bytes=1000)
        assert (len(result.stdout), result.truncated) == (1000, False)

    async def test_run_ends_at_its_deadline(self, runtime: Runtime) -> None:
        with pytest.raises(errors.TimedOut):
            await runtime.run(sh("sleep 600"), timeout_s=0.2)
        assert await runtime.list_owned() == []

    async def test_what_timed_out_has_an_end(self, runtime: Runtime) -> None:
        with pytest.raises(errors.TimedOut):
            await runtime.run(sh(f"exec 9>lock; {LOCK}; exec sleep 600"), timeout_s=2)
        assert not await is_held(runtime)

    async def test_a_place_that_was_never_prepared_is_not_found(self, runtime: Runtime) -> None:
        with pytest.raises(errors.NotFound):
            await runtime.run(ProcessSpec(workspace_id="w9", command=("true",)))

    @confined
    async def test_an_allow_entry_that_is_none_is_refused(self, runtime: Runtime) -> None:
        with pytest.raises(errors.ValidationFailed):
            runtime.check_allow(["not a name!"])
