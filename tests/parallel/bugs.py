"""Mistakes that give wrong gradients without an error, each with a layout in which it shows."""

from unittest import mock

import torch

from yatsude.parallel import job, mesh, pipeline, shard

TWO = {"stages_per_rank": 2}


def expert_divisor():
    """Experts' gradients divided by the size of their own mesh."""
    whole = shard.shard

    def wrong(stage, *rest):
        whole(stage, *rest)
        for block in shard.blocks_of(stage):
            if hasattr(block.mlp, "experts"):
                block.mlp.experts.set_gradient_divide_factor(2.0)

    return mock.patch.object(job, "shard", wrong)


def resharding():
    """Weights that are gone between the two steps of a backward pass."""
    fully_shard = shard.fully_shard
    return mock.patch.object(
        shard, "fully_shard", lambda *args, **more: fully_shard(*args, **{**more, "reshard_after_forward": True})
    )


def lost_partial():
    """Gradients of weights that are whole under tensor parallelism, not added up over its ranks."""
    made = mesh.Mesh.__init__

    def wrong(self, *args):
        made(self, *args)
        self.shard = self.tensor

    return mock.patch.object(mesh.Mesh, "__init__", wrong)


def local_clip():
    """Each rank clips by the length of what it holds."""
    norm = job.Job.norm

    def wrong(self):
        whole = norm(self)
        self.scale(1.0)
        self.local_norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(job.local(p.grad)) for _, p in self.parameters()])
        )
        scale = self.scale
        self.scale = lambda factor: scale(min(1.0, 0.5 / float(self.local_norm)))
        return whole

    return mock.patch.object(job.Job, "norm", wrong)


def shape_inference():
    """Shapes found by running the model on empty buffers, which moves the counts of its routers."""
    stage = pipeline.PipelineStage

    def wrong(module, *args, input_args, output_args, **more):
        return stage(module, *args, **more)

    return mock.patch.object(pipeline, "PipelineStage", wrong)


BUGS = {
    "expert divisor": ({"dp": 2, "ep": 1}, expert_divisor),
    "resharding under split backward": ({"pp": 2, "dp": 2, "schedule": "zbv", **TWO}, resharding),
    "lost partial gradient": ({"tp": 2}, lost_partial),
    "local clip": ({"dp": 2}, local_clip),
    "counters moved by shape inference": ({"pp": 2}, shape_inference),
}
