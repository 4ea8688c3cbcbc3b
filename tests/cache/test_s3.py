import pytest

from kingpost.base.errors import CannotLookError, InvalidInputError
from kingpost.cache import s3

KEYS = s3.Credentials("AKID", "sec/ret+", "")


@pytest.mark.parametrize(
    "text",
    [
        "AWS_ACCESS_KEY_ID=AKID\nAWS_SECRET_ACCESS_KEY=sec/ret+\n",
        "export AWS_ACCESS_KEY_ID='AKID'\nexport AWS_SECRET_ACCESS_KEY=\"sec/ret+\"\nATTIC_TOKEN=x\n",
        "[default]\naws_access_key_id = AKID\naws_secret_access_key = sec/ret+\n",
    ],
)
def test_credentials_in_a_file(tmp_path, text):
    (tmp_path / "f").write_text(text)
    assert s3.credentials_from_file(tmp_path / "f") == KEYS


def test_credentials_that_are_not_there(tmp_path, monkeypatch):
    (tmp_path / "half").write_text("AWS_ACCESS_KEY_ID=AKID\n")
    with pytest.raises(CannotLookError, match="no AWS_SECRET_ACCESS_KEY"):
        s3.credentials_from_file(tmp_path / "half")
    profiles = "[a]\naws_access_key_id=1\naws_secret_access_key=geheim\n[b]\naws_access_key_id=2\n"
    (tmp_path / "two").write_text(profiles)
    with pytest.raises(InvalidInputError, match="stands twice") as caught:
        s3.credentials_from_file(tmp_path / "two")
    assert "geheim" not in str(caught.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CannotLookError, match="the environment has no AWS_ACCESS_KEY_ID"):
        s3.credentials_from_environment()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sec/ret+")
    assert s3.credentials_from_environment() == KEYS


def test_the_users_profiles_and_the_metadata_service_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    client = s3.S3(s3.Endpoint("http://127.0.0.1:9"))
    with pytest.raises(CannotLookError, match="ListBuckets got no answer: EndpointConnectionError"):
        client.buckets()


@pytest.mark.parametrize("name", ["attic", "tofu-state", "a.b.c", "0ab"])
def test_bucket_names(name):
    assert s3.is_bucket_name(name)


@pytest.mark.parametrize("name", ["", "ab", "../etc", "a/b", "A-b", "-abc", "a..b", "a" * 64, "abc\n"])
def test_no_bucket_names(name):
    assert not s3.is_bucket_name(name)
