import json

import pytest

SMALL = ("--preset", "base", "--gpus", "8", "--gpu", "h100", "--batch", "512", "--sequence", "2048")


def test_a_plan_tells_memory_time_cost_and_why_others_failed(yatsude):
    words = (*SMALL, "--tokens", "20B", "--days", "3", "--yen-per-gpu-hour", "400")
    code, out, err = yatsude("plan", *words)
    assert code == 0, err
    assert "base on 8 h100: " in err
    for part in ("tokens/s/GPU", "GiB of 79", "collectives of rank", "why others failed", "yen", "kWh", "assumed"):
        assert part in out, part
    assert "3 days are enough: they need about" in out
    assert "a checkpoint every" in out


def test_the_recipe_of_a_plan_is_understood_and_sound(yatsude, tmp_path):
    path = tmp_path / "large.toml"
    code, _, err = yatsude("plan", *SMALL, "--tokens", "20B", "--out", path)
    assert code == 0, err
    assert f"yatsude plan lint {path} --gpu h100" in err
    assert "[parallel]" in path.read_text()
    code, out, _ = yatsude("plan", "lint", path, "--gpu", "h100")
    assert code == 0, out
    assert out.startswith("nothing found\n8 h100: ")
    code, out, _ = yatsude("plan", "lint", path, "--set", "parallel.dp=3", "--set", "train.optimizer.epsilon=0.1")
    assert code == 1
    assert "error: train.optimizer.epsilon = 0.1: " in out
    assert "error: train.sequences_per_step = 512: no multiple of replicas x dp" in out


def test_lint_tells_what_does_not_fit(yatsude, tmp_path):
    path = tmp_path / "wide.toml"
    path.write_text('[model]\npreset = "700b"\n[parallel]\ndp = 8\nep = 8\n[train]\nsteps = 100000\n')
    code, out, _ = yatsude("plan", "lint", path)
    assert code == 1
    assert "error: memory = " in out


def test_a_calibration_takes_the_place_of_the_data_sheet(yatsude, tmp_path):
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"matrix": 5e13, "grouped": 4e13}))
    _, stated, _ = yatsude("plan", *SMALL)
    code, out, _ = yatsude("plan", *SMALL, "--calibration", path)
    assert code == 0
    assert "assumed (measured): products 50 TFLOP/s, experts 40," in out
    assert "assumed (stated shares of the data sheet): products 692.3 TFLOP/s" in stated


def test_serving_is_compared_with_dense_models_and_prices(yatsude, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text("[somebody]\nprompt = 300\nanswer = 1200\n")
    words = ("--precision", "fp8", "--yen-per-gpu-hour", "500", "--dense", "70", "--dense", "7", "--prices", prices)
    code, out, err = yatsude("plan", "serve", "--users", "128", *words)
    assert code == 0, err
    for part in ("700b", "dense 70 B", "dense 7 B", "yen/M characters", "somebody", "own against it", "assumed"):
        assert part in out, part


def test_a_machine_is_measured_and_the_plan_takes_its_rates(yatsude, tmp_path):
    path = tmp_path / "rates.json"
    code, out, err = yatsude("plan", "calibrate", "--preset", "pico", "--ranks", "1", "--out", path)
    assert code == 0, err
    for part in (
        "matrix",
        "attention",
        "bandwidth",
        "GFLOP/s",
        "no data sheet",
        "one thread, CPU time; shapes of pico",
    ):
        assert part in out, part
    assert f"yatsude plan --gpu cpu --calibration {path}" in err
    page = json.loads(path.read_text())
    assert page["machine"]
    assert page["preset"] == "pico"
    code, out, _ = yatsude("plan", *SMALL, "--tokens", "1B", "--calibration", path)
    assert code == 0
    assert f"assumed (measured): products {page['matrix'] / 1e12:.4g} TFLOP/s" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--gpu", "h10"), "unknown accelerator 'h10'; did you mean 'h100'?"),
        (("--preset", "huge"), "unknown preset 'huge'"),
        (("--tokens", "many"), "--tokens many: expected a number such as 1T, 300B or 5e9"),
        (("--gpu", "a100-80", "--precision", "fp8"), "precision = 'fp8': a100-80 has no FP8 products"),
        (("--preset", "700b", "--gpus", "8"), "700b cannot be trained on 8 h100: "),
        (("--imbalance", "0.5"), "imbalance = 0.5: expected 1 (even) or more"),
        (("serve", "--speed", "0"), "speed = 0.0: expected more than 0"),
        (("lint", "none.toml"), "no recipe at none.toml"),
        (("calibrate", "--preset", "huge"), "unknown preset 'huge'"),
        (("calibrate", "--gpu", "h10"), "unknown accelerator 'h10'"),
    ],
)
def test_mistakes_are_one_line(fails, words, message):
    assert message in fails("plan", *words)
