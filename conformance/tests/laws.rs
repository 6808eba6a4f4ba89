//! Every check on the reference, in a test program as backends have it in their own crates.

use lora_pro_conformance::testing::{Suite, run};
use lora_pro_reference::ReferenceBackend;

fn main() {
    run(&[Suite::new(
        "reference",
        || Box::new(ReferenceBackend::new()),
    )]);
}
