// The start of a step, the decay of W0, and the backup of what a step that may overflow changes.
#include "block.cuh"
#include "tile.cuh"

// Starts a step: nothing is rejected yet, and what the last step rejected is kept until the host reads
// it. With `words[0]` the control is set, from `numbers` and `words[1]`; in a captured graph it stays
// as it was set before. One block; no tasks.
KERNEL begin(const Launch launch) {
    const Model& model = *launch.model;
    if (threadIdx.x == 0) {
        model.status->unreported |= model.status->rejected;
        model.status->unreported_steps += model.status->rejected != 0;
        model.status->rejected = 0;
        model.status->grad_norm = 0.0;
        model.status->grad_clip = 1.0;
        if (launch.words[0] != 0) {
            model.control->lr_factor = launch.numbers[0];
            model.control->grad_scale = launch.numbers[1];
            model.control->max_grad_norm = launch.numbers[2];
            model.control->allow_overflow = u32(launch.words[1]);
        }
    }
}

// W0 <- decay W0, as its storage type rounds it. Task: an adapter, a chunk of entries.
KERNEL decay_base(const Launch launch) {
    if (!step_is_live(*launch.model)) return;
    Task task = launch.tasks[blockIdx.x];
    const Adapter& adapter = launch.model->adapters[task.item];
    const View& base = adapter.base;
    i64 m = adapter.side[1].len, n = adapter.side[0].len, start = i64(task.chunk) * CHUNK_ENTRIES;
    bool rows = rows_are_dense(base);
    for (i64 e = start + threadIdx.x; e < min(m * n, start + CHUNK_ENTRIES); e += BLOCK) {
        i64 i = rows ? e / n : e % m, j = rows ? e % n : e / m;
        i64 at = i * base.row + j * base.col;
        double x = load<double>(base.at, at, base.dtype) * adapter.step.base_decay;
        store(base.at, at, base.dtype, x, Round{false, Seed{0}}, 0);
    }
}

// Between a view and its backup: out (`words[0]` = 0) or back. Every storage type goes through f64
// unchanged.
DEVICE void copy_entry(const View& view, i64 at, double& backup, bool back) {
    if (back) store(view.at, at, view.dtype, backup, Round{false, Seed{0}}, 0);
    else backup = load<double>(view.at, at, view.dtype);
}

// F of an adapter. Task: an adapter, a side, a chunk.
KERNEL back_up(const Launch launch) {
    Task task = launch.tasks[blockIdx.x];
    const Adapter& adapter = launch.model->adapters[task.item];
    const Side& side = adapter.side[task.side];
    int start = task.chunk * side.chunk, end = min(side.len, start + side.chunk);
    for (int e = threadIdx.x; e < adapter.r * (end - start); e += BLOCK) {
        i64 i = e / (end - start), j = start + e % (end - start);
        copy_entry(side.f, i * side.f.row + j * side.f.col, side.backup[i * side.len + j],
                    launch.words[0] != 0);
    }
}

// The value of a parameter. Task: a parameter, a chunk of entries.
KERNEL back_up_params(const Launch launch) {
    Task task = launch.tasks[blockIdx.x];
    const Param& param = launch.model->params[task.item];
    i64 count = param.rows * param.cols, start = i64(task.chunk) * CHUNK_ENTRIES;
    for (i64 e = start + threadIdx.x; e < min(count, start + CHUNK_ENTRIES); e += BLOCK)
        copy_entry(param.value, e / param.cols * param.value.row + e % param.cols * param.value.col,
                    param.backup[e], launch.words[0] != 0);
}
