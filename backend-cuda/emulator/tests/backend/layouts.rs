//! Where and how borrowed device memory lies changes nothing, and nothing beside the elements is
//! written.

use lora_pro_cuda::Options;

use crate::common::layout::{LAYOUTS, Layout};
use crate::common::{Bits, adapter, differing};
use crate::counting::checked;
use crate::model::{Lay, Part, TestModel, config, settings};

/// Steps of a trajectory.
const STEPS: u64 = 2;

/// Around the tiles, and one whose rows and columns can be read sixteen bytes at a time.
const SHAPES: [(usize, usize, usize); 4] = [(7, 65, 3), (1, 130, 1), (13, 5, 5), (40, 272, 8)];

fn run(part: Part, lay: Lay) -> Bits {
    let device = checked(0);
    let options = Options::default();
    let mut model =
        TestModel::with(&device, options, &[part], config(&[part]), lay).expect("valid");
    for t in 1..=STEPS {
        model.step(t).expect("a step");
    }
    let bits = model.bits();
    drop(model);
    assert_eq!(device.hook().in_use(), 0, "everything is given back");
    bits
}

/// Every tensor in another layout than its neighbours.
fn mixed(tensor: &str, taken: &[Layout]) -> Layout {
    let sum: usize = tensor.bytes().map(usize::from).sum();
    taken[sum % taken.len()]
}

fn every_layout((m, n, r): (usize, usize, usize)) {
    let taken: Vec<_> = LAYOUTS.into_iter().filter(|x| !x.is_misaligned()).collect();
    for (dtype, hyper) in settings() {
        let part = Part {
            spec: adapter(m, n, r, dtype),
            hyper: hyper.decay_base(true),
            unpaired: true,
        };
        let expected = run(part, &|_| Layout::Rows);
        let check = |lay: Lay, what: &str| {
            let differ = differing(&run(part, lay), &expected);
            assert!(
                differ.is_empty(),
                "{m}x{n}x{r} {what} {dtype} {hyper:?}: {differ:?}"
            );
        };
        for layout in &taken[1..] {
            check(&|_| *layout, &format!("{layout:?}"));
        }
        check(&|tensor| mixed(tensor, &taken), "mixed");
    }
}

macro_rules! shapes {
    ($($test:ident: $k:literal),+) => {$(
        #[test]
        fn $test() {
            every_layout(SHAPES[$k]);
        }
    )+};
}

shapes!(around_tiles: 0, of_one_row: 1, of_full_rank: 2, of_whole_vectors: 3);
