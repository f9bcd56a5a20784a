"""The API for scripts: the documented example, errors, login, a proxy's path."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

from audio_diffusion_pytorch.app.service import example

pytest_plugins = ["page_server"]  # fixtures

MISSING = "Gradio is not installed: pip install -e '.[app]'"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("gradio_client") is None, reason=MISSING),
]


def test_the_documented_example_works(server, tmp_path, monkeypatch):
    from audio_diffusion_pytorch.app.scripts_api import EXAMPLE

    assert EXAMPLE in (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shutil.copy(example("flute"), tmp_path / "my_flute.wav")
    space: dict = {}
    exec(compile(EXAMPLE.replace("http://127.0.0.1:7860/", server.url), "example", "exec"), space)
    assert Path(space["file"]).name == "my_flute_as_violin.wav"
    assert space["facts"]["sigma"] == 4 and space["facts"]["sounds_like"] == "flute"
    assert not list(server.temporary.rglob("visitors/*/*/input"))  # the uploads are deleted


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"target": "vilin"}, "unknown instrument 'vilin': did you mean violin?"),
        ({"target": "/etc/passwd"}, "/etc/passwd is not in the list of models"),
        ({"target": "violin", "sigma": 99}, "sigma=99 lies outside"),
        ({"target": "violin", "sigma": "much"}, "sigma=much must be a number above 0, or auto"),
        ({"target": "violin", "octaves": 9}, "transpose=9 must be a whole number from -5 to 5"),
        ({"target": "violin", "file_format": "exe"}, "format=exe must be one of wav, flac, mp3"),
    ],
)
def test_refusals(server, given, says):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(server.url, verbose=False)
    with pytest.raises(AppError) as error:
        client.predict(handle_file(str(example("flute"))), api_name="/transfer", **given)
    assert says in str(error.value)


def test_only_three_functions_are_public(server):
    from gradio_client import Client

    described = Client(server.url, verbose=False).view_api(return_format="dict")
    assert set(described["named_endpoints"]) == {"/transfer", "/recognise", "/models"}
    assert not described["unnamed_endpoints"]


@pytest.mark.long
def test_login_and_the_path_of_a_proxy(start_server, tmp_path):
    import httpx
    from gradio_client import Client

    users = tmp_path / "users"
    users.write_text("anna:secret\n")
    server = start_server(f"auth={users}", "root_path=/timbre")
    assert httpx.get(server.url + "config").status_code == 401
    logged_in = Client(server.url, auth=("anna", "secret"), verbose=False)
    assert logged_in.predict(api_name="/models")[0]["name"] == "violin"
    with pytest.raises(Exception, match=r"(?i)login|auth|credentials"):
        Client(server.url, auth=("anna", "wrong"), verbose=False)
    config = httpx.get(server.url + "config", cookies=logged_in.cookies).json()
    assert config["root"].endswith("/timbre")
