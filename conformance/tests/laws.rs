//! Every check on the reference: `conformance_tests` as backends use it in their own crates.

use lora_pro_conformance::check::Check;
use lora_pro_core::Backend;
use lora_pro_reference::ReferenceBackend;

fn reference_backend() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

lora_pro_conformance::conformance_tests!(reference: reference_backend, [f64, f32]);

/// The macro's list is the kit's.
#[test]
fn no_check_is_left_out() {
    let listed = reference::f64::LISTED.iter();
    let listed: Vec<_> = listed
        .map(|(id, methods)| (id.to_string(), methods.join(" ")))
        .collect();
    let all = Check::all();
    let all: Vec<_> = all
        .iter()
        .map(|check| {
            let methods = check.methods().iter();
            let names: Vec<_> = methods.map(|method| method.to_string()).collect();
            (check.id(), names.join(" "))
        })
        .collect();
    assert_eq!(listed, all);
}
