//! The launches of a step: the same for every step of the same set of adapters.

use crate::describe::STRIP;
use crate::model::{ENTRIES, Pair, Param, Task};

/// One launch: a kernel, and what each of its blocks does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pass {
    pub(crate) kernel: &'static str,
    pub(crate) tasks: Vec<Task>,
    /// Bytes of shared memory.
    pub(crate) shared: usize,
    pub(crate) words: [u64; 2],
}

/// Methods by the numbers of `kernels/model.cuh`.
const FACTORED: i32 = 3;
const FULL: i32 = 4;

/// The number of the type of codes.
const CODES: i32 = 4;

/// Room for block sums, in numbers of f64 (`ROOM` of `kernels/solve.cu`).
const ROOM: usize = 32;

/// The largest rank whose two matrices of a decomposition are kept in shared memory: 36 KiB.
const FITS: usize = 48;

/// Which kernels compute an adapter.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    F32,
    F64,
}

impl Type {
    fn of(in_f64: i32) -> Self {
        if in_f64 != 0 { Type::F64 } else { Type::F32 }
    }

    fn size(self) -> usize {
        match self {
            Type::F32 => 4,
            Type::F64 => 8,
        }
    }

    fn pick(self, kernels: [&'static str; 2]) -> &'static str {
        match self {
            Type::F32 => kernels[0],
            Type::F64 => kernels[1],
        }
    }
}

/// How an adapter is cut into tasks.
#[derive(Clone, Copy)]
enum Cut {
    Whole,
    Sides,
    Chunks,
    /// Strips of columns by groups of rows.
    Wide,
    /// Entries of W0.
    Base,
}

fn cut(cut: Cut, item: u32, pair: &Pair) -> Vec<Task> {
    let task = |side, chunk, other| Task {
        item,
        side,
        chunk,
        other,
    };
    let [n, m] = [pair.side[0].len as usize, pair.side[1].len as usize];
    match cut {
        Cut::Whole => vec![task(0, 0, 0)],
        Cut::Sides => (0..2).map(|side| task(side, 0, 0)).collect(),
        Cut::Chunks => (0..2)
            .flat_map(|side| {
                let count = pair.side[side as usize].chunk_count as u32;
                (0..count).map(move |chunk| task(side, chunk, 0))
            })
            .collect(),
        Cut::Wide => {
            let groups = m.div_ceil(pair.wide_rows as usize) as u32;
            let strips = n.div_ceil(STRIP) as u32;
            (0..groups)
                .flat_map(|group| (0..strips).map(move |strip| task(0, strip, group)))
                .collect()
        }
        Cut::Base => (0..(m * n).div_ceil(ENTRIES) as u32)
            .map(|chunk| task(0, chunk, 0))
            .collect(),
    }
}

/// Bytes of shared memory of so many tiles of r rows.
fn tile_bytes(pair: &Pair, count: usize) -> usize {
    let (r, width) = (pair.r as usize, pair.width as usize);
    count * r * (width + 4) * Type::of(pair.hyper.in_f64).size()
}

/// Bytes of shared memory of a thin pass: three tiles, the squares of octets, weights, a sum.
fn tiles(pair: &Pair) -> usize {
    let (r, width) = (pair.r as usize, pair.width as usize);
    let numbers = (r.div_ceil(8) + 1) * width;
    tile_bytes(pair, 3) + numbers * Type::of(pair.hyper.in_f64).size() + ROOM * 8
}

/// The same of the pass that steps a factor: two more tiles for moments.
fn moment_tiles(pair: &Pair) -> usize {
    tile_bytes(pair, 5) + ROOM * 8
}

/// Bytes of shared memory of the r x r kernels that decompose.
fn matrices(pair: &Pair) -> usize {
    let r = pair.r as usize;
    let kept = if r <= FITS { 2 * r * r } else { 0 };
    (ROOM + 2 * r.div_ceil(2) + kept) * 8
}

fn sum(_: &Pair) -> usize {
    ROOM * 8
}

/// The kernel of the wide pass, and its shared memory: the next moments, and of the rows that a block
/// has at once N and so many numbers of B.
fn wide_kernel(pair: &Pair) -> (&'static str, usize) {
    let (kernel, rows, ranks) = match (Type::of(pair.hyper.in_f64), pair.wide_dtype) {
        (Type::F32, CODES) => ("wide_f32_coded", 48, 8),
        (Type::F32, _) if pair.r <= 8 => ("wide_f32_r8", 16, 8),
        (Type::F32, _) => ("wide_f32_r32", 24, 32),
        (Type::F64, _) => ("wide_f64_r16", 16, 16),
    };
    // f64, f32, bf16, f16, codes.
    let moments = 2 * [8, 4, 2, 2, 1][pair.wide_dtype as usize];
    let number = Type::of(pair.hyper.in_f64).size();
    (kernel, rows * (STRIP * (moments + number) + ranks * number))
}

/// Collects passes.
struct Planner<'m> {
    adapters: &'m [Pair],
    passes: Vec<Pass>,
}

impl Planner<'_> {
    /// A launch for the adapters that `wanted` picks, where there are any.
    fn add(
        &mut self,
        kernel: &'static str,
        how: Cut,
        shared: impl Fn(&Pair) -> usize,
        words: [u64; 2],
        wanted: impl Fn(&Pair) -> bool,
    ) {
        let chosen = self.adapters.iter().enumerate();
        let chosen: Vec<_> = chosen.filter(|(_, pair)| wanted(pair)).collect();
        if chosen.is_empty() {
            return;
        }
        let tasks = chosen
            .iter()
            .map(|(item, pair)| cut(how, *item as u32, pair));
        let shared = chosen.iter().map(|(_, pair)| shared(pair)).max();
        self.passes.push(Pass {
            kernel,
            tasks: tasks.flatten().collect(),
            shared: shared.unwrap_or(0),
            words,
        });
    }

    /// A launch for each type of computation.
    fn typed(
        &mut self,
        kernels: [&'static str; 2],
        how: Cut,
        shared: impl Fn(&Pair) -> usize + Copy,
        words: [u64; 2],
        wanted: impl Fn(&Pair) -> bool + Copy,
    ) {
        for kind in [Type::F32, Type::F64] {
            let ours = |pair: &Pair| Type::of(pair.hyper.in_f64) == kind && wanted(pair);
            self.add(kind.pick(kernels), how, shared, words, ours);
        }
    }

    fn survey(&mut self) {
        let fits = [FITS as u64, 0];
        self.typed(
            ["survey_f32", "survey_f64"],
            Cut::Chunks,
            tiles,
            [0; 2],
            |_| true,
        );
        self.add("decompose_grams", Cut::Sides, matrices, fits, |_| true);
    }

    fn full(&mut self) {
        let full = |pair: &Pair| pair.hyper.method == FULL;
        self.typed(["form_f32", "form_f64"], Cut::Chunks, tiles, [0; 2], full);
        for kernel in [
            "wide_f32_r8",
            "wide_f32_r32",
            "wide_f64_r16",
            "wide_f32_coded",
        ] {
            let ours = |pair: &Pair| full(pair) && wide_kernel(pair).0 == kernel;
            self.add(kernel, Cut::Wide, |pair| wide_kernel(pair).1, [0; 2], ours);
        }
        self.typed(
            ["resurvey_f32", "resurvey_f64"],
            Cut::Chunks,
            tiles,
            [0; 2],
            full,
        );
        self.typed(
            ["choose_full_f32", "choose_full_f64"],
            Cut::Whole,
            sum,
            [0; 2],
            full,
        );
    }

    fn factored(&mut self) {
        let factored = |pair: &Pair| pair.hyper.method == FACTORED;
        let clipped = |pair: &Pair| factored(pair) && pair.hyper.update_clip > 0.0;
        let fits = [FITS as u64, 0];
        self.typed(
            ["average_f32", "average_f64"],
            Cut::Chunks,
            tiles,
            [0; 2],
            factored,
        );
        let choose = ["choose_factored_f32", "choose_factored_f64"];
        self.typed(choose, Cut::Whole, sum, [0; 2], factored);
        let advance = ["advance_f32", "advance_f64"];
        // The first pass of a clipped adapter is a rehearsal: it writes to scratch memory only.
        self.typed(advance, Cut::Chunks, tiles, [0; 2], factored);
        self.add("measure", Cut::Whole, sum, [1, 0], clipped);
        self.typed(advance, Cut::Chunks, tiles, [0; 2], clipped);
        let carry = ["choose_carry_f32", "choose_carry_f64"];
        self.typed(carry, Cut::Whole, matrices, fits, factored);
        self.typed(
            ["carry_f32", "carry_f64"],
            Cut::Chunks,
            tiles,
            [0; 2],
            factored,
        );
    }

    fn apply(&mut self) {
        let ours = |pair: &Pair| pair.hyper.method != FACTORED;
        let clipped = |pair: &Pair| ours(pair) && pair.hyper.update_clip > 0.0;
        let apply = ["apply_f32", "apply_f64"];
        self.typed(apply, Cut::Chunks, moment_tiles, [1, 0], clipped);
        self.add("measure", Cut::Whole, sum, [1, 0], clipped);
        self.typed(apply, Cut::Chunks, moment_tiles, [0; 2], ours);
    }
}

/// The launches for parameters without a pair: before the decision whether the step may go on, and
/// after it.
fn param_passes(params: &[Param]) -> [Vec<Pass>; 2] {
    let chosen = |wanted: Option<Type>| {
        let params = params.iter().enumerate();
        params.filter(move |(_, param)| {
            wanted.is_none_or(|kind| Type::of(param.hyper.in_f64) == kind)
        })
    };
    let pass = |kernel, wanted, whole: bool| {
        let tasks = chosen(wanted).flat_map(|(item, param)| {
            let count = if whole { 1 } else { param.chunk_count as u32 };
            (0..count).map(move |chunk| Task {
                item: item as u32,
                chunk,
                ..Task::default()
            })
        });
        Pass {
            kernel,
            tasks: tasks.collect(),
            shared: ROOM * 8,
            words: [0; 2],
        }
    };
    let before = vec![
        pass("survey_params_f32", Some(Type::F32), false),
        pass("survey_params_f64", Some(Type::F64), false),
        pass("sum_params", None, true),
    ];
    let after = vec![
        pass("judge_params", None, true),
        pass("step_params_f32", Some(Type::F32), false),
        pass("step_params_f64", Some(Type::F64), false),
        pass("count_params", None, true),
    ];
    [before, after].map(|passes| {
        let some = |pass: &Pass| !pass.tasks.is_empty();
        passes.into_iter().filter(some).collect()
    })
}

/// All launches of a step but the first, `begin`, in their order.
pub(crate) fn passes(adapters: &[Pair], params: &[Param]) -> Vec<Pass> {
    let [before, mut after] = param_passes(params);
    let mut planner = Planner {
        adapters,
        passes: before,
    };
    planner.survey();
    planner.typed(["split_f32", "split_f64"], Cut::Whole, sum, [0; 2], |_| {
        true
    });
    // Whether the step may go on is known after these, and nothing is written before.
    let rest = after.split_off(after.len().min(1));
    planner.passes.append(&mut after);
    planner.full();
    planner.factored();
    planner.apply();
    planner.add("decay_base", Cut::Base, sum, [0; 2], |pair| {
        pair.base.at != 0
    });
    planner.passes.extend(rest);
    planner.add("measure", Cut::Whole, sum, [0; 2], |_| true);
    planner.passes
}

/// The launches that copy F of all adapters and the values of all parameters to their backups, or
/// back.
pub(crate) fn backup_passes(adapters: &[Pair], params: &[Param], back: bool) -> Vec<Pass> {
    let words = [u64::from(back), 0];
    let mut planner = Planner {
        adapters,
        passes: Vec::new(),
    };
    planner.add("back_up", Cut::Chunks, sum, words, |_| true);
    let of_params = params.iter().enumerate().flat_map(|(item, param)| {
        (0..param.chunk_count as u32).map(move |chunk| Task {
            item: item as u32,
            chunk,
            ..Task::default()
        })
    });
    let tasks: Vec<_> = of_params.collect();
    if !tasks.is_empty() {
        planner.passes.push(Pass {
            kernel: "back_up_params",
            tasks,
            shared: ROOM * 8,
            words,
        });
    }
    planner.passes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_RANK;
    use crate::describe::{WIDE_ROWS, width};

    /// What every device of compute capability 8.0 or later gives a block.
    const SHARED: usize = 99 * 1024;

    #[test]
    fn every_pass_fits_into_shared_memory() {
        for r in 1..=MAX_RANK {
            for (in_f64, wide_dtype) in [(0, 1), (0, 2), (0, 4), (1, 0), (1, 1)] {
                let mut pair = Pair {
                    r: r as i32,
                    width: width(r, in_f64 == 1) as i32,
                    wide_dtype,
                    ..Pair::default()
                };
                pair.hyper.in_f64 = in_f64;
                let all = [
                    tiles(&pair),
                    moment_tiles(&pair),
                    matrices(&pair),
                    wide_kernel(&pair).1,
                ];
                let most = all.into_iter().max().unwrap_or(0);
                assert!(most <= SHARED, "rank {r}, f64 {in_f64}: {all:?}");
            }
        }
    }

    #[test]
    fn groups_of_rows_are_whole_for_every_kernel() {
        for rows in [16, 24, 48] {
            assert_eq!(WIDE_ROWS % rows, 0);
        }
    }
}
