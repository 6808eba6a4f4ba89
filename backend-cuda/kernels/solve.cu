// Everything r x r: one block for each adapter (for each side of it in `decompose_grams`).
#include "closed_form.cuh"
#include "eigen.cuh"
#include "gram.cuh"
#include "product.cuh"

// Shared memory: room for block sums, rotations, and up to rank SHARED_EIGEN the two matrices of a
// decomposition.
DEVICE double2* rotations_in(double* shared) { return reinterpret_cast<double2*>(shared + SUM_ROOM); }

// From a symmetric matrix, which is used up, to its eigenvectors and a row of eigenvalues.
DEVICE_LARGE void decompose_matrix(RankMatrices m, int matrix, int vectors, int row, double* shared) {
    int r = m.r, size = r * r;
    double2* rotations = rotations_in(shared);
    double* room = reinterpret_cast<double*>(rotations + (r + 1) / 2);
    bool inside = r <= SHARED_EIGEN;
    double* s = inside ? room : m(matrix);
    double* q = inside ? room + size : m(vectors);
    if (inside)
        for (int at = threadIdx.x; at < size; at += BLOCK) s[at] = m(matrix)[at];
    decompose(s, q, m.values(row), rotations, r);
    if (inside)
        for (int at = threadIdx.x; at < size; at += BLOCK) m(vectors)[at] = q[at];
    __syncthreads();
}

// Decomposes a side's Gram matrix and inverts it.
DEVICE_LARGE void decompose_side(const Adapter& adapter, int side, double* shared) {
    RankMatrices m(adapter);
    int copy = TEMPORARY + 2 * side;
    assign(m, copy, 1.0, of(FF + side));
    decompose_matrix(m, copy, VECTORS + side, side, shared);
    invert(adapter, side);
}

// Adds up a side's products; rejects what is not finite; decomposes the Gram matrix.
//
// Task: an adapter, a side.
KERNEL decompose_grams(const Launch launch) {
    SHARED(double, shared);
    Task task = launch.tasks[blockIdx.x];
    const Adapter& adapter = launch.model->adapters[task.item];
    const Side& side = adapter.side[task.side];
    RankMatrices m(adapter);
    int r = adapter.r;
    Squares squares = squares_of(2 * r, 2 * r);
    for (int at = threadIdx.x; at < r * r; at += BLOCK) {
        int i = at / r, j = at % r;
        auto entry = [&](int i, int j) {
            return sum_of_chunks(side.products, squares, side.chunk_count, true, i, j);
        };
        m(FF + task.side)[at] = entry(i, j);
        m(FG + task.side)[at] = entry(i, r + j);
        m(GG + task.side)[at] = entry(r + i, r + j);
    }
    __syncthreads();
    double factor = trace(m, FF + task.side, shared);
    double gradient = trace(m, GG + task.side, shared);
    bool finite = isfinite(factor) && isfinite(gradient);
    if (threadIdx.x == 0) {
        adapter.report->factor_square[task.side] = factor;
        adapter.report->gradient_square[task.side] = gradient;
        if (!finite) {
            atomicOr(&adapter.report->rejected, u32(NOT_FINITE));
            atomicOr(&launch.model->status->rejected, u32(NOT_FINITE));
        }
    }
    if (finite && adapter.hyper.method != LORA)
        decompose_side(adapter, task.side, shared);
}

// The global norm of all gradients, from their squares in the order of the model; the same in
// every block.
DEVICE_LARGE double gradient_norm(const Model& model, double* shared) {
    double sum = 0.0;
    for (int k = threadIdx.x; k < model.adapter_count; k += BLOCK) {
        const Report& report = *model.adapters[k].report;
        sum += report.gradient_square[0] + report.gradient_square[1];
    }
    for (int k = threadIdx.x; k < model.param_count; k += BLOCK)
        sum += model.params[k].report->gradient_square[0];
    return sqrt(block_sum(sum, shared)) * model.control->grad_scale;
}

// What multiplies raw gradients; leaves the norm and the clip in the status, once.
DEVICE_LARGE double gamma_of(const Model& model, const Hyper& hyper, double* shared) {
    double norm = gradient_norm(model, shared), limit = model.control->max_grad_norm;
    double clip = limit > 0.0 && norm > limit ? limit / norm : 1.0;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        model.status->grad_norm = norm;
        model.status->grad_clip = clip;
    }
    return (hyper.maximize ? -1.0 : 1.0) * model.control->grad_scale * clip;
}

DEVICE void set_step(Adapter& adapter, const Control& control, double gamma) {
    const Hyper& hyper = adapter.hyper;
    Step& step = adapter.step;
    double lr = hyper.lr * control.lr_factor;
    bool whole = hyper.method == FULL || hyper.method == FACTORED;
    double decay = 1.0 - lr * hyper.weight_decay;
    step.gamma = gamma;
    step.lr[0] = lr;
    step.lr[1] = lr * hyper.lr_ratio;
    // B A as a whole is to decay by 1 - lr w.
    step.decay[0] = whole ? sqrt(decay) : decay;
    step.decay[1] = whole ? sqrt(decay) : 1.0 - lr * hyper.lr_ratio * hyper.weight_decay;
    step.base_decay = decay;
    step.t = *adapter.counter + 1;
    step.c1 = 1.0 - pow(hyper.beta1, double(step.t));
    step.c2 = 1.0 - pow(hyper.beta2, double(step.t));
    step.k = sqrt(step.c2) / step.c1;
    step.eps = hyper.eps * sqrt(step.c2);
    step.clip = 1.0;
}

// The coefficients of (dA, dB): P and what F is multiplied by, of both sides.
template <class T>
DEVICE_LARGE void set_direction(const Adapter& adapter, const RankMatrices& m, double gamma) {
    double factor = gamma / (adapter.s * adapter.s);
    set_coefficients(m, coefficients<T>(adapter, 0, 0), factor, of(PINV + 1));
    set_coefficients(m, coefficients<T>(adapter, 0, 1), 1.0, of(X));
    set_coefficients(m, coefficients<T>(adapter, 1, 0), factor, of(PINV));
    combine(m, TEMPORARY, 1.0, of(Q), 1.0, of(X));
    set_coefficients(m, coefficients<T>(adapter, 1, 1), -1.0, transposed(TEMPORARY));
}

// The coefficients of H = (sU, sV'), the parts of E: what multiplies G, and F on side 1.
template <class T> DEVICE_LARGE void set_parts(const Adapter& adapter, const RankMatrices& m, double gamma) {
    set_coefficients(m, coefficients<T>(adapter, 0, 0), gamma / adapter.s, of(PINV + 1));
    set_coefficients(m, coefficients<T>(adapter, 0, 1), 0.0, of(Q));
    set_coefficients(m, coefficients<T>(adapter, 1, 0), gamma / adapter.s, of(PINV));
    set_coefficients(m, coefficients<T>(adapter, 1, 1), -adapter.s, transposed(Q));
}

DEVICE void reject_overflow(const Model& model, Report& report) {
    atomicOr(&report.rejected, u32(MAY_OVERFLOW));
    atomicOr(&model.status->rejected, u32(MAY_OVERFLOW));
}

// The largest numbers that leave room for what is computed and stored.
struct Bounds {
    double computes, stores;
};

DEVICE Bounds bounds_of(bool in_f64, int dtype) {
    if (in_f64) return Bounds{1e120, dtype == F64 ? 1e120 : dtype == F16 ? 3e4 : 1e30};
    return Bounds{1e17, dtype == F16 ? 3e4 : 1e30};
}

// Whether Adam's N stays of the order of 1: where a moment's square decays no slower than its mean.
DEVICE bool normalized_step_is_bounded(const Hyper& hyper) {
    return (hyper.beta1 == 0.0 || hyper.beta1 * hyper.beta1 < hyper.beta2) &&
           (hyper.in_f64 || hyper.eps > 1e-30);
}

// An entry of N: (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) is 7.3 for the usual betas.
constexpr double LARGEST_N = 10.0;

// Whether a bound on anything that is computed or stored comes near to the largest number.
DEVICE_LARGE bool may_overflow(const Adapter& adapter, const RankMatrices& m, double equivalent,
                               double* shared) {
    const Hyper& hyper = adapter.hyper;
    double a = sqrt(adapter.report->factor_square[0]), b = sqrt(adapter.report->factor_square[1]);
    double adjusted = 0.0;
    for (int side = 0; side < 2; ++side)
        adjusted += sqrt(fmax(0.0, trace(m, HH + side, shared))) / adapter.s;
    if (hyper.method != LORA) {
        adjusted += norm(m, X, shared) * (a + b);
        adjusted += norm(m, Q, shared) * b;
    }
    double direction = LARGEST_N;
    if (hyper.method == SGD) direction = adjusted / (1.0 - hyper.momentum);
    if (hyper.method == FACTORED || hyper.method == FULL) {
        // |B SB^+| is at most |SB^+|^(1/2), so |U| is at most that times |N| / s; and with X the adapter
        // is at most as far from (gA, gB) as without.
        double n = LARGEST_N * sqrt(double(adapter.side[0].len) * adapter.side[1].len), roots = 0.0;
        for (int side = 0; side < 2; ++side)
            roots += sqrt(norm(m, PINV + side, shared));
        direction = 4.0 * n * (adapter.s * (a + b) + roots / adapter.s);
    }
    double lr = fmax(adapter.step.lr[0], adapter.step.lr[1]);
    Bounds bounds = bounds_of(hyper.in_f64, adapter.side[0].f.dtype);
    bool certain = adjusted < bounds.computes && direction < bounds.computes &&
                   equivalent < bounds.computes && a + b + lr * direction < bounds.stores &&
                   (hyper.method == SGD || normalized_step_is_bounded(hyper));
    return !certain;
}

// What the passes of the method apply; the step's numbers; whether anything might overflow.
//
// Task: an adapter.
template <class T> DEVICE void solve_gradients(const Launch& launch) {
    SHARED(double, shared);
    const Model& model = *launch.model;
    Adapter& adapter = model.adapters[launch.tasks[blockIdx.x].item];
    double gamma = gamma_of(model, adapter.hyper, shared);
    // The barriers of the sums below come before the first read.
    if (threadIdx.x == 0) set_step(adapter, *model.control, gamma);
    if (model.status->rejected & NOT_FINITE) return;
    RankMatrices m(adapter);
    int method = adapter.hyper.method;
    if (method == LORA) {
        raw_products(adapter, m, gamma);
    } else {
        part_products(adapter, m, gamma);
        project_gradients(m, transposed(FG), of(FG + 1));
        solve_x(adapter, m, gamma);
    }
    // |E|^2 with E = B H0 + H1' A.
    double square = dot(m, of(FF + 1), of(HH), shared) +
                    dot(m, of(FF), of(HH + 1), shared) +
                    2.0 * dot(m, of(FH + 1), transposed(FH), shared);
    double equivalent = sqrt(fmax(0.0, square));
    bool risky = may_overflow(adapter, m, equivalent, shared);
    if (threadIdx.x == 0) {
        adapter.report->equivalent_norm = equivalent;
        if (risky) reject_overflow(model, *adapter.report);
    }
    if (method == SGD || method == EFFICIENT) set_direction<T>(adapter, m, gamma);
    if (method == FULL || method == FACTORED) set_parts<T>(adapter, m, gamma);
}

KERNEL solve_gradients_f32(const Launch launch) { solve_gradients<float>(launch); }
KERNEL solve_gradients_f64(const Launch launch) { solve_gradients<double>(launch); }

// Factored mode: the squares of E's columns (on side 1, rows) as sums of squares. With h and f of a side
// and F and C of the other one, a column is F'h + C'R'f, and its square |Rs h + Rm R'f|^2 + |Rk R'f|^2:
//
//     [F F'  F C']   [Rs  Rm]'[Rs  Rm]     Rs = sqrt(L) Q' for F F' = Q L Q', Rm = Rs^+' F C',
//     [C F'  C C'] = [0   Rk] [0   Rk]     Rk'Rk = C C' - Rm'Rm
//
// The same as a quadratic form in h and f loses all digits, and its sign, where a factor is
// ill-conditioned: h is as large as 1 over F's smallest singular value, and F'h is not. Where rounding in
// Rm has made Rk'Rk negative, squares are subtracted: coefficients 5 begin with their signs.
//
// Task: an adapter, a side.
template <class T> DEVICE void solve_squares(const Launch& launch) {
    SHARED(double, shared);
    if (!step_is_live(*launch.model)) return;
    Task task = launch.tasks[blockIdx.x];
    const Adapter& adapter = launch.model->adapters[task.item];
    RankMatrices m(adapter);
    int side = task.side, other = 1 - side, r = m.r;
    // Matrices that are free until the passes leave their sums.
    int rs = ADVANCED + 3 * side, rm = rs + 1, rk = rs + 2, vectors = WEIGHTED + 2 * side, product = vectors + 1;
    const double* values = m.values(other);
    double null = double(NULL_EIGENVALUE) * adapter.side[other].len * 2.220446049250313e-16 *
                  fmax(0.0, largest_of(values, r));
    multiply(m, product, 1.0, transposed(VECTORS + other), of(FC + other));
    for (int at = threadIdx.x; at < r * r; at += BLOCK) {
        double value = values[at / r];
        m(rs)[at] = sqrt(fmax(0.0, value)) * m.get(transposed(VECTORS + other), at / r, at % r);
        m(rm)[at] = value > null ? m(product)[at] / sqrt(value) : 0.0;
    }
    __syncthreads();
    multiply(m, product, -1.0, transposed(rm), of(rm));
    combine(m, product, 1.0, of(product), 1.0, of(CC + other));
    decompose_matrix(m, product, vectors, 2 + side, shared);
    const double* squares = m.values(2 + side);
    T* signs = coefficients<T>(adapter, side, 5);
    for (int at = threadIdx.x; at < r * r; at += BLOCK)
        m(rk)[at] = sqrt(fabs(squares[at / r])) * m.get(transposed(vectors), at / r, at % r);
    for (int i = threadIdx.x; i < r; i += BLOCK) signs[i] = squares[i] < 0.0 ? T(-1) : T(1);
    __syncthreads();

    // Rs Hg, with Hg = gamma / s R R' of the other side.
    multiply(m, product, adapter.step.gamma / adapter.s, of(rs), of(ROOT + other));
    multiply(m, vectors, 1.0, of(product), transposed(ROOT + other));
    set_coefficients(m, coefficients<T>(adapter, side, 2), 1.0, of(vectors));
    // Rs Hf + Rm R', with Hf = -s Q' on side 1.
    multiply(m, product, 1.0, of(rm), transposed(ROOT + side));
    if (side == 1) multiply(m, product, -adapter.s, of(rs), transposed(Q), true);
    set_coefficients(m, coefficients<T>(adapter, side, 3), 1.0, of(product));
    multiply(m, product, 1.0, of(rk), transposed(ROOT + side));
    set_coefficients(m, coefficients<T>(adapter, side, 4), 1.0, of(product));
}

KERNEL solve_squares_f32(const Launch launch) { solve_squares<float>(launch); }
KERNEL solve_squares_f64(const Launch launch) { solve_squares<double>(launch); }

// Full mode, N in the place of g: the coefficients of (dA, dB) from F G' of both sides.
//
// Task: an adapter.
template <class T> DEVICE void solve_full(const Launch& launch) {
    if (!step_is_live(*launch.model)) return;
    const Adapter& adapter = launch.model->adapters[launch.tasks[blockIdx.x].item];
    RankMatrices m(adapter);
    Squares squares = squares_of(m.r, m.r);
    for (int at = threadIdx.x; at < 2 * m.r * m.r; at += BLOCK) {
        int side = at / (m.r * m.r), entry = at % (m.r * m.r);
        m(FG + side)[entry] =
            sum_of_chunks(adapter.side[side].products, squares, adapter.side[side].chunk_count, false,
                          entry / m.r, entry % m.r);
    }
    __syncthreads();
    project_gradients(m, transposed(FG), of(FG + 1));
    solve_x(adapter, m, adapter.s);
    set_direction<T>(adapter, m, adapter.s);
}

KERNEL solve_full_f32(const Launch launch) { solve_full<float>(launch); }
KERNEL solve_full_f64(const Launch launch) { solve_full<double>(launch); }

// Adds up what a pass of the factored mode left: X [several matrices of r rows]', one r x r matrix
// for each.
DEVICE_LARGE void sum_stack(const Adapter& adapter, int side, int count, double factor, double* out) {
    int r = adapter.r;
    Squares squares = squares_of(r, count * r);
    for (int at = threadIdx.x; at < count * r * r; at += BLOCK) {
        int which = at / (r * r), i = at / r % r, j = at % r;
        out[at] = factor * sum_of_chunks(adapter.side[side].products, squares, adapter.side[side].chunk_count,
                                    false, i, which * r + j);
    }
    __syncthreads();
}

// Factored mode: X and Q for N, of which B'N A' = (1 / c1) [(B'Da B)(Y Db A') + (B'Da Z)(A Db A')],
// and the coefficients of D = (T1 Y + T2 F) w + T3 F:
//
//     T1 = S^+ (F w F') / (s c1),  T2 = S^+ (F w Y') / (s c1) of the other side,  T3 = X or -(Q + X)'
//
// The columns' weights of the pass lack the root of the mean of the rows' means, a number that is
// known only now. Task: an adapter.
template <class T> DEVICE void solve_factored(const Launch& launch) {
    SHARED(double, shared);
    if (!step_is_live(*launch.model)) return;
    Adapter& adapter = launch.model->adapters[launch.tasks[blockIdx.x].item];
    RankMatrices m(adapter);
    double sum = 0.0;
    for (int k = threadIdx.x; k < adapter.side[1].chunk_count; k += BLOCK) sum += adapter.side[1].squares[k];
    double mean = sqrt(block_sum(sum, shared) / adapter.side[1].len / adapter.step.c2);
    sum_stack(adapter, 0, 2, mean, m(WEIGHTED));
    sum_stack(adapter, 1, 2, 1.0, m(WEIGHTED + 2));
    // WEIGHTED: A w A', A w Y', B'w B, B'w Z.
    project_products(m, of(WEIGHTED + 2), transposed(WEIGHTED + 1), of(WEIGHTED + 3), of(WEIGHTED));
    solve_x(adapter, m, adapter.s / adapter.step.c1);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        int other = 1 - side;
        double factor = (side == 0 ? mean : 1.0) / (adapter.s * adapter.step.c1);
#pragma unroll 1
        for (int k = 0; k < 2; ++k) {
            solve(m, other, TEMPORARY, factor, of(WEIGHTED + 2 * other + k));
            set_coefficients(m, coefficients<T>(adapter, side, k), 1.0, of(TEMPORARY));
        }
    }
    set_coefficients(m, coefficients<T>(adapter, 0, 2), 1.0, of(X));
    combine(m, TEMPORARY, 1.0, of(Q), 1.0, of(X));
    set_coefficients(m, coefficients<T>(adapter, 1, 2), -1.0, transposed(TEMPORARY));
}

KERNEL solve_factored_f32(const Launch launch) { solve_factored<float>(launch); }
KERNEL solve_factored_f64(const Launch launch) { solve_factored<double>(launch); }

// Factored mode: how M = B Y + Z A is carried over to the new factors F1:
//
//     Y  <- SB1^+ [(B1'B) Y + (B1'Z) A]
//     Z' <- SA1^+ [(A1 Y')B' + (A1 A')Z'] - (SB1^+ B1'M A1' SA1^+)' B1'
//
// as T1 Y + T2 F + T3 F1. Task: an adapter.
template <class T> DEVICE void solve_transport(const Launch& launch) {
    SHARED(double, shared);
    if (!step_is_live(*launch.model)) return;
    const Adapter& adapter = launch.model->adapters[launch.tasks[blockIdx.x].item];
    RankMatrices m(adapter);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        // F1 F1', F1 F', F1 Y'.
        sum_stack(adapter, side, 3, 1.0, m(ADVANCED + 3 * side));
        assign(m, FF + side, 1.0, of(ADVANCED + 3 * side));
        decompose_side(adapter, side, shared);
    }
    project_products(m, of(ADVANCED + 4), transposed(ADVANCED + 2), of(ADVANCED + 5),
                     transposed(ADVANCED + 1));
    solve_both_sides(m, TEMPORARY + 2, 1.0);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {
        int other = 1 - side;
#pragma unroll 1
        for (int k = 0; k < 2; ++k) {
            solve(m, other, TEMPORARY, 1.0, of(ADVANCED + 3 * other + 1 + k));
            set_coefficients(m, coefficients<T>(adapter, side, k), 1.0, of(TEMPORARY));
        }
    }
    set_coefficients(m, coefficients<T>(adapter, 1, 2), -1.0, transposed(TEMPORARY + 2));
}

KERNEL solve_transport_f32(const Launch launch) { solve_transport<float>(launch); }
KERNEL solve_transport_f64(const Launch launch) { solve_transport<double>(launch); }
