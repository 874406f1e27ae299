import torch

from yatsude.train.monitor import Monitor, read_log

LOADS = torch.tensor([[1, 3], [2, 2]])


def test_steps_and_scores_are_lines(tmp_path, capsys):
    monitor = Monitor(tmp_path / "log.jsonl", 0)
    monitor.step({"step": 1, "loss": 3.0}, LOADS)
    monitor.evaluation({"step": 1, "bits_per_character": 2.5, "loss": 3.0, "seconds": 1.0}, 10)
    monitor.close()
    first, second = read_log(tmp_path / "log.jsonl")
    assert first == {"step": 1, "loss": 3.0, "load": [[0.5, 1.5], [1.0, 1.0]]}
    assert second["bits_per_character"] == 2.5
    assert "2.500 bits per character in validation" in capsys.readouterr().err


def test_what_an_interrupted_attempt_wrote_after_its_checkpoint_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    monitor = Monitor(path, 2)
    assert read_log(path) == [{"step": 1}, {"step": 2}]
    monitor.step({"step": 3, "loss": 1.0}, LOADS)  # seen at once, not when the run ends
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]
    monitor.close()


def test_a_model_without_experts_has_no_load(tmp_path):
    monitor = Monitor(tmp_path / "log.jsonl", 0)
    monitor.step({"step": 1}, torch.zeros(0, 0, dtype=torch.int64))
    monitor.close()
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "load": []}]


def test_every_hundredth_step_tells_of_a_hundred_and_a_resumed_run_the_same(tmp_path, capsys):
    def logged(path, parts):
        for first, last in parts:
            monitor = Monitor(path, first)
            for step in range(first + 1, last + 1):
                loads = torch.tensor([[step, 400, 0], [9, 8, 7]])
                monitor.step({"step": step, "loss": 1.0}, loads, [0.25, None])
            monitor.close()
        return read_log(path)

    whole = logged(tmp_path / "whole.jsonl", [(0, 200)])
    assert logged(tmp_path / "cut.jsonl", [(0, 130), (110, 170), (170, 200)]) == whole
    assert [line["step"] for line in whole if "dead" in line] == [100, 200]
    assert [line["bias_range"] for line in whole] == [0.25] * 200
    assert whole[99].keys() - whole[98].keys() == {"busiest", "idlest", "dead"}
    assert whole[199]["drift"] > 0
    assert whole[199]["dead"] == 1
    assert "expert 3 of mixture layer 1 got no token in 100 steps" in capsys.readouterr().err


def test_a_score_says_how_even_the_load_is(tmp_path, capsys):
    monitor = Monitor(tmp_path / "log.jsonl", 0)
    monitor.step({"step": 1}, LOADS)
    monitor.evaluation({"step": 1, "bits_per_character": 2.5, "loss": 3.0, "seconds": 1.0}, 10)
    monitor.close()
    assert capsys.readouterr().err.endswith("1 s, load 0.50-1.50 of the mean, 0 dead\n")
