import dataclasses
import hashlib
import json

import pytest

from yatsude.errors import CheckpointError, RecipeError
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.settings import ModelSettings
from yatsude.train.identity import Identity
from yatsude.train.settings import OptimizerSettings, TrainSettings

SECTIONS = {"model": ModelSettings(), "train": TrainSettings(), "parallel": ParallelSettings()}
TEXTS = {"text": "9bc1" * 16}


def identity(texts=TEXTS, **changes):
    return Identity.of({name: changes.get(name, section) for name, section in SECTIONS.items()}, texts)


def page(one):
    return {"identity": one.digest, "settings": dict(one.values)}


def refused(now, then, allow, tmp_path):
    return now.refuse(page(then), allow, tmp_path, "train")


def test_nothing_has_changed(tmp_path):
    assert refused(identity(), identity(), (), tmp_path) == []


@pytest.mark.parametrize("allow", ["train.optimizer.rate", "train.optimizer", "train"])
def test_what_has_changed_is_shown_and_may_be_allowed_by_key_or_section(tmp_path, allow):
    now = identity(train=TrainSettings(optimizer=OptimizerSettings(rate=2e-3)))
    with pytest.raises(CheckpointError) as error:
        refused(now, identity(), ["train.steps"], tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds a run with other settings or other text (train.optimizer.rate: 0.001 → 0.002); give another"
        " --run, or --restart (of 'yatsude train', for this stage alone); or go on with the new ones:"
        " --allow train.optimizer.rate"
    )
    (change,) = refused(now, identity(), [allow], tmp_path)
    assert (change.key, change.then, change.now) == ("train.optimizer.rate", 1e-3, 2e-3)


def test_other_text_is_shown_by_its_digest(tmp_path):
    now = identity({"text": "3fa0" * 16, "base": "00"})
    with pytest.raises(CheckpointError, match=r"\(text: 9bc19bc19bc1… → 3fa03fa03fa0…, base: none → 00\)"):
        refused(now, identity(), (), tmp_path)
    assert len(refused(now, identity(), ["text", "base"], tmp_path)) == 2


def test_how_a_job_is_cut_and_what_is_kept_may_change_without_a_word(tmp_path):
    train = TrainSettings(keep_checkpoints=5, keep_every=100, keep_best=True, checkpoint_steps=7, spikes=3)
    now = identity(parallel=ParallelSettings(dp=2), train=train)
    changes = {change.key: change.now for change in refused(now, identity(), (), tmp_path)}
    assert changes.keys() == {
        "parallel.dp", "train.keep_checkpoints", "train.keep_every", "train.keep_best", "train.checkpoint_steps",
        "train.spikes",
    }  # fmt: skip


def test_another_model_is_never_allowed(tmp_path):
    now = identity(model=ModelSettings(preset="pico"))
    with pytest.raises(CheckpointError, match=r"holds a run of another model \(model\.preset: \w+ → pico\); give"):
        refused(now, identity(), ["model"], tmp_path)


def test_a_key_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"--allow train\.stesp: no such key or section; did you mean 'train\.steps'"):
        refused(identity(), identity(), ["train.stesp"], tmp_path)


def test_a_state_that_is_older_than_a_key_had_its_default(tmp_path):
    then = page(identity())
    del then["settings"]["train.mtp_weight"]
    assert identity().refuse(then, (), tmp_path, "train") == []
    now = identity(train=TrainSettings(mtp_weight=0.1))
    with pytest.raises(CheckpointError, match=r"train\.mtp_weight: 0\.3 → 0\.1"):
        now.refuse(then, (), tmp_path, "train")


def test_a_state_without_settings_goes_by_the_digest_that_was(tmp_path):
    """Of the settings as they were then: without the keys that came with the settings in states."""
    old = {"model": ModelSettings(), "train": TrainSettings()}
    values = {name: dataclasses.asdict(one) for name, one in old.items()}
    for key in ("keep_every", "keep_best", "spikes"):
        del values["train"][key]
    del values["train"]["optimizer"]["states"]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    then = {"identity": f"{digest}:{TEXTS['text']}"}
    assert identity().refuse(then, (), tmp_path, "train") == []
    with pytest.raises(CheckpointError, match="other settings or other text; give another --run"):
        identity(train=TrainSettings(steps=7)).refuse(then, (), tmp_path, "train")
