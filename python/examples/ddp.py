"""Several processes: DistributedDataParallel, with the optimizer's state divided if you like.

    torchrun --nproc_per_node 2 ddp.py
    torchrun --nproc_per_node 2 ddp.py --shard

Under DDP every process has the same gradients. Without `--shard` each takes the whole step; with it, each
steps a part of the adapters (A and B together, balanced by cost), keeps the state of these alone, and gets
the rest of the updates from the others. Either way the replicas are equal to the last bit.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from tiny_model import adapted_llama, arguments, text
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from lorapro import create_lorapro_optimizer


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shard", action="store_true", help="divide adapters, state and work over the processes")
    args = parser.parse_args()
    if not dist.is_torchelastic_launched():
        parser.error("start this by torchrun; see --help")
    dist.init_process_group("gloo")  # "nccl" where each process has a GPU
    rank = dist.get_rank()

    model = DistributedDataParallel(adapted_llama())
    optimizer = create_lorapro_optimizer(model, lr=args.lr, shard=args.shard)
    data = text()
    batches = DataLoader(data, batch_size=2, sampler=DistributedSampler(data))
    for epoch in range(args.steps // len(batches)):
        for batch in batches:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if rank == 0 and epoch % 5 == 0:
            print(f"epoch {epoch:3d}   loss {loss.item():.3f}", flush=True)

    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    replicas = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(replicas, weights)
    assert all(torch.equal(weights, replica) for replica in replicas), "the replicas have drifted apart"
    held = sum(v.numel() for state in optimizer.state.values() for v in state.values())
    counts = [None] * dist.get_world_size()
    dist.all_gather_object(counts, held)
    state = optimizer.state_dict()  # every process calls it, and each gets the whole state
    if rank == 0:
        print(f"loss {loss.item():.3f}; the replicas are equal to the last bit")
        print(f"numbers of state in each process: {counts}; parameters in a checkpoint: {len(state['state'])}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
