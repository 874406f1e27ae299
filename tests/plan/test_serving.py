import pytest

from yatsude.errors import RecipeError
from yatsude.plan.serving import USABLE, Load, dense, offers, serve
from yatsude.spec.counts import cache_bytes, count
from yatsude.spec.hardware import accelerator
from yatsude.spec.presets import preset

H200 = accelerator("h200")


def test_weights_and_caches_fit_and_users_get_their_speed():
    load = Load(users=300, context=16384)
    found = serve(preset("700b"), H200, load, "float8")
    assert found.weights + found.cache <= USABLE * found.gpus * H200.memory
    assert found.cache == found.users * 16384 * cache_bytes(preset("700b"))
    assert found.instances * found.users >= 300
    assert found.user_speed >= load.speed
    assert found.fleet == found.gpus * found.instances


def test_more_load_takes_more_and_longer_contexts_cost_more():
    def yen(**load):
        wanted = Load(**load)
        return serve(preset("700b"), H200, wanted, "float8").yen(500, wanted.characters)

    assert yen(users=8) > yen(users=64)
    assert yen(users=256, context=32768) > yen(users=256, context=4096)
    fleets = [serve(preset("700b"), H200, Load(users=users), "float8").fleet for users in (8, 256, 4096)]
    assert fleets == sorted(fleets)


def test_eight_bits_take_half_the_weights():
    narrow, wide = (serve(preset("700b"), H200, Load(users=8), dtype) for dtype in ("float8", "bfloat16"))
    assert wide.weights == pytest.approx(2 * narrow.weights, rel=1e-3)
    assert wide.fleet >= narrow.fleet


@pytest.mark.parametrize("billions", [1, 7, 70, 405])
def test_a_dense_model_has_about_the_size_that_was_named(billions):
    config = dense(billions)
    assert count(config).total == pytest.approx(billions * 1e9, rel=0.25)
    assert not config.has_experts


def test_the_mixture_is_cheaper_than_a_dense_model_of_its_size():
    load = Load(users=256)
    mixture, other = serve(preset("700b"), H200, load, "float8"), serve(dense(671), H200, load, "float8")
    assert mixture.yen(500, 1.4) < 0.4 * other.yen(500, 1.4)


def test_a_price_list_is_read_and_compared_by_characters(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('["somebody large"]\nprompt = 300\nanswer = 1200.0\ncharacters = 2\n')
    (offer,) = offers(path)
    load = Load(context=3000, answer=1000, characters=2.0)
    assert offer.yen(load) == pytest.approx((2 * 300 + 1200) / 2)
    shorter = Load(context=3000, answer=1000, characters=1.0)  # half the text in as many tokens of ours
    assert offer.yen(shorter) == pytest.approx((2 * 300 + 1200) / 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a]\nprompt = 1", "needs 'prompt' and 'answer'"),
        ("[a]\nprompt = 1\nanswer = -2", r"\[a\] answer = -2: expected a number above 0"),
        ("[a]\nprompt = 1\nanswer = 2\ncolour = 3", "needs 'prompt' and 'answer'"),
        ("a = 1", "needs 'prompt' and 'answer'"),
        ("[a", "not valid TOML"),
    ],
)
def test_a_broken_price_list_is_named(tmp_path, text, words):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        offers(path)
    with pytest.raises(RecipeError, match="no price list at"):
        offers(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"users": 0}, "users = 0"), ({"context": 10, "answer": 20}, "answer = 20: expected at most context = 10")],
)
def test_a_load_that_is_none_is_refused(changes, words):
    with pytest.raises(RecipeError, match=words):
        Load(**changes)


def test_what_cannot_be_served_says_why():
    with pytest.raises(RecipeError, match="no fleet of up to 1024 h200 an instance gives 1e\\+06 tokens/s"):
        serve(preset("700b"), H200, Load(speed=1e6))
    with pytest.raises(RecipeError, match="a100-80 has no FP8"):
        serve(preset("700b"), accelerator("a100-80"), Load(), "float8")
    with pytest.raises(RecipeError, match="dense = 0"):
        dense(0)
