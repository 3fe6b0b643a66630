"""The token file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kandev_host.errors import StartupError
from kandev_host.gateway.tokens import LocalAuthenticator, TokenFile, load_token, open_local
from kandev_host.interfaces import Credentials, Environment


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def test_the_first_start_makes_a_private_token(tmp_path: Path) -> None:
    token = load_token(tmp_path / "new")
    assert len(token) >= 43
    assert stat.S_IMODE((tmp_path / "new" / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["token"]


def test_the_next_start_finds_the_same_token(data: Path) -> None:
    assert load_token(data) == load_token(data)


def test_two_folders_have_two_tokens(tmp_path: Path) -> None:
    assert load_token(tmp_path / "a") != load_token(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_token_others_may_read_is_refused(data: Path, mode: int) -> None:
    load_token(data)
    (data / "token").chmod(mode)
    with pytest.raises(StartupError, match="Others may read"):
        load_token(data)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o755, 0o777])
def test_a_folder_others_may_enter_is_refused(data: Path, mode: int) -> None:
    data.chmod(mode)
    with pytest.raises(StartupError, match="chmod 700"):
        load_token(data)


def test_a_symbolic_link_is_refused(data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("x" * 43)
    elsewhere.chmod(0o600)
    (data / "token").symlink_to(elsewhere)
    with pytest.raises(StartupError, match="symbolic link"):
        load_token(data)


def test_a_dangling_link_is_refused_and_not_followed(data: Path, tmp_path: Path) -> None:
    (data / "token").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StartupError, match="symbolic link"):
        load_token(data)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("content", ["", "short", "x" * 42, "x y" * 20, "é" * 50])
def test_a_damaged_token_is_refused(data: Path, content: str) -> None:
    (data / "token").write_text(content)
    (data / "token").chmod(0o600)
    with pytest.raises(StartupError, match="holds no token"):
        load_token(data)


def test_a_named_pipe_does_not_hang_the_start(data: Path) -> None:
    os.mkfifo(data / "token", 0o600)
    with pytest.raises(StartupError, match="not a regular file"):
        load_token(data)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_token_of_another_user_is_refused(data: Path) -> None:
    load_token(data)
    os.chown(data / "token", 1, 1)
    with pytest.raises(StartupError, match="belongs to user 1"):
        load_token(data)


@pytest.mark.anyio
async def test_only_the_right_token_is_the_local_user(data: Path) -> None:
    async with open_local(False, Environment(str(data), "0")) as authenticator:
        principal = await authenticator.authenticate(Credentials(load_token(data)))
        assert principal is not None
        assert principal.kind == "user"
        assert principal.may("anything:write")
        for wrong in ("", load_token(data)[:-1], load_token(data) + "x", "\udce9", "é"):
            assert await authenticator.authenticate(Credentials(wrong)) is None


@pytest.mark.anyio
async def test_the_token_is_not_kept_in_the_clear() -> None:
    assert "s3cret" not in repr(vars(LocalAuthenticator("s3cret")))


@pytest.mark.anyio
async def test_what_its_messages_say_to_do_lets_in_again(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a start: the folder or the file made private again, or the file deleted."""
    followed, path = TokenFile(data), data / "token"
    token = Credentials(token=path.read_text().strip())
    for opened, others, private in ((data, 0o755, 0o700), (path, 0o644, 0o600)):
        opened.chmod(others)
        assert await followed.authenticate(token) is None
        assert f"chmod {private:o} {opened}" in caplog.text
        opened.chmod(private)
        assert await followed.authenticate(token) is not None
    assert "delete it, and the host makes a new one when it next needs one" in caplog.text
    path.unlink()
    assert await followed.authenticate(token) is None
    assert await followed.authenticate(Credentials(token=path.read_text().strip())) is not None
