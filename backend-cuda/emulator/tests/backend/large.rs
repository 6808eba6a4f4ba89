//! Against the reference at sizes that make several chunks, strips and groups of rows, and at ranks
//! around those where the kernels go about things in another way.

use lora_pro_conformance::differential::{Finding, compare};
use lora_pro_conformance::options::sampled;
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::testing::{CASES, wanted_cases};
use lora_pro_core::{DType, Method};

use crate::common::{METHODS, adapter, cuda};

/// m, n, r. Thin passes are cut after 512 columns (up to r = 16), the wide one after 256 columns and
/// 480 rows.
const SHAPES: [(usize, usize, usize); 9] = [
    (1090, 1030, 8),
    (35, 1100, 33),
    (150, 70, 9),
    (600, 40, 16),
    (60, 90, 33),
    (70, 55, 48),
    (60, 70, 49),
    (64, 130, 64),
    (110, 120, 100),
];

/// For the full mode, whose cost is that of the wide pass.
const WIDE: [(usize, usize, usize); 2] = [(970, 520, 8), (500, 270, 40)];

fn holds_at(dtype: DType, method: Method, shapes: &[(usize, usize, usize)]) {
    let mut total = Finding::default();
    // One case of each shape, more where the variable asks for them.
    let cases = wanted_cases(CASES).div_ceil(CASES) as usize;
    for (k, (m, n, r)) in shapes.iter().cycle().take(cases * shapes.len()).enumerate() {
        let spec = CaseSpec {
            steps: 2,
            seed: k as u64,
            ..adapter(*m, *n, *r, dtype)
        };
        let case = sampled(&spec, method);
        let finding = compare(&cuda, &case).expect("a comparison");
        assert!(
            holds(finding.ratio),
            "{method} {dtype} {m}x{n}x{r}: {finding:?} {case:?}"
        );
        total.compared += finding.compared;
        total.ill_posed += finding.ill_posed;
        total.ratio = total.ratio.max(finding.ratio);
    }
    println!("{method} {dtype}: {total:?}");
    assert!(
        total.ill_posed * 4 <= total.compared,
        "{method} {dtype}: {total:?}"
    );
}

macro_rules! dtypes {
    ($($test:ident: $dtype:ident);+ $(;)?) => {$(
        mod $test {
            use super::*;

            #[test]
            fn thin() {
                for method in METHODS.into_iter().filter(|method| *method != Method::Full) {
                    holds_at(DType::$dtype, method, &SHAPES);
                }
            }

            #[test]
            fn full() {
                holds_at(DType::$dtype, Method::Full, &SHAPES);
                holds_at(DType::$dtype, Method::Full, &WIDE);
            }
        }
    )+};
}

dtypes! {
    in_f64: F64;
    in_f32: F32;
    in_bf16: Bf16;
    in_f16: F16;
}
