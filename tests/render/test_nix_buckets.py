"""The S3 server of a host's own buckets: rendered where asked for, on the computed address, with its keys."""

from __future__ import annotations

import pytest
from tests.topology.checking import codes, found

from kingpost.render.nix_files import render_nix
from kingpost.topology.checks.example import laid_over
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

KEYS = """
[secrets.keys]
provider = "agenix"
variables = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GARAGE_RPC_SECRET"]
"""


def bucket(provider: str, name: str = "own", port: int = 3900, **more: str) -> str:
    values = {"provider": f'"{provider}"', "credentials": '"keys"', **more}
    lines = "".join(f"{key} = {value}\n" for key, value in values.items())
    return f'[buckets.{name}]\n{lines}listener = {{ host = "node1", port = {port}, managed = true }}\n{KEYS}'


def rendered(text: str) -> str:
    assert codes(text) == []
    return render_nix(Platform(Topology.model_validate(laid_over(text))))["hosts/node1/bucket.nix"]


def test_a_server_that_somebody_else_runs_is_not_rendered():
    text = bucket("garage").replace(", managed = true", "")
    assert "hosts/node1/bucket.nix" not in render_nix(Platform(Topology.model_validate(laid_over(text))))


def test_garage_listens_where_its_callers_dial_and_nowhere_else():
    text = rendered(bucket("garage"))
    assert 'api_bind_addr = "127.0.0.1:3900";' in text
    assert 'rpc_bind_addr = "127.0.0.1:3901";' in text
    assert 's3_region = "garage";' in text
    assert "environmentFile = config.age.secrets.keys.path;" in text
    assert "DynamicUser" not in text
    text = rendered(bucket("garage") + '[attic.home]\nstorage = { kind = "bucket", bucket = "own" }\n')
    assert 'api_bind_addr = "0.0.0.0:3900";' in text or 'api_bind_addr = "100.64.0.1:3900";' in text


def test_garages_data_elsewhere_belong_to_a_user_that_stays():
    text = rendered(bucket("garage", data_dir='"/srv/it\'s ${x}"'))
    assert 'data_dir = "/srv/it\'s \\${x}/data";' in text
    assert "DynamicUser = false;" in text
    assert '"d /srv' in text


def test_minio_reads_its_keys_by_its_own_names_from_a_file_that_goes_with_the_machine():
    text = rendered(bucket("minio", port=9000))
    assert 'listenAddress = "127.0.0.1:9000";' in text
    assert "browser = false;" in text
    assert 'rootCredentialsFile = "/run/kingpost-minio/keys";' in text
    assert "MINIO_ROOT_USER=@own:AWS_ACCESS_KEY_ID@" in text
    assert '"@own:AWS_SECRET_ACCESS_KEY@" "env:AWS_SECRET_ACCESS_KEY" config.age.secrets.keys.path' in text


def test_several_buckets_are_in_one_server():
    text = bucket("garage") + bucket("garage", "other").replace(KEYS, "")
    assert "of other, own." in rendered(text) or "of own, other." in rendered(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bucket("rustfs"), "no service for rustfs"),
        (bucket("other"), "no service for other"),
        (bucket("garage").replace('credentials = "keys"\n', ""), "has no keys"),
        (bucket("garage") + bucket("garage", "other", 3910).replace(KEYS, ""), "want different ones"),
    ],
)
def test_what_no_module_could_run_is_refused(text, message):
    assert codes(text) == ["KP-BUCKET-SERVICE"]
    assert message in found(text)[0].message


def test_garage_does_not_start_without_its_rpc_secret():
    text = bucket("garage").replace(', "GARAGE_RPC_SECRET"', "")
    assert codes(text) == ["KP-SECRET-VARIABLES"]
