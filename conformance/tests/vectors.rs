//! The vector suite: followed and refused as its index says, and in step with its catalogue.
//!
//! Vectors with the quirk `bf16_square` came out of the public PyTorch code and are for the
//! reference only, which imitates it. The CPU backend follows all the others, on every path.

use std::collections::BTreeSet;
use std::path::PathBuf;

use lora_pro_conformance::case::{Case, Quirk};
use lora_pro_conformance::replay::{replay, tolerance};
use lora_pro_conformance::vectors::schema::{Expected, Index, IndexEntry, RejectionStage};
use lora_pro_conformance::vectors::{catalogue, folder, generate};
use lora_pro_core::{Backend, DType, Damping, Method, XChoice};
use lora_pro_cpu::{CpuBackend, CpuOptions, SimdLevel};
use lora_pro_reference::ReferenceBackend;

fn index() -> Index {
    Index::read(&folder()).expect("conformance/vectors is part of the project")
}

fn path(entry: &IndexEntry) -> PathBuf {
    folder().join(&entry.file)
}

fn reference_for(case: &Case) -> Box<dyn Backend> {
    Box::new(match case.quirk {
        Some(Quirk::Bf16Square) => ReferenceBackend::with_bf16_square(),
        None => ReferenceBackend::new(),
    })
}

fn exact(_: &Case) -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

fn cpu(simd: SimdLevel) -> impl Fn(&Case) -> Box<dyn Backend> {
    let options = CpuOptions::default().simd_level(simd);
    move |_| Box::new(CpuBackend::with(options).expect("available"))
}

fn quirky(entry: &IndexEntry) -> bool {
    entry.flags.iter().any(|flag| flag == "PublicCode")
}

/// The worst deviation over time, and what is allowed; `None` for what has to be refused.
fn worst(entry: &IndexEntry, backend: impl Fn(&Case) -> Box<dyn Backend>) -> Option<(f64, f64)> {
    let Expected::Valid {
        tolerance: limit, ..
    } = entry.expected
    else {
        return None;
    };
    let case = Case::read(&path(entry)).expect("a valid case");
    let trajectory = replay(&case, backend(&case), DType::F64)
        .unwrap_or_else(|error| panic!("{}: {error}", entry.file));
    let deviation = trajectory
        .deviation(&case)
        .expect("the case records its factors");
    Some((deviation.error, limit))
}

/// Says what each vector that is not followed strays, all of them at once.
fn follows(name: &str, backend: impl Fn(&Case) -> Box<dyn Backend>, whom: fn(&IndexEntry) -> bool) {
    let mut failures = Vec::new();
    for entry in index().vectors.iter().filter(|entry| whom(entry)) {
        let Some((error, limit)) = worst(entry, &backend) else {
            continue;
        };
        println!("{error:.1e} {}", entry.file);
        // Written so that NaN fails.
        if !matches!(error.partial_cmp(&limit), Some(std::cmp::Ordering::Less)) {
            failures.push(format!("{}: {error:.1e}, {limit:.1e} allowed", entry.file));
        }
    }
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
}

#[test]
fn the_reference_follows_every_valid_vector() {
    follows("reference", reference_for, |_| true);
}

#[test]
fn the_cpu_backend_follows_on_every_simd_level() {
    for simd in SimdLevel::available() {
        follows(&simd.to_string(), cpu(simd), |entry| !quirky(entry));
    }
}

/// The quirk is what tells the public code from the formulas: without it the replay must fail.
#[test]
fn the_public_codes_rounding_is_seen() {
    for entry in index().vectors.iter().filter(|entry| quirky(entry)) {
        let (error, limit) = worst(entry, exact).expect("a valid vector");
        assert!(error > 10.0 * limit, "{}: {error:e}", entry.file);
    }
}

fn refuses(backend: impl Fn(&Case) -> Box<dyn Backend>) {
    for entry in index().vectors {
        let Expected::Refused { by, names } = &entry.expected else {
            continue;
        };
        let error = match (Case::read(&path(&entry)), by) {
            (Err(error), RejectionStage::Read) => error,
            (Ok(case), RejectionStage::Step) => replay(&case, backend(&case), DType::F64)
                .expect_err(&format!("{} is to be refused", entry.file)),
            (Ok(_), RejectionStage::Read) => panic!("{} is read", entry.file),
            (Err(error), RejectionStage::Step) => panic!("{} is not read: {error}", entry.file),
        };
        let error = error.to_string();
        println!("{error}");
        let reason = error.split_once(".safetensors: ").map_or(&*error, |x| x.1);
        assert!(reason.contains(names), "{}: {error}", entry.file);
    }
}

#[test]
fn every_other_vector_is_refused() {
    refuses(exact);
    for simd in SimdLevel::available() {
        refuses(cpu(simd));
    }
}

/// What `lora-pro replay` allows for a file is what the index allows.
#[test]
fn the_index_and_replay_agree_on_tolerances() {
    for entry in index().vectors {
        if let Expected::Valid {
            tolerance: limit, ..
        } = entry.expected
        {
            let case = Case::read(&path(&entry)).expect("a valid case");
            assert_eq!(limit, tolerance(&case, DType::F64), "{}", entry.file);
        }
    }
}

#[test]
fn every_generated_vector_is_generated_again() {
    for vector in catalogue::all() {
        let file = generate::VectorFile::read(&folder().join(vector.file())).expect("a file");
        let same = generate::same(&vector, &file);
        assert_eq!(same, Ok(()), "{}", vector.file());
    }
}

/// Sensitivities are measured and may differ between machines, by less than tenfold.
#[test]
fn the_index_says_what_the_catalogue_says() {
    let (mut found, mut expected) = (index(), generate::index().expect("generated"));
    for (x, y) in found.vectors.iter_mut().zip(&mut expected.vectors) {
        let file = x.file.clone();
        let (Some(x), Some(y)) = (sensitivity(x), sensitivity(y)) else {
            continue;
        };
        assert!(
            *x <= 10.0 * *y && *y <= 10.0 * *x,
            "{file}: {x:e} and {y:e}"
        );
        *y = *x;
    }
    assert_eq!(found, expected);
}

fn sensitivity(entry: &mut IndexEntry) -> Option<&mut f64> {
    match &mut entry.expected {
        Expected::Valid { sensitivity, .. } => sensitivity.as_mut(),
        Expected::Refused { .. } => None,
    }
}

#[test]
fn the_index_and_the_folder_agree() {
    let index = index();
    let files = BTreeSet::from_iter(index.vectors.iter().map(|entry| &entry.file));
    let ids = BTreeSet::from_iter(index.vectors.iter().map(|entry| entry.id));
    assert_eq!((files.len(), ids.len()), (index.count, index.count));
    let unlisted_files = index.unlisted_files(&folder()).expect("a folder");
    assert_eq!(unlisted_files, [""; 0]);
    for entry in &index.vectors {
        assert!(path(entry).is_file(), "{} is missing", entry.file);
    }
}

#[test]
fn every_flag_is_defined_and_used() {
    let index = index();
    let defined = BTreeSet::from_iter(index.flags.keys());
    let used = BTreeSet::from_iter(index.vectors.iter().flat_map(|entry| &entry.flags));
    assert_eq!(defined, used);
    let flagged = |entry: &IndexEntry| !entry.flags.is_empty() && !entry.comment.is_empty();
    assert!(index.vectors.iter().all(flagged));
}

/// Every method with every X and every damping, and every option somewhere.
#[test]
fn every_branch_has_a_generated_vector() {
    let valid = |vector: &catalogue::Vector| matches!(vector.outcome, catalogue::VectorKind::Valid);
    let all: Vec<_> = catalogue::all().into_iter().filter(valid).collect();
    let some = |holds: &dyn Fn(&lora_pro_core::Hyper) -> bool| {
        assert!(all.iter().any(|vector| holds(&vector.hyper)));
    };
    for method in [
        Method::Sgd,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        for x in [XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero] {
            some(&|hyper| hyper.method == method && hyper.x == x);
        }
        for damping in [
            Damping::None,
            Damping::Absolute(0.0),
            Damping::Relative(0.0),
            Damping::Cutoff(0.0),
        ] {
            let kind = std::mem::discriminant(&damping);
            some(&|hyper| hyper.method == method && std::mem::discriminant(&hyper.damping) == kind);
        }
        some(&|hyper| hyper.method == method && hyper.lr_ratio != 1.0);
        some(&|hyper| hyper.method == method && hyper.update_clip.is_some());
        some(&|hyper| hyper.method == method && hyper.maximize);
    }
    for method in [
        Method::Lora,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        some(&|hyper| hyper.method == method && hyper.amsgrad);
        some(&|hyper| hyper.method == method && hyper.weight_decay > 0.0);
        some(&|hyper| hyper.method == method && hyper.beta1 == 0.0 && hyper.beta2 == 0.0);
    }
    some(&|hyper| hyper.momentum > 0.0);
}
