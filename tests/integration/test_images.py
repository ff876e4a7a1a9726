"""Images: what becomes of an archive, honest or not, and programs that run in one."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.client import AsyncSandboxClient
from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError
from perilune.local.short_lived import own_sandbox
from services.sandbox.config import JailSettings
from services.sandbox.images.store import ImageStore
from services.sandbox.jail.levels import open_pool
from services.sandbox.job import Image, Job, Limits, Verdict
from tests.integration.archives import docker_archive, entry, layer, oci_archive, program, text
from tests.integration.jails import interpreter

LEVEL = "namespaces" if os.getuid() == 0 else "user-namespaces"
SHELL = layer(
    *program("/bin/bash", "/usr/local/bin/bash"),
    *program("/bin/cat"),
    *program("/bin/ls"),
    text("etc/passwd", "the image's own"),
    text("srv/lower.txt", "from the image"),
    (entry("var/open", tarfile.DIRTYPE, mode=0o1777), b""),
    (entry("bin/su", mode=0o4755), b"#!/bin/true"),
)
ENVIRONMENT = ["PATH=/usr/local/bin:/bin", "COLOUR=blue"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture(scope="module")
def images() -> Iterator[ImageStore]:
    """A folder that every uid may come to, with an image that has a shell."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        store = ImageStore(Path(name) / "images:of, the tests")  # what mount options are separated by
        store.add("shell:1", docker_archive(Path(name) / "shell.tar", [SHELL], ENVIRONMENT))
        yield store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(images: ImageStore) -> AsyncIterator[AsyncSandboxClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERILUNE_SANDBOX_IMAGES", str(images.folder))
        async with own_sandbox(num_slots=2) as address, AsyncSandboxClient(address) as client:
            yield client


# --- Archives -----------------------------------------------------------------------------------------------------


def tree(image: Image) -> dict[str, str]:
    """What lies in an image: contents of files, and where links lead."""
    found = {}
    for path in sorted(image.root.rglob("*")):
        name = str(path.relative_to(image.root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


async def test_layers_are_laid_upon_one_another(store: ImageStore, tmp_path: Path) -> None:
    lower = layer(
        text("keep/a", "a"),
        text("keep/b", "b"),
        text("gone/deep/c", "c"),
        text("opaque/old", "old"),
        (entry("lib", tarfile.SYMTYPE, link="usr/lib"), b""),
        (entry("usr/lib", tarfile.DIRTYPE, mode=0o755), b""),
        text("turns/into", "a folder that becomes a file"),
    )
    upper = layer(
        text("keep/.wh.b", ""),
        text("./.wh.gone", ""),
        text("opaque/new", "new"),
        text("opaque/.wh..wh..opq", ""),
        text("lib/through.so", "through a link of the lower layer"),
        (entry("hard", tarfile.LNKTYPE, link="keep/a"), b""),
        text("turns", "a file"),
    )
    expected = {
        "keep/a": "a",
        "hard": "a",
        "opaque/new": "new",
        "lib": "-> usr/lib",
        "usr/lib/through.so": "through a link of the lower layer",
        "turns": "a file",
    }
    for write in (docker_archive, oci_archive):
        image = store.add(write.__name__, write(tmp_path / "a.tar", [lower, upper], ["A=1", "B=x=y"]))
        assert tree(image) == expected
        assert image.environment == {"A": "1", "B": "x=y"}
    folder = tmp_path / "layout"
    with tarfile.open(tmp_path / "a.tar") as tar:
        tar.extractall(folder, filter="data")
    assert tree(store.add("folder", folder)) == expected
    assert [image.name for image in store.list()] == ["docker_archive", "folder", "oci_archive"]


async def test_no_entry_reaches_beyond_the_image_or_brings_rights(store: ImageStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = layer(
        (entry("up", tarfile.SYMTYPE, link="../../../../../../.."), b""),
        (entry("away", tarfile.SYMTYPE, link=str(outside)), b""),
        (entry(f"made{outside}", tarfile.DIRTYPE, mode=0o755), b""),
        text("up/in_the_root", "x"),
        (entry("null", tarfile.CHRTYPE), b""),
        (entry("pipe", tarfile.FIFOTYPE), b""),
        (entry("root_shell", mode=0o6755), b"#!"),
        (entry("/absolute", mode=0o666), b"x"),
        text("file", "first"),
        (entry("file", tarfile.SYMTYPE, link=str(outside / "file")), b""),
        text("file", "written over the link, and not through it"),
    )
    image = store.add("hostile", docker_archive(tmp_path / "a.tar", [hostile]))
    assert not list(outside.iterdir())
    found = {
        str(path.relative_to(image.root)) for path in image.root.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    assert found == {"in_the_root", "root_shell", "absolute", "file", "up", "away"}
    assert not (image.root / "root_shell").stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
    assert (image.root / "file").read_text().startswith("written over")
    through = layer((entry("away", tarfile.SYMTYPE, link=str(outside)), b""), text("away/file", "x"))
    with pytest.raises(InvalidInputError, match="'away/file' cannot be unpacked"):
        store.add("through", docker_archive(tmp_path / "a.tar", [through]))
    hard = layer((entry("link", tarfile.LNKTYPE, link="../../../../../../etc/passwd"), b""))
    for bad in (hard, layer(text("a/../../b", "x"))):
        with pytest.raises(InvalidInputError, match="leads out of the image"):
            store.add("bad", docker_archive(tmp_path / "a.tar", [bad]))
    assert not list(outside.iterdir())


async def test_an_archive_that_is_not_whole_is_refused_and_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    good = oci_archive(tmp_path / "good.tar", [layer(text("a", "a" * 5000))])
    data = good.read_bytes()
    bad = tmp_path / "bad.tar"
    refused = 0
    for at in range(512, len(data), 512):  # a bit of each block in turn
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            store.add("bad", bad)
        except InvalidInputError:
            refused += 1
        else:  # the bit was of no matter: of padding, or of a header's date
            assert tree(store.list()[0]) == {"a": "a" * 5000}
            store.remove("bad")
    assert refused > 5
    for size in (0, 700, 2048):
        bad.write_bytes(data[:size])
        with pytest.raises(InvalidInputError):
            store.add("bad", bad)
    assert store.list() == []
    assert not list(store.folder.iterdir())


async def test_what_cannot_be_added_is_said_with_what_to_do(store: ImageStore, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", [layer(text("a", "a"))])
    store.add("a", archive)
    with pytest.raises(AlreadyExistsError, match="perilune image remove a"):
        store.add("a", archive)
    with pytest.raises(InvalidInputError, match="no name for an image"):
        store.add("../a", archive)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        store.add("b", tmp_path / "missing.tar")
    (tmp_path / "no.tar").write_text("no archive")
    with pytest.raises(InvalidInputError, match="docker save"):
        store.add("b", tmp_path / "no.tar")
    (tmp_path / "export.tar").write_bytes(layer(text("etc/passwd", "")))
    with pytest.raises(InvalidInputError, match="docker export"):
        store.add("b", tmp_path / "export.tar")
    with pytest.raises(InvalidInputError, match="the image is for linux on s390x"):
        store.add("b", docker_archive(tmp_path / "a.tar", [layer(text("a", "a"))], architecture="s390x"))
    with pytest.raises(NotFoundError, match=r"no image 'b' .*\(there: a\)"):
        store.remove("b")


async def test_an_image_in_use_is_not_removed(store: ImageStore, tmp_path: Path) -> None:
    store.add("a", docker_archive(tmp_path / "a.tar", [layer(text("a", "a"))]))
    with store.use("a"), pytest.raises(StateError, match="using image 'a'"):
        store.remove("a")
    abandoned = store.folder / ".unfinished-of-a-killed-process"
    abandoned.mkdir()
    with (store.folder / ".unfinished-of-another").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
    store.add("b", tmp_path / "a.tar")
    assert not abandoned.exists()
    store.remove("a")
    assert [image.name for image in store.list()] == ["b"]


# --- Programs in them ---------------------------------------------------------------------------------------------


async def test_a_program_runs_in_an_image(sandbox: AsyncSandboxClient) -> None:
    source = """
echo "$COLOUR $PWD $BASH" "$@"
cat /srv/lower.txt data/in.txt && echo
cat; cat /etc/passwd
echo over >/srv/lower.txt; echo more >/var/open/written && cat /var/open/written
ls -d /usr/bin/python3 /root /work
mkdir out 2>/dev/null; echo back >back.txt
"""
    for _ in range(2):  # what was written over the image is gone again
        answer = await sandbox.run(
            "bash",
            source,
            image="shell:1",
            stdin="in\n",
            arguments=["x"],
            files={"data/in.txt": "beside"},
            return_files=["back.txt"],
        )
        said = answer.execution.stdout.content.decode().splitlines()
        assert said[:3] == ["blue /box /usr/local/bin/bash x", "from the imagebeside", "in"], answer
        assert said[3].startswith("root:x:0:0")
        assert said[-1] == "more" if LEVEL == "namespaces" else "Permission denied" in str(answer.execution.stderr)
        assert "No such file or directory" in answer.execution.stderr.content.decode()
        assert answer.execution.files[0].content == b"back\n"


async def test_an_image_is_judged_in_too(sandbox: AsyncSandboxClient) -> None:
    program = api.Program(language="bash", source="read n; echo $((n * n))", image="shell:1")
    tests = [api.TestCase(stdio=api.StdioTest(stdin=b"7", expected_stdout=wanted)) for wanted in (b"49", b"50")]
    answers = [answer async for answer in sandbox.judge(api.JudgeRequest(program=program, cases=tests))]
    verdicts = [answer.result.verdict for answer in answers[:2]]
    assert verdicts == [api.VERDICT_OK, api.VERDICT_WRONG_ANSWER]


async def test_what_there_is_is_listed(sandbox: AsyncSandboxClient) -> None:
    (image,) = await sandbox.images()
    assert (image.name, image.digest[:7], image.num_bytes > 1_000_000) == ("shell:1", "sha256:", True)
    languages = {language.name: language for language in await sandbox.languages("shell:1")}
    assert languages["bash"].version.startswith("GNU bash")
    assert [name for name, language in languages.items() if language.available] == ["bash"]
    assert "there is no ruby in it" in languages["ruby"].reason


async def test_what_is_not_there_is_said_with_what_to_do(sandbox: AsyncSandboxClient) -> None:
    with pytest.raises(InvalidInputError, match=r"no image 'other' .*\(there: shell:1\); add it with `perilune image"):
        await sandbox.run("bash", "", image="other")
    with pytest.raises(InvalidInputError, match=r"no image '\.\./shell:1'"):
        await sandbox.run("bash", "", image="../shell:1")
    with pytest.raises(InvalidInputError, match=r"python is not in image 'shell:1': there is no .*python3 in it"):
        await sandbox.run("python", "", image="shell:1")
    with pytest.raises(InvalidInputError, match="python is not in image 'shell:1'"):
        await sandbox.session(image="shell:1")
    with pytest.raises(InvalidInputError, match="no image 'other'"):
        await sandbox.languages("other")


async def test_limits_hold_in_an_image_and_it_stays_as_it_is(images: ImageStore) -> None:
    pool = await open_pool(JailSettings(levels=LEVEL, num_slots=1, python=interpreter(LEVEL)))
    with images.use("shell:1") as image:

        async def run(script: str, **limits: int) -> Verdict:
            job = Job(["/usr/local/bin/bash", "-c", script], image=image.root, limits=Limits(**limits))
            return (await pool.run(job)).verdict

        fill = "for n in {1..99}; do cat /bin/cat /bin/cat /bin/cat >%s/$n || exit 1; done"
        places = ["/box", "/tmp", "/dev/shm", *(["/var/open"] if LEVEL == "namespaces" else [])]
        for place in places:
            assert await run(fill % place, disk_bytes=1 << 20) is Verdict.DISK_LIMIT, place
        files = await run("for n in {1..99}; do >/tmp/$n || exit 1; done", num_files=50)
        assert files is Verdict.DISK_LIMIT
        processes = await run("for n in {1..99}; do (read </dev/zero &) ; done", num_processes=9)
        assert processes is Verdict.PROCESS_LIMIT
        for name in ("/", "/srv", "/usr/local/bin", "/etc", "/dev", "/proc", "/srv/lower.txt", "/bin/su"):
            shown = "! -w" if LEVEL == "namespaces" or name in ("/srv", "/usr/local/bin") else "-e"
            assert await run(f"[[ {shown} {name} ]]") is Verdict.OK, name
        assert await run("[[ ! -u /bin/su && ! -e /perilune && ! -e /root/.bashrc ]]") is Verdict.OK
        assert list((image.root / "var/open").iterdir()) == []
    await pool.close()


async def test_a_level_without_mounts_has_no_images(images: ImageStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERILUNE_SANDBOX_IMAGES", str(images.folder))
        patch.setenv("PERILUNE_SANDBOX_LEVELS", "rlimits")
        patch.setenv("PERILUNE_SANDBOX_PYTHON", str(interpreter("rlimits")))
        async with own_sandbox() as address, AsyncSandboxClient(address) as client:
            with pytest.raises(InvalidInputError, match=r"cannot be shown under the level 'rlimits'.*namespaces"):
                await client.run("bash", "", image="shell:1")


async def test_the_commands(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", [SHELL], ENVIRONMENT)
    script = tmp_path / "main.sh"
    script.write_text("echo $COLOUR; exit 3")

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        settings = os.environ | {"PERILUNE_SANDBOX_IMAGES": folder}

        def perilune(*arguments: str) -> tuple[int, str]:
            command = [sys.executable, "-m", "perilune", *arguments]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=settings,
                timeout=120,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            return done.returncode, done.stdout or done.stderr

        assert perilune("image", "add", "shell", str(archive))[0] == 0
        assert json.loads(perilune("image", "list", "--json")[1])[0]["name"] == "shell"
        assert perilune("exec", "--image", "shell", str(script)) == (3, "blue\n")
        assert perilune("image", "remove", "shell")[0] == 0
        status, said = perilune("image", "remove", "shell")
        assert (status, "(there: none)" in said) == (1, True)
