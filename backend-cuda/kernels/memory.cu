// What concerns memory as it lies: the start of a step, W0, and the way back from a step that
// overflowed.
#include "block.cuh"
#include "tile.cuh"

// Starts a step: nothing is refused yet, and what the last one refused is kept for whoever asks. With `words[0]` the control is set, from `numbers` and
// `words[1]`; in a captured graph it stays as it was set before. One block; no tasks.
KERNEL begin(const Launch launch) {
    const Model& model = *launch.model;
    if (threadIdx.x == 0) {
        model.status->lost |= model.status->refused;
        model.status->lost_steps += model.status->refused != 0;
        model.status->refused = 0;
        model.status->grad_norm = 0.0;
        model.status->grad_clip = 1.0;
        if (launch.words[0] != 0) {
            model.control->lr_factor = launch.numbers[0];
            model.control->grad_scale = launch.numbers[1];
            model.control->max_grad_norm = launch.numbers[2];
            model.control->insist = u32(launch.words[1]);
        }
    }
}

// Sizes of the structures, for a test that holds them against the host's: to the address `words[0]`.
KERNEL sizes(const Launch launch) {
    if (threadIdx.x != 0) return;
    u32* out = reinterpret_cast<u32*>(launch.words[0]);
    const u32 all[] = {sizeof(Launch), sizeof(Task), sizeof(Model),  sizeof(Status), sizeof(Control), sizeof(Param),
                       sizeof(Pair),   sizeof(Side), sizeof(Report), sizeof(Step),   sizeof(Hyper),   sizeof(View)};
    for (u32 k = 0; k < sizeof(all) / sizeof(u32); ++k) out[k] = all[k];
}

constexpr int BASE_ENTRIES = 4096;  // of a chunk

// W0 <- decay W0, as its storage type rounds it. Task: an adapter, a chunk of entries.
KERNEL decay_base(const Launch launch) {
    if (!may_go(*launch.model)) return;
    Task task = launch.tasks[blockIdx.x];
    const Pair& pair = launch.model->pairs[task.item];
    const View& base = pair.base;
    i64 m = pair.side[1].len, n = pair.side[0].len, start = i64(task.chunk) * BASE_ENTRIES;
    bool rows = rows_are_dense(base);
    for (i64 e = start + threadIdx.x; e < min(m * n, start + BASE_ENTRIES); e += BLOCK) {
        i64 i = rows ? e / n : e % m, j = rows ? e % n : e / m;
        i64 at = i * base.row + j * base.col;
        double x = load<double>(base.at, at, base.dtype) * pair.step.base_decay;
        store(base.at, at, base.dtype, x, Round{false, Seed{0}}, 0);
    }
}

// Between a view and its backup: out (`words[0]` = 0) or back. Every storage type goes through f64
// unchanged.
DEVICE void carry_entry(const View& view, i64 at, double& backup, bool back) {
    if (back) store(view.at, at, view.dtype, backup, Round{false, Seed{0}}, 0);
    else backup = load<double>(view.at, at, view.dtype);
}

// F of an adapter. Task: an adapter, a side, a chunk.
KERNEL back_up(const Launch launch) {
    Task task = launch.tasks[blockIdx.x];
    const Pair& pair = launch.model->pairs[task.item];
    const Side& side = pair.side[task.side];
    int start = task.chunk * side.chunk, end = min(side.len, start + side.chunk);
    for (int e = threadIdx.x; e < pair.r * (end - start); e += BLOCK) {
        i64 i = e / (end - start), j = start + e % (end - start);
        carry_entry(side.f, i * side.f.row + j * side.f.col, side.backup[i * side.len + j],
                    launch.words[0] != 0);
    }
}

// The value of a parameter. Task: a parameter, a chunk of entries.
KERNEL back_up_params(const Launch launch) {
    Task task = launch.tasks[blockIdx.x];
    const Param& param = launch.model->params[task.item];
    i64 count = param.rows * param.cols, start = i64(task.chunk) * BASE_ENTRIES;
    for (i64 e = start + threadIdx.x; e < min(count, start + BASE_ENTRIES); e += BLOCK)
        carry_entry(param.value, e / param.cols * param.value.row + e % param.cols * param.value.col,
                    param.backup[e], launch.words[0] != 0);
}
