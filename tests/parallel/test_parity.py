"""Every way to cut a job gives what one process gives, in float64: losses, lengths of gradients, loads of experts.

Documents are packed, rows have unequally many counted tokens, one expert gets none, and gradients are clipped.
"""

import functools
import json
import math

import bugs
import pytest
import steps
from ranks import run

from yatsude.errors import RecipeError
from yatsude.spec.parallel import ParallelSettings

TWO = {"stages_per_rank": 2}
AHEAD = {"num_nextn_predict_layers": 1}
TIED = {"tie_word_embeddings": True}
GROUPED = {"model_type": "glm4_moe", "attention_bias": True, "qk_norm": True, "num_key_value_heads": 2}

AXES = {
    "one rank": {},
    "dp2": {"dp": 2},
    "replicas2": {"replicas": 2},
    "tp2": {"tp": 2},
    "cp2": {"cp": 2},
    "dp2 ep2": {"dp": 2, "ep": 2},
    "pp2 1f1b": {"pp": 2},
    "pp2 interleaved": {"pp": 2, "schedule": "interleaved", **TWO},
    "pp2 zero-bubble": {"pp": 2, "schedule": "zero-bubble", **TWO},
    "pp2 zbv": {"pp": 2, "schedule": "zbv", **TWO},
    "pp2 dualpipev": {"pp": 2, "schedule": "dualpipev", **TWO},
}
AGAIN = {
    "full, dp2 ep2": {"dp": 2, "ep": 2, "recompute": "full"},
    "selective, dp2 ep2": {"dp": 2, "ep": 2, "recompute": "selective"},
    "full, tp2": {"tp": 2, "recompute": "full"},
    "full, pp2 dp2 1f1b": {"pp": 2, "dp": 2, "recompute": "full"},
    "full, pp2 zbv": {"pp": 2, "schedule": "zbv", **TWO, "recompute": "full"},
    "selective, cp2": {"cp": 2, "recompute": "selective"},
}
MODELS = {
    "ahead, pp2 dp2 ep2": ({"pp": 2, "dp": 2, "ep": 2}, AHEAD),
    "ahead, dualpipev": ({"pp": 2, "schedule": "dualpipev", **TWO}, AHEAD),
    "ahead and tied, cp2 tp2 ep4": ({"cp": 2, "tp": 2, "ep": 4}, {**AHEAD, **TIED}),
    "tied, pp2": ({"pp": 2}, TIED),
    "grouped, tp2": ({"tp": 2}, GROUPED),
    "grouped, cp2 ep2": ({"cp": 2, "ep": 2}, GROUPED),
}
PENALISED = {
    "sequence and z, dp2 ep2": ({"dp": 2, "ep": 2}, {"sequence": 0.1, "z": 0.01}),
    "sequence, pp2": ({"pp": 2}, {"sequence": 0.1}),
    "z, cp2 tp2": ({"cp": 2, "tp": 2}, {"z": 0.01}),
}
EIGHT = {
    "pp2 dp2 tp2 ep4 1f1b": {"pp": 2, "dp": 2, "tp": 2, "ep": 4},
    "pp2 replicas2 dp2 ep2 zbv": {"pp": 2, "replicas": 2, "dp": 2, "ep": 2, "schedule": "zbv", **TWO},
}
MORE = {
    "dp4": {"dp": 4},
    "dp4 ep2": {"dp": 4, "ep": 2},
    "replicas2 dp2 ep2": {"replicas": 2, "dp": 2, "ep": 2},
    "cp2 tp2": {"cp": 2, "tp": 2},
    "tp4 ep4": {"tp": 4, "ep": 4},
    "pp4 dp2 ep2": {"pp": 4, "dp": 2, "ep": 2},
    "dp2 cp2 tp2 ep8": {"dp": 2, "cp": 2, "tp": 2, "ep": 8},
    **{
        f"pp2 dp2 tp2 ep4 {schedule}": {"pp": 2, "dp": 2, "tp": 2, "ep": 4, "schedule": schedule, **TWO}
        for schedule in ("interleaved", "zero-bubble", "zbv", "dualpipev")
    },
    **{
        f"pp2 dp2 cp2 ep4 {schedule}": {"pp": 2, "dp": 2, "cp": 2, "ep": 4, "schedule": schedule, **TWO}
        for schedule in ("interleaved", "dualpipev")
    },
}


@functools.cache
def expected(changes):
    return steps.alone(**json.loads(changes))


def check(settings, changes, bug=""):
    found = run(ParallelSettings(**settings).ranks, steps.together, settings, changes, bug)
    truth = expected(json.dumps(changes, sort_keys=True))
    assert min(load for layer in truth[0][2] for load in layer) == 0, "an expert without tokens takes part"
    assert all(norm > steps.CLIP for _, norm, _ in truth), "clipping takes part"
    for rank in found:
        for (loss, norm, loads), (loss_1, norm_1, loads_1) in zip(rank, truth, strict=True):
            assert math.isclose(loss, loss_1, rel_tol=1e-10)
            assert math.isclose(norm, norm_1, rel_tol=1e-9)
            assert all(layer in loads_1 for layers in loads.values() for layer in layers)
    for (_, _, loads_1), *of_ranks in zip(truth, *found, strict=True):
        layers = {str(layer) for _, _, loads in of_ranks for stage in loads.values() for layer in stage}
        assert layers == set(map(str, loads_1))


@pytest.mark.parametrize("name", AXES)
def test_one_axis(name):
    check(AXES[name], {})


@pytest.mark.parametrize("name", MODELS)
def test_other_models(name):
    check(*MODELS[name])


@pytest.mark.parametrize("name", AGAIN)
def test_computed_again(name):
    check(AGAIN[name], AHEAD)


@pytest.mark.parametrize("name", PENALISED)
def test_auxiliary_losses(name):
    settings, penalties = PENALISED[name]
    check(settings, {"penalties": {"sequence": 0.0, "z": 0.0, **penalties}})


@pytest.mark.parametrize("name", EIGHT)
def test_eight_ranks(name):
    check(EIGHT[name], {})


@pytest.mark.soak
@pytest.mark.parametrize("name", MORE)
def test_more(name):
    check(MORE[name], {})


@pytest.mark.parametrize("bug", bugs.BUGS)
def test_a_planted_bug_is_found(bug):
    """The suite has teeth."""
    settings, _ = bugs.BUGS[bug]
    check(settings, {})
    with pytest.raises(AssertionError):
        check(settings, {}, bug)


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        ({"tp": 3}, {}, "train.sequence_length = 16: expected a multiple of 3"),
        ({"tp": 8}, {}, "parallel.tp = 8: expected a divisor of the 4 heads"),
        ({"dp": 3}, {}, "train.sequences_per_step = 32: expected a multiple of 3"),
        ({"dp": 3, "ep": 3}, {}, "parallel.ep = 3: expected a divisor of the 8 experts"),
        ({"cp": 2}, {"penalties": {"sequence": 0.1, "z": 0.0}}, "train.sequence_balance = 0.1"),
        ({"offload": True}, {}, "parallel.offload = true"),
        ({"cp": 3}, {}, "train.sequence_length = 16: expected a multiple of 6"),
        ({"pp": 2, "schedule": "zbv", **TWO}, {"num_nextn_predict_layers": 2}, "one layer of multi-token prediction"),
        ({"pp": 3, "schedule": "interleaved", **TWO}, {}, "6 stages, the model 4 layers"),
    ],
)
def test_what_cannot_be_cut_is_named(settings, changes, words):
    with pytest.raises(AssertionError) as caught:
        run(ParallelSettings(**settings).ranks, steps.together, settings, changes)
    assert RecipeError.__name__ in str(caught.value)
    assert words in str(caught.value)
