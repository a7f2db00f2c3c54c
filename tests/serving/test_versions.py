"""Versions that come and go in a folder, over files in the place of models."""

import asyncio

import pytest

from kresnets.serving.errors import Refusal
from kresnets.serving.servable import Servable
from kresnets.serving.versions import Versions

pytestmark = pytest.mark.anyio


class Loaded:
    """What stands for a loaded version: the text of its file."""

    def __init__(self, path):
        self.text, self.closed = (path / "saved_model.pb").read_text(), False
        if "bad" in self.text:
            raise ValueError(f"version {path.name} cannot be served ({self.text})")

    def close(self):
        self.closed = True


class Watch(Versions):
    """`Versions` over a folder, with a list of all that it said."""

    def __init__(self, folder, **policy):
        self.said = []
        super().__init__("net", folder, Loaded, **policy, tell=self.said.append)

    def write(self, number, text=None):
        path = self.folder / str(number)
        path.mkdir(parents=True, exist_ok=True)
        (path / "saved_model.pb").write_text(text or f"version {number}")
        return path

    async def look(self, *numbers, first=False):
        """Write versions, and look once or, as later, until a change counts."""
        for number in numbers:
            self.write(number)
        for _ in range(1 if first else 3):
            await self.poll(first)

    def current(self, **which):
        with self.use(**which) as servable:
            return servable.text


@pytest.fixture
def watch(tmp_path):
    return Watch(tmp_path / "net")


async def test_the_highest_version_is_served_and_numbers_are_numbers(watch):
    watch.write(11).joinpath("saved_model.pb").rename(watch.folder / "11" / "saved_model.pb.part")
    await watch.look("9", "10", ".tmp-x", "010", "1e3", "-3", "backup", "٣", str(2**64), first=True)
    assert watch.available == [10] and watch.current() == "version 10"
    assert watch.said == ["net: version 10 is served"]


async def test_a_new_version_takes_over_the_old_stays_for_those_who_use_it_and_comes_back(watch):
    await watch.look(1, first=True)
    with watch.use() as old:
        await watch.look(2)
        assert watch.current() == "version 2" and not old.closed
        with pytest.raises(Refusal, match=r"Specific\(net, 1\)"):
            watch.current(number=1)
    assert [(each["version"], each["state"]) for each in watch.status()] == [("2", "AVAILABLE"), ("1", "END")]
    with watch.use() as new:
        (watch.folder / "2" / "saved_model.pb").unlink()
        await watch.look()
    assert watch.current() == "version 1" and watch.available == [1]
    async with asyncio.timeout(60):
        while not (old.closed and new.closed):
            await asyncio.sleep(0.01)


async def test_a_version_that_grows_is_left_alone_until_it_rests(watch):
    await watch.look(1, first=True)
    path = watch.write(2, "half")
    for part in range(3):  # as `cp -r` would, too slowly for the looks
        await watch.poll()
        assert watch.current() == "version 1"
        (path / f"variables-{part}").write_text("...")
    await watch.look()
    assert watch.current() == "half" and len(watch.said) == 2


async def test_a_version_that_fails_is_told_once_and_tried_again_when_it_changes(watch):
    watch.write(3, "bad")
    await watch.look(1, 2, first=True)
    await watch.look()
    assert watch.current() == "version 2"
    reason = watch.status(3)[0]["status"]["error_message"]
    assert reason == "version 3 cannot be served (bad)"
    assert watch.said == [f"net: {reason}; there is nothing to serve yet", "net: version 2 is served"]
    watch.write(3, "mended")
    await watch.look()
    assert watch.current() == "mended"


async def test_the_last_version_outlives_its_folder(watch):
    await watch.look(1, first=True)
    (watch.folder / "1" / "saved_model.pb").unlink()
    await watch.look()
    (watch.folder / "1").rmdir()
    watch.folder.rmdir()
    await watch.look()
    assert watch.current() == "version 1" and len(watch.said) == 3
    assert all("version 1 goes on being served" in sentence for sentence in watch.said[1:])
    watch.write(1, "again")
    await watch.look()
    assert watch.current() == "again"


async def test_several_versions_and_labels(tmp_path):
    watch = Watch(tmp_path, newest=2, labels={"stable": 2, "lost": 9})
    await watch.look(0, 1, 2, 3, 4, 5, first=True)
    found = watch.current(), watch.current(number=4), watch.current(label="stable")
    assert watch.available == [5, 4, 2] and found == ("version 5", "version 4", "version 2")
    for which, status in (({"label": "other"}, 400), ({"label": "lost"}, 404), ({"number": 3}, 404)):
        with pytest.raises(Refusal) as refusal:
            watch.current(**which)
        assert refusal.value.status == status
    watch = Watch(tmp_path, only=[0])
    await watch.look(7, first=True)
    await watch.look()
    assert watch.available == [0] and watch.current(number=0) == "version 0"


async def test_an_empty_folder_is_told_and_waited_for(watch):
    watch.folder.mkdir()
    await watch.look(first=True)
    await watch.look()
    assert watch.said == [f"{watch.folder} holds no version that can be served; there is nothing to serve yet"]
    for ask, sentence in (
        (watch.current, r"Latest\(net\)"),
        (watch.status, "Could not find any versions of model net"),
    ):
        with pytest.raises(Refusal, match=sentence):
            ask()
    await watch.look(1)
    assert watch.current() == "version 1"


async def test_what_is_no_saved_model_cannot_be_served(watch):
    with pytest.raises(ValueError, match="version 1 cannot be served"):
        Servable(watch.write(1, "no graph"))
