"""What the tests of the studio's page share: a browser, and a studio with the demo's bundle and a walking puppet.

A plugin of pytest's, for the files that name it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from jokr_rt import open_bundle
from jokr_rt.engines import load_engine
from jokr_rt.evaluation.puppets import BROWN, Motion, write_video
from jokr_rt.retarget import Retargeter
from tests.browsers import FRAMES, SIZE, chromium, opened, settle
from tests.studios import PUPPETS, Studio, studio


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The brown puppet. Not to be changed."""
    path = tmp_path_factory.mktemp("walk") / "walk.mp4"
    write_video(path, BROWN, Motion.walk(FRAMES, seed=5), SIZE)
    return path


@pytest.fixture(scope="session")
def puppeteer() -> Retargeter:
    """Draws the blue puppet as the brown one is, in fp32."""
    bundle = open_bundle(PUPPETS)
    return Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


@pytest.fixture(scope="module")
def walking(walk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio whose visitors find the walk opened."""
    with studio(PUPPETS, tmp_path_factory.mktemp("studio") / "tmp", walk, upload_bytes=1 << 20) as it:
        yield it


@pytest.fixture
def page(browser: Browser, walking: Studio) -> Iterator[Page]:
    """A new visitor's, with the walk in it."""
    with opened(browser, walking.address, viewport={"width": 1280, "height": 1000}) as it:
        settle(it)
        yield it
