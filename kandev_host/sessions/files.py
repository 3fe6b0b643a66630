"""fs/read_text_file and fs/write_text_file, served inside a new jail of the agent's workspace.

ACP: File System. Only for agent types that are offered files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from msgspec import Meta, Raw

from kandev_host.errors import KandevError
from kandev_host.interfaces import ProcessSpec, Result, Runtime
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.acp import Camel, Json
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.inside import beside, check_path, invalid, params_of

FILE_BYTES = 8 << 20
TIMEOUT_S = 10.0
MISSING, IRREGULAR, OUTSIDE = 44, 45, 46
COUNT_LIMIT = 1 << 31

# Links are followed where they lead inside the folders of agents. What is swapped between check and use is still the
# jail's own: a pipe without a writer ends at the deadline, a device at the bound.
_CHECK = f"""
real=$(readlink -m -- "$1") || exit {OUTSIDE}
case $real in /workspace/*|/home/agent/*|/tmp/*|/directories/*/*) ;; *) exit {OUTSIDE};; esac
"""
READ = f"""{_CHECK}
[ -e "$real" ] || exit {MISSING}
[ -f "$real" ] || exit {IRREGULAR}
exec < "$real" || exit 1
[ "$2" = 1 ] && [ "$3" = all ] && exec head -c {FILE_BYTES + 1}
if [ "$3" = all ]; then tail -n "+$2" | head -c {FILE_BYTES + 1}
else tail -n "+$2" | head -n "$3" | head -c {FILE_BYTES + 1}; fi
"""
WRITE = f"""{_CHECK}
[ ! -e "$real" ] || [ -f "$real" ] || exit {IRREGULAR}
mkdir -p -- "$(dirname -- "$real")" || exit 1
exec cat > "$real"
"""

Count = Annotated[int, Meta(ge=0, lt=COUNT_LIMIT)]


class ReadFile(Camel):
    """`line` counts from 1, `limit` lines."""

    path: str
    line: Count | None = None
    limit: Count | None = None


class WriteFile(Camel):
    path: str
    content: str


class AgentFiles:
    """`session_id` says which session is open, `may_write` whether the run may write now."""

    def __init__(
        self, runtime: Runtime, spec: ProcessSpec, session_id: Callable[[], str | None], may_write: Callable[[], bool]
    ) -> None:
        self._runtime = runtime
        self._spec = spec
        self._session_id = session_id
        self._may_write = may_write
        self.serve: Mapping[str, Any] = {"fs/read_text_file": self.read, "fs/write_text_file": self.write}

    async def read(self, params: Raw) -> Json:
        """The text of a regular file, or some lines of it. Raises `RpcError`."""
        wanted = params_of(params, ReadFile, self._session_id())
        path = check_path(wanted.path)
        lines = "all" if wanted.limit is None else str(wanted.limit)
        result = await self._run(READ, path, str(max(1, wanted.line or 1)), lines)
        self._check(result, path)
        if result.truncated or len(result.stdout) > FILE_BYTES:
            raise invalid(f"{path} has more than {FILE_BYTES} bytes: read some lines of it")
        try:
            return {"content": result.stdout.decode()}
        except UnicodeDecodeError:
            raise invalid(f"{path} is no text in UTF-8") from None

    async def write(self, params: Raw) -> Json:
        """Write a file, made with its folders if it is not there. Raises `RpcError`."""
        wanted = params_of(params, WriteFile, self._session_id())
        path = check_path(wanted.path)
        if not self._may_write():
            raise invalid("this run may read only")
        content = wanted.content.encode()
        if len(content) > FILE_BYTES:
            raise invalid(f"the content has more than {FILE_BYTES} bytes")
        self._check(await self._run(WRITE, path, stdin=content), path)
        return {}

    async def _run(self, script: str, *arguments: str, stdin: bytes = b"") -> Result:
        spec = beside(self._spec, ("sh", "-c", script, "sh", *arguments), cwd="/")
        try:
            return await self._runtime.run(spec, stdin=stdin, timeout_s=TIMEOUT_S, max_output_bytes=FILE_BYTES + 1)
        except KandevError as error:
            raise RpcError(jsonrpc.INTERNAL_ERROR, f"The file could not be reached: {error.message}") from error

    def _check(self, result: Result, path: str) -> None:
        match result.exit_code:
            case 0:
                return
            case code if code == MISSING:
                raise RpcError(jsonrpc.NOT_FOUND, f"Resource not found: {path}", {"uri": path})
            case code if code == IRREGULAR:
                raise invalid(f"{path} is no regular file")
            case code if code == OUTSIDE:
                raise invalid(f"{path} leads out of the folders of agents")
        said = result.stderr[:500].decode(errors="replace").strip()
        raise RpcError(jsonrpc.INTERNAL_ERROR, f"{path}: {said or 'it cannot be used'}")
