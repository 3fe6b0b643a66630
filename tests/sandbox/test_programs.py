"""Programs as users have them: found, narrowed down to the trees they need, and really started in the jail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import ProgramMissing, ProgramNotFound, ProgramRefused, resolve
from kandev_sandbox.programs import Program

NODE = shutil.which("node", path="/usr/bin")
UV = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
needs_node = pytest.mark.skipif(NODE is None, reason="needs /usr/bin/node (apt-get install nodejs)")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that the jail's uid cannot enter."""
    folder = tmp_path / "user"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    return folder


async def start(sandbox: Any, program: Program) -> Any:
    return await sandbox.run(*program.argv, binds=program.binds, path=program.path_entries)


def test_a_program_of_the_system_needs_nothing() -> None:
    assert resolve("sh", "-c", "true", search="/usr/bin") == Program(("/usr/bin/sh", "-c", "true"), (), ())


def test_a_missing_program_is_named_with_the_fix() -> None:
    with pytest.raises(ProgramMissing, match="no-such-agent is not on the PATH") as caught:
        resolve("no-such-agent")
    assert caught.value.fix == "install no-such-agent, or name its path"


def test_a_script_that_nobody_may_run_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "my agent.sh"
    with pytest.raises(ProgramNotFound, match="There is no file"):
        resolve(str(path))
    path.write_text("#!/bin/sh\n")
    with pytest.raises(ProgramMissing, match="is no executable file") as caught:
        resolve(str(path))
    assert not isinstance(caught.value, ProgramNotFound)  # its installation would help nobody
    subprocess.run(["sh", "-c", caught.value.fix], check=True)
    assert resolve(str(path)).argv == (str(path),)


@pytest.mark.anyio
async def test_a_venv_under_a_closed_home_starts(sandbox: Any, home: Path) -> None:
    venv.create(home / "venv", symlinks=True)
    program = resolve(str(home / "venv" / "bin" / "python"), "-c", "import sys, json; print(sys.prefix)")
    assert (await start(sandbox, program)).out.strip() == str(home / "venv")


@pytest.mark.anyio
async def test_a_pipx_link_leads_to_its_venv(sandbox: Any, home: Path) -> None:
    folder = home / ".local/share/pipx/venvs/tool"
    venv.create(folder, symlinks=True)
    script(folder / "bin/tool", f"#!{folder}/bin/python\nprint('from pipx')\n")
    (home / ".local/bin").mkdir()
    (home / ".local/bin/tool").symlink_to(folder / "bin/tool")
    program = resolve("tool", search=str(home / ".local/bin"))
    assert folder in program.trees
    assert (await start(sandbox, program)).out == "from pipx\n"


@pytest.mark.anyio
async def test_the_long_form_of_a_shebang_is_followed(sandbox: Any, home: Path) -> None:
    folder = home / "a venv"
    venv.create(folder, symlinks=True)
    text = f"#!/bin/sh\n'''exec' \"{folder}/bin/python\" \"$0\" \"$@\"\n' '''\nprint('long')\n"
    program = resolve(str(script(home / "bin" / "tool", text)))
    assert (await start(sandbox, program)).out == "long\n"


@pytest.mark.anyio
@pytest.mark.skipif(UV is None, reason="needs uv (pip install uv)")
async def test_a_venv_of_uv_starts(sandbox: Any, home: Path) -> None:
    assert UV is not None
    subprocess.run([UV, "venv", "-q", "--offline", "--python", sys.executable, home / "v"], check=True)
    program = resolve(str(home / "v/bin/python"), "-c", "print('uv')")
    assert (await start(sandbox, program)).out == "uv\n"


@pytest.mark.anyio
async def test_a_python_behind_a_linked_folder_starts(sandbox: Any, home: Path) -> None:
    """uv's `cpython-3.11-linux` is a link to `cpython-3.11.9-linux`, and a venv names the link."""
    base = Path(os.path.realpath(sys.executable)).parents[1]  # noqa: ASYNC240
    if base == Path("/usr"):
        pytest.skip("needs a Python of its own prefix (pyenv, uv) to link to")
    (home / "cpython").symlink_to(base)
    (home / "v/bin").mkdir(parents=True)
    (home / "v/bin/python").symlink_to(home / "cpython/bin/python3")
    (home / "v/pyvenv.cfg").write_text(f"home = {home}/cpython/bin\n")
    program = resolve(str(home / "v/bin/python"), "-c", "print('linked')")
    assert (await start(sandbox, program)).out == "linked\n"


@needs_node
@pytest.mark.anyio
async def test_a_linked_bin_of_npm_starts(sandbox: Any, home: Path) -> None:
    modules = home / "agent/node_modules"
    script(modules / "pkg/cli.js", "#!/usr/bin/env node\nconsole.log(require('dep'))\n")
    script(modules / "dep/index.js", "module.exports = 'from npm'\n")
    (modules / ".bin").mkdir()
    (modules / ".bin/agent").symlink_to("../pkg/cli.js")
    program = resolve(str(modules / ".bin/agent"))
    assert program.trees == (modules,)
    assert (await start(sandbox, program)).out == "from npm\n"


@needs_node
@pytest.mark.anyio
async def test_a_global_bin_of_nvm_comes_with_its_own_node(sandbox: Any, home: Path) -> None:
    assert NODE is not None
    prefix = home / ".nvm/versions/node/v20"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "include/node").mkdir(parents=True)
    shutil.copy(os.path.realpath(NODE), prefix / "bin/node")  # noqa: ASYNC240
    script(prefix / "lib/node_modules/pkg/cli.js", "#!/usr/bin/env node\nconsole.log(process.execPath)\n")
    (prefix / "bin/agent").symlink_to("../lib/node_modules/pkg/cli.js")
    program = resolve("agent", search=f"{prefix}/bin")
    assert program.trees == (prefix,)
    assert (await start(sandbox, program)).out.strip() == f"{prefix}/bin/node"


@pytest.mark.anyio
@needs_node
async def test_a_global_bin_named_by_its_path_finds_the_node_beside_it(sandbox: Any, home: Path) -> None:
    """As for a host that was started without nvm's lines of the shell."""
    prefix = home / ".nvm/versions/node/v20"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(str(NODE), prefix / "bin" / "node")
    (prefix / "include/node").mkdir(parents=True)
    script(prefix / "lib/node_modules/pkg/cli.js", "#!/usr/bin/env node\nconsole.log(process.execPath)\n")
    (prefix / "bin/tool").symlink_to("../lib/node_modules/pkg/cli.js")
    program = resolve(str(prefix / "bin/tool"), search="/nowhere")
    assert (await start(sandbox, program)).out.strip() == str(prefix / "bin/node")


@pytest.mark.anyio
async def test_a_lone_binary_is_bound_alone(sandbox: Any, home: Path) -> None:
    (home / ".local/share/agent").mkdir(parents=True)
    shutil.copy("/usr/bin/true", home / ".local/share/agent/1.0.3")
    (home / ".local/bin").mkdir()
    (home / ".local/bin/agent").symlink_to(home / ".local/share/agent/1.0.3")
    program = resolve("agent", search=f"{home}/.local/bin")
    assert program.trees == (home / ".local/share/agent/1.0.3",)
    assert (await start(sandbox, program)).code == 0


def test_a_whole_home_is_never_bound(home: Path) -> None:
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text("home = /usr/bin\n")
    with pytest.raises(ProgramRefused, match="holds the whole home"):
        resolve(str(script(home / "bin/tool", "#!/bin/sh\n")))


def test_a_script_of_pip_user_is_refused_with_the_fix(home: Path) -> None:
    (home / ".local/lib/python3.11/site-packages").mkdir(parents=True)
    with pytest.raises(ProgramRefused, match="pip --user") as caught:
        resolve(str(script(home / ".local/bin/tool", "#!/usr/bin/python3\n")))
    assert "pipx" in str(caught.value.fix)


def test_a_shim_of_pyenv_leads_to_the_chosen_version(home: Path) -> None:
    root = home / ".pyenv"
    real = script(root / "versions/3.11.7/bin/tool", "#!/bin/sh\n")
    (root / "version").write_text("3.11.7\n")
    script(root / "shims/tool", "#!/bin/sh\nexec pyenv exec tool\n")
    assert resolve("tool", search=f"{root}/shims").argv == (str(real),)


def test_a_shim_of_mise_is_refused_with_the_fix(home: Path) -> None:
    script(home / "bin/mise", "#!/bin/sh\n")
    (home / "shims").mkdir()
    (home / "shims/agent").symlink_to(home / "bin/mise")
    with pytest.raises(ProgramRefused) as caught:
        resolve("agent", search=f"{home}/shims")
    assert "mise which" in str(caught.value.fix)


def test_a_dangling_link_is_missing(home: Path) -> None:
    (home / "v/bin").mkdir(parents=True)
    (home / "v/pyvenv.cfg").write_text("home = /usr/bin\n")
    (home / "v/bin/python").symlink_to("/nowhere/python")
    with pytest.raises(ProgramMissing):
        resolve(str(home / "v/bin/python"))


def test_a_missing_interpreter_names_the_script(home: Path) -> None:
    with pytest.raises(ProgramMissing, match="tool needs no-such-interpreter"):
        resolve(str(script(home / "bin/tool", "#!/usr/bin/env no-such-interpreter\n")))
