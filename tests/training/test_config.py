import pytest

from clickvol.errors import ConfigError
from clickvol.training.read_config import read_train_config


@pytest.fixture
def config_path(write_config):
    return write_config("run")[0]


def test_values_and_defaults(config_path):
    config = read_train_config(config_path, [])
    assert config.model.size == "tiny"
    assert config.model.method == "promise3d"
    assert config.optimiser.steps == 8
    assert config.optimiser.weight_decay == 0.01
    assert config.sampling.first_voxel_mm == 3.0
    assert config.data.folders == []


def test_overrides_are_values_as_in_toml_or_bare_words(config_path):
    overrides = [
        "optimiser.learning_rate=2e-4",
        "run.precision=bfloat16",
        "model.title=a title of words",
        'data.validation_patients=["001", "002"]',
        "sampling.fitted_extents=[1.0, 2.0]",
        "data.root=/some/where",
        "optimiser.steps=9",
        "optimiser.steps=10",
    ]
    config = read_train_config(config_path, overrides)
    assert config.optimiser.learning_rate == 2e-4
    assert config.run.precision == "bfloat16"
    assert config.model.title == "a title of words"
    assert config.data.validation_patients == ("001", "002")
    assert config.sampling.fitted_extents == (1.0, 2.0)
    assert str(config.data.root) == "/some/where"
    assert config.optimiser.steps == 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.steps=0", r"optimiser\.steps: "),
        ("optimiser.steps=many", r"optimiser\.steps: "),
        ("optimiser.novelty=1", r"optimiser\.novelty is not known.* known here are .*weight_decay"),
        (
            "novelty.a=1",
            "novelty is not known; known here are data, loss, model, optimiser, promise2d, run, sampling",
        ),
        ("sampling.novelty=1", "sampling.*novelty is not known.*first_zoom"),
        ("run.precision=float8", r"run\.precision: "),
        ("run.keep=best", r"run: run\.keep is best, so run\.validate_every must be above 0"),
        ("optimiser.epochs=3", r"optimiser: give optimiser\.steps or optimiser\.epochs, one"),
        ("data.phantom_share=1.5", r"data\.phantom_share: "),
        ("optimiser.steps", "--set takes section.field=value"),
        ("=1", "--set takes section.field=value"),
        ("optimiser.=1", "--set takes section.field=value"),
        ("optimiser.steps.more=1", "steps is a value, not a section"),
    ],
)
def test_a_wrong_override_is_named(config_path, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_train_config(config_path, [override])
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml does not exist"):
        read_train_config(tmp_path / "no.toml", [])


@pytest.mark.parametrize("content", [b"[model", b"\xff\xfe", b"a = 1\na = 2"])
def test_what_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_train_config(path, [])


def test_a_missing_section_is_named(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[model]\nid = 't'\ntitle = 't'\npreset = 'tiny'\n")
    with pytest.raises(ConfigError, match="optimiser: Field required"):
        read_train_config(path, [])


def test_a_way_of_sampling_has_its_own_keys(config_path):
    content = config_path.read_text().replace("corrected_click_share = 0.5", 'kind = "windows"')
    config_path.write_text(content)
    config = read_train_config(config_path, ["sampling.voxel_mm=2.0"])
    assert config.sampling.voxel_mm == 2.0
    with pytest.raises(ConfigError, match=r"sampling\.prior_share is not known; .*foreground_share") as caught:
        read_train_config(config_path, ["sampling.prior_share=0.1"])
    assert "first_zoom" not in str(caught.value)
    with pytest.raises(ConfigError, match="sampling"):
        read_train_config(config_path, ["sampling.kind=novelty"])


def test_a_file_says_what_differs_from_the_one_it_extends(config_path, tmp_path):
    (tmp_path / "more").mkdir()
    path = tmp_path / "more" / "arm.toml"
    path.write_text('extends = "../run.toml"\n[model]\nid = "arm"\n[optimiser]\nsteps = 5\n')
    below, arm = read_train_config(config_path, []), read_train_config(path, ["run.seed=9"])
    assert (arm.model.id, arm.model.title, arm.optimiser.steps) == ("arm", below.model.title, 5)
    assert arm.run.seed == 9
    assert arm.sampling == below.sampling
    path.write_text('extends = "../run.toml"\n[sampling]\nkind = "windows"\nvoxel_mm = 2.0\n')
    assert read_train_config(path, []).sampling.voxel_mm == 2.0
    path.write_text('extends = "arm.toml"\n')
    with pytest.raises(ConfigError, match=r"arm\.toml extends itself"):
        read_train_config(path, [])
    path.write_text('extends = "nothing.toml"\n')
    with pytest.raises(ConfigError, match=r"nothing\.toml does not exist"):
        read_train_config(path, [])
