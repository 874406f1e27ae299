import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yatsude.errors import CheckpointError, RecipeError
from yatsude.spec.hf import from_hf, read, to_hf
from yatsude.spec.layout import in_layout
from yatsude.spec.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_the_round_trip(name):
    assert from_hf(json.loads(json.dumps(to_hf(PRESETS[name])))) == PRESETS[name]


def test_the_page_names_the_routing_that_other_programs_would_guess():
    page = to_hf(preset("tiny"))
    assert page["scoring_func"] == "sigmoid"
    assert page["topk_method"] == "noaux_tc"
    assert page["architectures"] == ["DeepseekV3ForCausalLM"]


def test_the_page_of_transformers_is_read():
    transformers = pytest.importorskip("transformers")
    page = {key: value for key, value in to_hf(preset("tiny")).items() if key != "torch_dtype"}
    theirs = transformers.DeepseekV3Config(**page).to_dict()
    assert from_hf(theirs) == preset("tiny")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"model_type": "llama"}, "is unknown for llama"),
        ({"scoring_func": "softmax"}, "scoring_func = 'softmax'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "original_max_position_embeddings = 0"),
        ({"routed_scaling_factor": None}, "no routed_scaling_factor"),
        ({"rope_scaling": {"factor": 4.0}}, "no type that it belongs to"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0, "rope_type": "default"}}, "two things of rope_type"),
        (
            {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}},
            "two things",
        ),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ({"attention_softcap": 30.0}, "attention_softcap = 30.0"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"n_group": 8}, "n_group = 8"),
    ],
)
def test_what_the_model_cannot_do_is_named(changes, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        from_hf({**to_hf(preset("tiny")), **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_experts_per_tok": 9}, "9: expected 1 to 8"),
        ({"hidden_size": 0}, "hidden_size = 0"),
        ({"q_lora_rank": -1}, "q_lora_rank = -1"),
        ({"qk_rope_head_dim": 7}, "even"),
        ({"first_k_dense_replace": 7}, "0 to 6"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(changes, words):
    with pytest.raises(RecipeError, match=words):
        dataclasses.replace(preset("tiny"), **changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_config_or_one_line(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


@given(st.sampled_from([*sorted(to_hf(preset("tiny"))), "rope_parameters"]), JSON)
def test_any_value_of_any_field_is_read_or_is_one_line(field, value):
    page, message = {**to_hf(preset("tiny")), field: value}, ""
    try:
        assert from_hf(page).hidden_size >= 1
    except (CheckpointError, RecipeError) as error:
        message = str(error)
    assert "\n" not in message


def test_a_token_that_is_said_to_be_none_is_none():
    """Llama's default would be 1."""
    config = in_layout(preset("pico"), "llama", bos_token_id=None)
    assert from_hf(to_hf(config)).bos_token_id is None


def test_an_unknown_switch_is_refused_even_if_it_is_off():
    with pytest.raises(CheckpointError, match=r"is_causal = False in config\.json is unknown for llama"):
        from_hf({**to_hf(in_layout(preset("pico"), "llama")), "is_causal": False})
