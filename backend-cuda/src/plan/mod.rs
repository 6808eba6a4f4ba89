//! The launches of a step: the same for every step of the same set of adapters.
//!
//! | module | what |
//! |---|---|
//! | `tasks` | how a pass is cut into blocks |
//! | `shared` | shared memory of a block; the kernels of the wide pass |
//! | `params` | unpaired parameters |

mod params;
mod shared;
mod tasks;

use lora_pro_core::Method;

use crate::descriptors::Descriptors;
use crate::model::{Adapter, Precision, Task};
use shared::WideKernel;
use tasks::{Cut, tasks};

/// One launch: a kernel, and what each of its blocks does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pass {
    pub(crate) kernel: &'static str,
    pub(crate) tasks: Vec<Task>,
    /// Bytes of shared memory.
    pub(crate) shared: usize,
    pub(crate) words: [u64; 2],
}

/// The kernel that decays W0, which has no backup.
pub(crate) const DECAY_BASE: &str = "decay_base";

/// What a method does between the closed form of the gradients and the report.
#[derive(Clone, Copy, PartialEq)]
enum Route {
    /// (dA, dB), or for plain LoRA the gradients, are followed.
    Thin,
    /// The moments of E are m x n; their closed form is followed.
    Full,
    /// The moments of E are thin; their closed form is followed, and they are transported.
    Factored,
}

impl Route {
    fn of(method: Method) -> Self {
        match method {
            Method::Lora | Method::Sgd | Method::Efficient => Route::Thin,
            Method::Full => Route::Full,
            Method::Factored => Route::Factored,
        }
    }
}

/// The f32 kernel of a pass and the f64 one.
type Kernels = [&'static str; 2];

/// Dry runs of passes that a trust region cuts: they measure, and write to scratch memory alone.
const DRY_RUN: [u64; 2] = [1, 0];

/// Collects passes.
struct Planner<'m> {
    adapters: Vec<(&'m Adapter, Route)>,
    passes: Vec<Pass>,
}

impl<'m> Planner<'m> {
    fn new(of: &'m Descriptors, passes: Vec<Pass>) -> Self {
        let routes = of.methods.iter().map(|method| Route::of(*method));
        Planner {
            adapters: of.adapters.iter().zip(routes).collect(),
            passes,
        }
    }

    /// A launch for the adapters that `wanted` picks, where there are any.
    fn add(
        &mut self,
        kernel: &'static str,
        cut: Cut,
        shared: impl Fn(&Adapter) -> usize,
        words: [u64; 2],
        wanted: impl Fn(&Adapter, Route) -> bool,
    ) {
        let all = self.adapters.iter().enumerate();
        let chosen = all.filter(|(_, (adapter, route))| wanted(adapter, *route));
        let chosen: Vec<_> = chosen
            .map(|(item, (adapter, _))| (item, *adapter))
            .collect();
        let Some(shared) = chosen.iter().map(|(_, adapter)| shared(adapter)).max() else {
            return;
        };
        let tasks = chosen
            .iter()
            .flat_map(|(item, adapter)| tasks(cut, *item as u32, adapter));
        self.passes.push(Pass {
            kernel,
            tasks: tasks.collect(),
            shared,
            words,
        });
    }

    /// A launch for each type of computation.
    fn add_typed(
        &mut self,
        kernels: Kernels,
        cut: Cut,
        shared: impl Fn(&Adapter) -> usize,
        words: [u64; 2],
        wanted: impl Fn(&Adapter, Route) -> bool,
    ) {
        for (kernel, precision) in kernels.into_iter().zip(Precision::ALL) {
            self.add(kernel, cut, &shared, words, |adapter, route| {
                adapter.hyper.precision() == precision && wanted(adapter, route)
            });
        }
    }

    /// A thin pass: a block for each chunk of columns.
    fn thin(&mut self, kernels: Kernels, wanted: impl Fn(&Adapter, Route) -> bool) {
        self.add_typed(kernels, Cut::Chunks, shared::thin, [0; 2], wanted);
    }

    /// An r x r kernel: a block for each adapter.
    fn solve(&mut self, kernels: Kernels, wanted: impl Fn(&Adapter, Route) -> bool) {
        self.add_typed(kernels, Cut::Whole, shared::sums, [0; 2], wanted);
    }

    /// The lengths of updates, after a dry run (then the clip) or after the step (then the report).
    fn report(&mut self, words: [u64; 2], wanted: impl Fn(&Adapter, Route) -> bool) {
        self.add("write_report", Cut::Whole, shared::sums, words, wanted);
    }

    /// Gram matrices of all factors, and the norms of all gradients.
    fn gram(&mut self) {
        let all = |_: &Adapter, _| true;
        self.thin(["gram_pass_f32", "gram_pass_f64"], all);
        self.add("decompose_grams", Cut::Sides, shared::eigen, [0; 2], all);
    }

    fn full(&mut self) {
        let full = |_: &Adapter, route| route == Route::Full;
        self.thin(["form_f32", "form_f64"], full);
        for kernel in WideKernel::all() {
            let shared = |adapter: &Adapter| kernel.shared(adapter);
            self.add(kernel.name, Cut::Wide, shared, [0; 2], |adapter, route| {
                full(adapter, route) && WideKernel::of(adapter) == kernel
            });
        }
        self.thin(["cross_pass_f32", "cross_pass_f64"], full);
        self.solve(["solve_full_f32", "solve_full_f64"], full);
    }

    fn factored(&mut self) {
        let factored = |_: &Adapter, route| route == Route::Factored;
        let clipped = |adapter: &Adapter, route| factored(adapter, route) && is_clipped(adapter);
        let squares = ["solve_squares_f32", "solve_squares_f64"];
        self.add_typed(squares, Cut::Sides, shared::eigen, [0; 2], factored);
        self.thin(["update_moments_f32", "update_moments_f64"], factored);
        self.solve(["solve_factored_f32", "solve_factored_f64"], factored);
        // Of a clipped adapter this is a dry run: it writes to scratch memory only.
        let update = ["update_factor_f32", "update_factor_f64"];
        self.thin(update, factored);
        self.report(DRY_RUN, clipped);
        self.thin(update, clipped);
        let transport = ["solve_transport_f32", "solve_transport_f64"];
        self.add_typed(transport, Cut::Whole, shared::eigen, [0; 2], factored);
        self.thin(["transport_f32", "transport_f64"], factored);
    }

    fn apply(&mut self) {
        let applied = |_: &Adapter, route| match route {
            Route::Thin | Route::Full => true,
            Route::Factored => false,
        };
        let clipped = |adapter: &Adapter, route| applied(adapter, route) && is_clipped(adapter);
        let (apply, shared) = (["apply_f32", "apply_f64"], shared::with_moments);
        self.add_typed(apply, Cut::Chunks, shared, DRY_RUN, clipped);
        self.report(DRY_RUN, clipped);
        self.add_typed(apply, Cut::Chunks, shared, [0; 2], applied);
    }
}

fn is_clipped(adapter: &Adapter) -> bool {
    adapter.hyper.update_clip > 0.0
}

/// All launches of a step but the first, `begin`, in their order.
pub(crate) fn passes(of: &Descriptors) -> Vec<Pass> {
    let all = |_: &Adapter, _| true;
    let mut planner = Planner::new(of, params::squares(&of.params));
    planner.gram();
    planner.solve(["solve_gradients_f32", "solve_gradients_f64"], all);
    planner.passes.extend(params::check(&of.params));
    // From here on it is known whether the step may go on; nothing was written before.
    planner.full();
    planner.factored();
    planner.apply();
    planner.add(DECAY_BASE, Cut::Base, shared::sums, [0; 2], |adapter, _| {
        adapter.base.at != 0
    });
    planner.passes.extend(params::steps(&of.params));
    planner.report([0; 2], all);
    planner.passes
}

/// The launches that copy F of all adapters and the values of all parameters to their backups, or
/// back.
pub(crate) fn backup_passes(of: &Descriptors, back: bool) -> Vec<Pass> {
    let words = [u64::from(back), 0];
    let mut planner = Planner::new(of, Vec::new());
    planner.add("back_up", Cut::Chunks, shared::sums, words, |_, _| true);
    planner.passes.extend(params::backup(&of.params, words));
    planner.passes
}
